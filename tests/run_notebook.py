"""Run a notebook's code cells in order, as Jupyter would but without it: `python run_notebook.py NOTEBOOK`.

A line `!command {name}` runs in the shell with the variables filled in. Prints nothing of its own but each cell's time.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import matplotlib


def shell(command: str) -> None:
    print(subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout)


def to_python(line: str) -> str:
    return f"shell(f{line[1:].strip()!r})\n" if line.startswith("!") else line


def run(notebook: Path) -> None:
    matplotlib.use("Agg")
    variables = {"__name__": "__main__", "shell": shell}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            begin_s = time.perf_counter()
            source = "".join(map(to_python, cell["source"]))
            exec(compile(source, f"{notebook.name}, cell {number}", "exec"), variables)
            print(f"cell {number}: {time.perf_counter() - begin_s:.1f} s", flush=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
