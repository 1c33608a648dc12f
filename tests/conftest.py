"""Tests run offline and leave nothing in the user's Hugging Face caches."""

import os
import sys
import tempfile
from pathlib import Path

# before anything imports huggingface_hub, which reads them once
_CACHE = tempfile.TemporaryDirectory(prefix="comedian-tests-")
for _variable, _folder in {
    "HF_HOME": "home",
    "HF_HUB_CACHE": "hub",
    "HF_DATASETS_CACHE": "datasets",
    "HF_MODULES_CACHE": "modules",
}.items():
    os.environ[_variable] = os.path.join(_CACHE.name, _folder)
os.environ["HF_HUB_OFFLINE"] = "1"
# Models of tests are small: threads of one product would only wait for each other. For all programs that tests start, too.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"

from hub_stand_in import TOKEN, HubStandIn  # noqa: E402

_HUB = HubStandIn()
os.environ["HF_ENDPOINT"] = _HUB.url

import pytest  # noqa: E402
import torch  # noqa: E402

# modules with the longest tests
LONG = ("test_guides.py", "test_example_scripts.py", "test_export.py", "test_openvino.py", "test_train_all.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that at the end no worker runs one while the others have none."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in of the Hub for one test, empty and reachable, with `hub_stand_in.USER` logged in."""
    import datasets
    import huggingface_hub

    _HUB.reset()
    _HUB.start()
    # a page of the guides logs in
    for path in (huggingface_hub.constants.HF_TOKEN_PATH, huggingface_hub.constants.HF_STORED_TOKENS_PATH):
        Path(path).unlink(missing_ok=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    huggingface_hub.HfFileSystem.clear_instance_cache()
    return _HUB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a worker whose test waits for a process, a lock or a clock leaves no core idle."""
    from comedian.sharing import available_cores

    return available_cores() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Say how a worker of xdist ended that did not end by itself: an exit code, or minus the number of a signal."""
    process = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if error and process is not None:
        sys.stderr.write(f"\n{node.gateway.id} ended with {process.poll()}\n")
