"""Run transformers' own test suite on our models and processor: `make conformance`.

The suite comes with the source distribution of the installed version, which pip downloads into `build/conformance`
(ignored by git); the testers of this folder are copied into it.

    python tests/conformance/run.py [--download]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "conformance"
# modules that the suite imports and the distribution lacks; nothing of theirs runs here
STAND_INS = {
    "__init__.py": "",
    "models/__init__.py": "",
    "models/comedian/__init__.py": "",
    "exporters/__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    "utils/test_configuration_utils.py": (
        'config_common_kwargs = {"return_dict": False, "output_hidden_states": True, "dtype": "float16"}\n'
    ),
}
TESTERS = {"modeling.py": "test_modeling_comedian.py", "video_processing.py": "test_video_processing_comedian.py"}
# what runs side by side: half of the models each
HALVES = ("Vivit or Sound", "not Vivit and not Sound")


def download() -> Path:
    """Return the folder of the suite, downloaded and unpacked unless that is done."""
    name = f"transformers-{version('transformers')}"
    folder = CACHE / name
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1", "download"]
        options = ["--no-deps", "--no-binary=transformers", f"--dest={scratch}"]
        subprocess.run([*pip, *options, name.replace("-", "==")], check=True)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            tests = [member for member in archive.getmembers() if member.name.startswith(f"{name}/tests/")]
            archive.extractall(scratch, tests, filter="data")
        (Path(scratch) / name).rename(folder)
    return folder


def main() -> int:
    """Run the suite, two halves at once; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--download", action="store_true", help="only download the suite")
    arguments = parser.parse_args()
    try:
        folder = download()
    except subprocess.CalledProcessError:
        print("the source distribution of transformers cannot be downloaded from the package index", file=sys.stderr)
        return 1
    if arguments.download:
        return 0
    tests = folder / "tests"
    for name, text in STAND_INS.items():
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        if not (tests / name).exists():
            (tests / name).write_text(text)
    for source, target in TESTERS.items():
        shutil.copy(HERE / source, tests / "models" / "comedian" / target)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider"]
    command += ["-q", "-rs", "--tb=short", "--disable-warnings", "tests/models/comedian"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    processes = [
        subprocess.Popen([*command, "-k", half], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        for half in HALVES
    ]
    for process in processes:
        print(process.communicate()[0])
    return max(process.returncode for process in processes)


if __name__ == "__main__":
    raise SystemExit(main())
