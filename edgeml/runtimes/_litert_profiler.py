"""LiteRT's own profiler, by its C API: the Python package (ai-edge-litert 2.3) has no door to it.

    environment + model + options (XNNPACK threads, profiling on) ─► compiled model ─► its profiler's events

XNNPACK reports the time of each of its operators in whole microseconds, rounded down: what takes less counts as 0.
Functions and structures are those of ``litert/c/*.h`` in https://github.com/google-ai-edge/LiteRT.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError

CPU, WRITE = 1, 1  # kLiteRtHwAcceleratorCpu, kLiteRtTensorBufferLockModeWrite
MAX_RANK = 8
OPERATORS = 2 | 4 | 8  # event types: operators of the interpreter, those of a delegate, reported in two ways
WHOLE = b"Invoke"
EVENTS_AT_ONCE = 500  # read before the profiler's buffer could be full

Event = tuple[bytes, int, int]  # tag, type, microseconds


class _RankedType(ctypes.Structure):
    _fields_ = (
        ("element", c_int32), ("rank", c_uint32), ("sizes", c_int32 * MAX_RANK), ("strides", c_uint32 * MAX_RANK),
    )  # fmt: skip


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", c_char_p), ("kind", c_int), ("start_us", c_uint64), ("elapsed_us", c_uint64),
        ("memory", c_uint64 * 6),  # begin and end: three counters each in 2.3.0, two in the C header
        ("metadata", c_uint64 * 2), ("source", c_int),
    )  # fmt: skip


class Profiled:
    """A compiled model with its profiler."""

    def __init__(self, path: Path, inputs: Sequence[NDArray[Any]], threads: int) -> None:
        import ai_edge_litert

        self._library = ctypes.CDLL(str(Path(str(ai_edge_litert.__file__)).with_name("libLiteRt.so")))
        self._path, self._kept = path, list(inputs)
        self._environment, self._model, options = c_void_p(), c_void_p(), c_void_p()
        self._call("CreateEnvironment", 0, None, byref(self._environment))
        self._call("CreateModelFromFile", self._environment, str(path).encode(), byref(self._model))
        self._call("CreateOptions", byref(options))
        self._call("SetOptionsHardwareAccelerators", options, CPU)
        self._add(options, b"xnnpack", f"num_threads = {threads}\n")
        self._add(options, b"runtime_options_string", "enable_profiling = true\n")
        self._compiled, self._profiler = c_void_p(), c_void_p()
        self._call("CreateCompiledModel", self._environment, self._model, options, byref(self._compiled))
        self._call("CompiledModelGetProfiler", self._compiled, byref(self._profiler))
        self._inputs, self._outputs = self._buffers("Input"), self._buffers("Output")
        for buffer, values in zip(self._inputs, inputs, strict=True):
            self._write(buffer, np.ascontiguousarray(values))

    def run(self) -> None:
        """Run once."""
        self._call("RunCompiledModel", self._compiled, c_size_t(0), c_size_t(len(self._inputs)), self._inputs,
                   c_size_t(len(self._outputs)), self._outputs)  # fmt: skip

    def profile(self, runs: int) -> Iterator[list[Event]]:
        """Yield the events of each of so many runs, of a constant number each."""
        per_run = len(self._events(1))
        at_once = max(1, EVENTS_AT_ONCE // max(1, per_run))
        while runs > 0:
            count = min(runs, at_once)
            events = self._events(count)
            if len(events) != count * per_run:
                raise DataError(f"{self._path}: LiteRT's profiler lost events of {count} runs. Ask for fewer threads.")
            yield from (events[i : i + per_run] for i in range(0, len(events), per_run))
            runs -= count

    def _events(self, runs: int) -> list[Event]:
        self._call("ResetProfiler", self._profiler)
        self._call("StartProfiler", self._profiler)
        for _ in range(runs):
            self.run()
        self._call("StopProfiler", self._profiler)
        count = c_int()
        self._call("GetNumProfilerEvents", self._profiler, byref(count))
        events = (_Event * count.value)()
        self._call("GetProfilerEvents", self._profiler, count, events)
        return [(event.tag or b"", event.kind, event.elapsed_us) for event in events]

    def _add(self, options: c_void_p, name: bytes, text: str) -> None:
        """Add options of one part of the runtime: a text that the library frees when it is done with it."""
        libc, made = ctypes.CDLL(None), c_void_p()
        libc.strdup.restype, libc.strdup.argtypes = c_void_p, (c_char_p,)
        freed = ctypes.cast(libc.free, c_void_p)
        self._call("CreateOpaqueOptions", c_char_p(name), c_void_p(libc.strdup(text.encode())), freed, byref(made))
        self._call("AddOpaqueOptions", options, made)

    def _buffers(self, side: str) -> Any:
        graph, place, count = c_void_p(), c_size_t(), c_size_t()
        self._call("GetMainModelSubgraphIndex", self._model, byref(place))
        self._call("GetModelSubgraph", self._model, place, byref(graph))
        self._call(f"GetNumSubgraph{side}s", graph, byref(count))
        found = (c_void_p * count.value)()
        for number in range(count.value):
            tensor, kind, needs, made = c_void_p(), _RankedType(), c_void_p(), c_void_p()
            self._call(f"GetSubgraph{side}", graph, c_size_t(number), byref(tensor))
            self._call("GetRankedTensorType", tensor, byref(kind))
            for axis in range(kind.rank & (2 * MAX_RANK - 1)):
                kind.sizes[axis] = max(1, kind.sizes[axis])
            at = c_size_t(0), c_size_t(number)
            self._call(f"GetCompiledModel{side}BufferRequirements", self._compiled, *at, byref(needs))
            self._call("CreateManagedTensorBufferFromRequirements", self._environment, byref(kind), needs, byref(made))
            found[number] = made
        return found

    def _write(self, buffer: int, values: NDArray[Any]) -> None:
        address = c_void_p()
        self._call("LockTensorBuffer", c_void_p(buffer), byref(address), WRITE)
        ctypes.memmove(address, values.ctypes.data_as(POINTER(c_char_p)), values.nbytes)
        self._call("UnlockTensorBuffer", c_void_p(buffer))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, f"LiteRt{name}")(*arguments)
        if status != 0:
            raise DataError(f"{self._path}: LiteRT's profiler cannot run it (LiteRt{name}: status {status}).")


@contextmanager
def unheard() -> Iterator[None]:
    """Lead what the library writes to the standard error stream nowhere."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
