"""Freed memory stays with the process: touching it again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from metro_t0.training.allocator import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "kept" else False
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    library.free(block)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(told), faults)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_is_taken_again_without_the_system() -> None:
    def measured(how: str) -> tuple[int, int]:
        printed = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        told, faults = map(int, printed.stdout.split())
        return told, faults

    told, kept = measured("kept")
    if not told:
        pytest.skip("not glibc")
    assert kept < 100 < measured("returned")[1]
