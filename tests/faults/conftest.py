"""What runs commands over bad input, and notes all that is not as it must be."""

import os
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from comedian.cli.main import main

MAX_S = 30


def files_of(out: Path) -> list[str]:
    """The files in a folder, but for what says with which settings the command may be given again."""
    return sorted(path.name for path in out.rglob("*") if path.is_file() and path.name != "store.json")


class Runner:
    """Runs commands in a folder of its own, and notes what is not as it must be."""

    def __init__(self, folder: Path, capsys):
        self.folder, self.capsys = folder, capsys
        self.canary = folder / "canary"
        self.wrong: list[str] = []
        self.count = 0

    def __call__(
        self,
        name: str,
        *words,
        code: int | None = 2,
        says: str | None = None,
        holds: Callable[[], bool] | None = None,
    ) -> int:
        """Run a command whose output goes to `out`.

        Args:
            name: of the case.
            words: the command.
            code: that it must end with; None for 0 or 2.
            says: what the line of code 2 must name.
            holds: asked of what lies in `out` after code 0 or 1.
        """
        self.count += 1
        out, before, began_s = self.folder / "out", self.files(), time.monotonic()
        out.mkdir()
        self.capsys.readouterr()
        try:
            ended = main([str(word) for word in words])
        except SystemExit as end:
            ended = f"exit {end.code}"
        except BaseException:
            ended = traceback.format_exc()[-1500:]
        printed, said = self.capsys.readouterr()
        lines = [line for line in said.splitlines() if line.startswith(f"comedian {words[0]}: ")]
        for what, is_wrong in {
            f"ended with {ended}": ended not in ((0, 2) if code is None else (code,)),
            f"said {lines} of `{says}`": ended == 2
            and (len(lines) != 1 or (says is not None and says not in lines[0])),
            "said more than can be read": any(len(line) > 2000 for line in said.splitlines()),
            "printed a traceback": "Traceback" in said,
            "printed what orders a terminal": "\x1b[2J" in printed + said,
            f"left {files_of(out)}": ended == 2 and files_of(out),
            f"wrote what is not right: {files_of(out)}": ended in (0, 1) and holds is not None and not holds(),
            "left something half-written": any(out.rglob("*.partial")),
            f"wrote {self.files() - before}": self.files() != before,
            "ran code": self.canary.exists(),
            "took long": time.monotonic() - began_s > MAX_S,
        }.items():
            if is_wrong:
                self.wrong.append(f"{' '.join(map(str, words[:2]))} with `{name}` {what}")
        shutil.rmtree(out)
        return ended

    def files(self) -> set[tuple[Path, int]]:
        """All there is, but for `out`: what a command may read, and not change."""
        found = set()
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if Path(folder, name) != self.folder / "out"]
            found |= {(Path(folder, name), Path(folder, name).lstat().st_mtime_ns) for name in names}
        return found

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return path

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path, capsys)
    yield runner
    assert runner.count
    assert not runner.wrong, "\n" + "\n".join(runner.wrong)
