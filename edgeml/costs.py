"""What a list of operators costs: parameters, MACs, weight bytes, peak activation bytes. Pure functions, no framework.

Peak activations: a tensor is alive from the operator that makes it to the last that reads it; while an operator runs,
its inputs and its output are. The order that needs least is found by best-first search over the sets of operators
already done (Liberis & Lane, "Neural networks on microcontrollers", arXiv 1910.05110, section 3).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from edgeml.operators import Operator
from edgeml.records import Cost

MAX_ORDERS = 20_000  # sets of finished operators examined; beyond it the given order is charged (an upper bound)


def cost(operators: Sequence[Operator]) -> Cost:
    """Return what the graph needs at batch 1."""
    weights = sum(operator.weights for operator in operators)
    biases = sum(operator.biases for operator in operators)
    return Cost(
        params=weights + biases,
        macs=sum(operator.macs for operator in operators),
        weight_bytes={"float32": 4 * (weights + biases), "int8": weights + 4 * biases},  # int8 keeps biases as int32
        peak_activation_bytes=peak_activation_elements(operators),
    )


def peak_activation_elements(operators: Sequence[Operator]) -> int:
    """Return the most activation elements alive at once in the best topological order."""
    graph = _Memory(operators)
    best = {0: 0}
    queue = [(0, 0, 0)]  # among equal peaks, the set with more operators done comes first
    while queue and len(best) <= MAX_ORDERS:
        peak, _, done = heapq.heappop(queue)
        if done == graph.all:
            return peak
        if peak > best[done]:
            continue
        for index in graph.ready(done):
            after = done | 1 << index
            higher = max(peak, graph.alive_while(done, index))
            if higher < best.get(after, math.inf):
                best[after] = higher
                heapq.heappush(queue, (higher, -after.bit_count(), after))
    return graph.given_order_peak()


class _Memory:
    """Sizes, producers and readers by index, and the questions that the search asks."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        index = {operator.name: i for i, operator in enumerate(operators)}
        self.sizes = [math.prod(operator.output_shape) for operator in operators]
        self.needs = [sum(1 << index[name] for name in set(operator.inputs)) for operator in operators]
        self.readers = [sum(1 << i for i, need in enumerate(self.needs) if need >> j & 1) for j in range(len(index))]
        self.all = (1 << len(operators)) - 1

    def ready(self, done: int) -> list[int]:
        return [i for i, need in enumerate(self.needs) if not done >> i & 1 and need & ~done == 0]

    def alive_while(self, done: int, index: int) -> int:
        """Elements alive while operator ``index`` runs after ``done``: what somebody still reads, and its output."""
        todo = self.all & ~done
        held = sum(size for i, size in enumerate(self.sizes) if done >> i & 1 and self.readers[i] & todo)
        outputs = sum(size for i, size in enumerate(self.sizes) if done >> i & 1 and not self.readers[i])
        return held + outputs + self.sizes[index]

    def given_order_peak(self) -> int:
        return max(self.alive_while((1 << i) - 1, i) for i in range(len(self.sizes)))
