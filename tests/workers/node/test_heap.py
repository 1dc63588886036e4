"""The heap of a worker: kept while a trial runs, given back at its end."""

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from workers.node.heap import give_memory_back

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps freed memory"
)

#: Two blocks on top of one another, as the activations of two layers: made and freed, again and
#: again. Prints how many pages were mapped meanwhile.
LAYERS = """
import ctypes, resource, sys
from workers.node.heap import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 24 << 20
def layers(times):
    for _ in range(times):
        made = [libc.malloc(size) for _ in range(4)]
        for block in made:
            ctypes.memset(block, 1, size)
        for block in reversed(made):
            libc.free(block)
layers(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers(5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", LAYERS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_memory_that_was_freed_is_not_mapped_anew_for_the_next_layer() -> None:
    pages = 5 * 4 * (24 << 20) // resource.getpagesize()
    assert faults("as it comes") > pages / 2
    assert faults("kept") < pages / 100


def test_memory_full_of_holes_is_given_back() -> None:
    pages = [bytearray(64_000) for _ in range(4000)]  # below the size glibc maps by itself
    keep = pages[::40]  # the heap cannot shrink from its end
    before = resident()
    pages.clear()
    give_memory_back()
    assert len(keep) == 100
    assert resident() < before - 128_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
