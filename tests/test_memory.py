import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
from comedian.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        b"x" * 50_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
is_kept = keep_freed_memory()
faults()
print(first, is_kept, faults())
"""


def test_freed_memory_is_kept():
    """Otherwise, each of the 12 000 pages of a block is requested again each time."""
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True, timeout=60)
    first, is_kept, then = done.stdout.split()
    if is_kept == "False" or int(first) < 10_000:
        pytest.skip("another C library, or large pages")
    assert int(then) < int(first) / 100
