"""Tests run offline and leave nothing in the user's Hugging Face caches."""

import os
import tempfile

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

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
