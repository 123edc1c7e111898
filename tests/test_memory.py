"""What the allocator is told, counted in page faults of a process of its own."""

import subprocess
import sys

import pytest

COUNT = """
import resource, numpy as np
from edgeml.memory import keep_freed_memory
known = keep_freed_memory() if {keep} else None
np.ones(1_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(1_000_000)  # 8 MB: the kernel's again after each round, unless the process keeps it
print(known, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep):
    run = subprocess.run([sys.executable, "-c", COUNT.format(keep=keep)], capture_output=True, text=True, check=True)
    known, count = run.stdout.split()
    return known, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    known, kept = faults(keep=True)
    assert known == "True"
    assert kept < 200
    assert faults(keep=False)[1] > 10 * max(kept, 1)
