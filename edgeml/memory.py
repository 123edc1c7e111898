"""Memory of a process that trains many networks: freed blocks are kept for reuse, and networks that are gone forgotten.

Every operation of a training step allocates and frees its tensors. glibc gives blocks above 128 KiB, and the free top
of a heap, back to the kernel each time, and gets them again page by page: 100,000 page faults an epoch were counted for
a 3,000-parameter network on 1,000 images of 8x8 (``tools/training_speed``). It should be told before
TensorFlow starts, and again later: with its first data set TensorFlow sets M_TRIM_THRESHOLD back to 128 KiB.

TensorFlow 2.21 registers the gradient of each use of ``tf.custom_gradient`` in a graph under a name of its own, for
good, and with it the graph around it. A training step of Keras has one: 14 MB a network (``tools/memory_of_search``).
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# mallopt(3) of glibc: the parameter's number, and its value in bytes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
_MB = 2**20
SETTINGS = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: 512 << 20, M_TOP_PAD: 64 << 20}


def keep_freed_memory() -> bool:
    """Let the process reuse up to 512 MiB of freed memory; return whether its C library knows how (glibc does).

    Environment variables of the user (``MALLOC_TRIM_THRESHOLD_`` and others, see mallopt(3)) are overruled.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl have none, Windows has no global namespace
        return False
    taken = [mallopt(parameter, value) for parameter, value in SETTINGS.items()]
    return all(taken)


@contextmanager
def forgetting_gradients() -> Iterator[None]:
    """Forget the gradients that TensorFlow, if it is there, registers within: of networks that nobody trains later."""
    before = _custom_gradients()
    try:
        yield
    finally:
        for name in _custom_gradients() - before:
            del _registry()[name]


def _custom_gradients() -> set[str]:
    return {name for name in _registry() if name.startswith("CustomGradient-")}


def _registry() -> dict[str, Any]:
    """Return TensorFlow's gradients by name; none where it is not imported, or keeps them elsewhere."""
    ops = sys.modules.get("tensorflow.python.framework.ops")
    found: dict[str, Any] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    return found


def memory_mb(pid: int) -> float:
    """Return how much memory of its own a process holds, in MiB; 0 if it is gone.

    Pages mapped from files do not count where the system tells them apart (Linux): it can drop them at any time.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        if sys.platform == "linux":
            return 0.0
        found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
        return int(found.stdout.strip() or 0) * 1024 / _MB
    sizes = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    own = sizes.get("RssAnon", sizes.get("VmRSS", "0 kB"))
    return int(own.split()[0]) * 1024 / _MB
