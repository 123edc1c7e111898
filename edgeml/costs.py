"""What a list of operators costs: parameters, MACs, bytes of weights, activations, arena, files. Pure functions.

Peak activations: a tensor is alive from the operator that makes it to the last that reads it; while an operator runs,
its inputs and its output are. The order that needs least is found by best-first search over the sets of operators
already done (Liberis & Lane, "Neural networks on microcontrollers", arXiv 1910.05110, section 3).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from edgeml import arena, file_bytes
from edgeml.operators import Operator, with_activations_joined, without_relabelling
from edgeml.precisions import FILES, PRECISIONS, REAL, File
from edgeml.records import COUNTS, Cost

MAX_ORDERS = 20_000  # sets of finished operators examined; beyond it the given order is charged (an upper bound)


def cost(operators: Sequence[Operator], files: Sequence[File] = FILES, keys: Container[str] = COUNTS) -> Cost:
    """Return what the graph needs at batch 1.

    Args:
        operators: of the folded graph.
        files: that it becomes; ``weight_bytes`` and ``file_bytes`` are of these. With an operator that exists
            in float32 only there are no other files, and none of their figures, the arena among them.
        keys: ``arena_bytes`` and ``file_bytes``, which take as long as all the others, are counted only if among them.
    """
    weights = sum(operator.weights for operator in operators)
    biases = sum(operator.biases for operator in operators)
    has_int8 = not any(operator.float_only for operator in operators)
    files = [file for file in files if has_int8 or file.precision == "float32"]
    has_float_edges = File("tflite", "int8", REAL) in files
    return Cost(
        params=weights + biases,
        macs=sum(operator.macs for operator in operators),
        weight_bytes=_weight_bytes(operators, {file.precision for file in files}),
        peak_activation_bytes=peak_activation_elements(operators),
        arena_bytes=(
            {"int8": arena.arena_bytes(operators, has_float_edges=has_float_edges)}
            if has_int8 and "arena_bytes" in keys
            else {}
        ),
        file_bytes=file_bytes.file_bytes(operators, files) if "file_bytes" in keys else {},
    )


def _weight_bytes(operators: Sequence[Operator], precisions: Container[str]) -> dict[str, int]:
    return {
        name: sum(one.kernel_bytes(operator.weights) + one.bias * operator.biases for operator in operators)
        for name, one in PRECISIONS.items()
        if name in precisions
    }


def charged(predicted: Cost) -> Cost:
    """Return a cost with the errors of its formulas on top: what is held against a budget before there are files."""
    if not predicted.arena_bytes and not predicted.file_bytes:
        return predicted
    most = {precision: math.ceil(size * (1 + arena.ERROR)) for precision, size in predicted.arena_bytes.items()}
    return replace(predicted, arena_bytes=most, file_bytes=file_bytes.at_most(predicted.file_bytes))


def cost_of_file(operators: Sequence[Operator]) -> Cost:
    """Return what a file's own operators need: relabellings and lone activations held only once; no arena, no files."""
    return cost(with_activations_joined(without_relabelling(operators)), keys=())


def peak_activation_elements(operators: Sequence[Operator]) -> int:
    """Return the most activation elements alive at once in the best topological order."""
    graph = _Memory(operators)
    best = {0: 0}
    queue = [(0, 0, 0, graph.ready, 0)]  # among equal peaks, the set with more operators done comes first
    while queue and len(best) <= MAX_ORDERS:
        peak, _, done, ready, alive = heapq.heappop(queue)
        if done == graph.all:
            return peak
        if peak > best[done]:
            continue
        for index in _members(ready):
            state = graph.after(index, peak, done, ready, alive)
            while state[2] and not state[2] & state[2] - 1:  # one operator is ready: there is no choice
                state = graph.after(state[2].bit_length() - 1, *state)
            higher, after = state[:2]
            if higher < best.get(after, math.inf):
                best[after] = higher
                heapq.heappush(queue, (higher, -after.bit_count(), *state[1:]))
    return graph.given_order_peak()


class _Memory:
    """Sizes, sources and readers by index; sets of operators are the bits of an integer.

    ``alive`` elements after a set of operators: the outputs of the set that somebody outside still reads, or that
    nobody reads at all, for those are the graph's.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        index = {operator.name: i for i, operator in enumerate(operators)}
        self.sizes = [math.prod(operator.output_shape) for operator in operators]
        self.sources = [{index[name] for name in operator.inputs} for operator in operators]
        self.needs = [sum(1 << source for source in sources) for sources in self.sources]
        self.readers = [0] * len(operators)
        for reader, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source] |= 1 << reader
        self.ready = sum(1 << i for i, need in enumerate(self.needs) if not need)
        self.all = (1 << len(operators)) - 1

    def after(self, index: int, peak: int, done: int, ready: int, alive: int) -> tuple[int, int, int, int]:
        """Run operator ``index``: return the peak, the operators done, those that can run next, elements alive."""
        done |= 1 << index
        ready &= ~(1 << index)
        for reader in _members(self.readers[index]):
            if not self.needs[reader] & ~done:
                ready |= 1 << reader
        alive += self.sizes[index]
        peak = max(peak, alive)
        for source in self.sources[index]:
            if not self.readers[source] & ~done:
                alive -= self.sizes[source]
        return peak, done, ready, alive

    def given_order_peak(self) -> int:
        """Return the peak of the order that the operators are in."""
        state = (0, 0, 0, 0)
        for index in range(len(self.sizes)):
            state = self.after(index, *state)
        return state[0]


def _members(of: int) -> Iterator[int]:
    """Yield the bits that are set, lowest first."""
    while of:
        lowest = of & -of
        yield lowest.bit_length() - 1
        of ^= lowest
