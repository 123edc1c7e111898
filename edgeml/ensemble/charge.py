"""What networks side by side in one graph cost, from what each costs alone: never less than the graph.

params, MACs, bytes   the sum, and one weight for each member; of an exponential mean exp of each, log and softmax, too
activations, arena    of the largest member, with the input and the outputs of the others held meanwhile
latency               the sum: members run one after the other on one thread
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from edgeml import arena
from edgeml.costs import cost as cost_of
from edgeml.operators import Operator
from edgeml.records import Cost, Limit


def total(costs: Sequence[Cost], input_elements: int, classes: int, mean: str = "arithmetic") -> Cost:
    """Return the cost of networks side by side, with one weight each where there are several.

    ``mean``: that they are averaged by; ``auto`` stands for those that take least.

    Peak activations are an upper bound: while the largest member runs, the input waits for the others, and each of the
    others holds its output. So is the arena: of the members' activations, which are at least their peaks, the largest
    counts alone.
    """
    if len(costs) == 1:
        return costs[0]
    mixture = _mixture_cost(len(costs), classes, mean)
    peaks = [cost.peak_activation_bytes for cost in costs]
    arenas = _added([*costs, mixture], "arena_bytes")
    shared = sum(peaks) - max(peaks) + len(costs) * arena.TAIL_FIXED_BYTES - arena.aligned(input_elements)
    return Cost(
        params=sum(cost.params for cost in costs) + mixture.params,
        macs=sum(cost.macs for cost in costs),
        weight_bytes=_added([*costs, mixture], "weight_bytes"),
        peak_activation_bytes=max(peaks) + input_elements + len(costs) * classes,
        arena_bytes={precision: size - shared for precision, size in arenas.items()},
        file_bytes={
            target: _sums(cost.file_bytes.get(target, {}) for cost in [*costs, mixture])
            for target in costs[0].file_bytes
        },
    )


@lru_cache
def _mixture_cost(members: int, classes: int, mean: str) -> Cost:
    return cost_of(mixture(members, classes, mean))


def mixture(members: int, classes: int, mean: str) -> list[Operator]:
    """List what averages the members: a weight for each, and the sum; of an exponential mean what it takes, too."""
    is_exponential = mean == "exponential"
    shape, power = (classes,), "exp" if is_exponential else "linear"
    outputs = [Operator(f"member_{i}", "input", (), shape, activation=power) for i in range(members)]
    weighted = [Operator(f"weight_{i}", "affine", (o.name,), shape, weights=1) for i, o in enumerate(outputs)]
    total = Operator("sum", "add", tuple(o.name for o in weighted), shape)
    if not is_exponential:
        return [*outputs, *weighted, total]
    end = Operator("probabilities", "softmax", (total.name,), shape)
    return [*outputs, *weighted, total._replace(activation="log"), end]


def _added(costs: Sequence[Cost], key: str) -> dict[str, int]:
    return _sums(getattr(cost, key) for cost in costs)


def _sums(counted: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up by name what all have counted: of a member that has no int8 form, nothing is said of the graph's."""
    every = list(counted)
    return {name: sum(one[name] for one in every) for name in every[0] if all(name in one for one in every)}


def summed(latency_ms: Sequence[Mapping[Limit, float]]) -> dict[Limit, float]:
    """Add up latencies: members run one after the other on one thread."""
    return {limit: sum(ms[limit] for ms in latency_ms) for limit in latency_ms[0]} if latency_ms else {}
