"""Memory that a step gave back stays with the process, for the next step to take without asking the system.

keep_freed_memory()

glibc returns blocks of more than 32 MB to the system as soon as they are free, and the next step gets them back page by
page, each zeroed at the first touch: up to a fifth of a step's time on a CPU (docs/performance.md). Memory in use is no
more than before, only what is free between two uses is kept.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h


def keep_freed_memory() -> bool:
    """Tell the process's allocator; whether it can be told (glibc on Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)) and bool(library.mallopt(_MMAP_MAX, 0))
