"""How the C library handles freed memory."""

import ctypes
import sys

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory(largest_block_bytes: int = 2**30) -> bool:
    """Have glibc keep freed blocks for the next allocation, for the rest of the process.

    By default it returns large blocks to the system, which fills them with zeros when they are allocated again: a tenth of
    the CPU time of a training step or more (`examples/benchmarks/README.md`). The process keeps its peak memory.

    Args:
        largest_block_bytes: blocks up to this size are kept; by default, glibc keeps blocks of up to 2**25 bytes at most.

    Returns:
        Whether it does: other C libraries, and glibc before 2.35 for more than 2**25 bytes, do not.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    # alone, the second option would return more memory than before
    if set_option is None or not set_option(M_MMAP_THRESHOLD, largest_block_bytes):
        return False
    return bool(set_option(M_TRIM_THRESHOLD, 2 * largest_block_bytes - 1))
