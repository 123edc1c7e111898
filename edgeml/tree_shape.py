"""The sizes of decision trees as tensors, and the operators that they become.

    trees T, each of I splits and L leaves      groups G: a group's trees add up to outputs J of its own

    features (T·I)    paths (T, I, L), or (I, L) where every tree has the same form    values (G, T/G·L, J)
    thresholds (T·I)  lengths (T, L), or (L)

A forest is one group whose leaves hold J = K probabilities; boosting has a group per class, J = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeml.operators import Operator


@dataclass(frozen=True)
class TreeShape:
    """Sizes of trees as tensors; ``shared``: one matrix of paths serves all of them."""

    trees: int
    splits: int
    leaves: int
    outputs: int
    groups: int = 1
    shared: bool = False

    @property
    def params(self) -> int:
        """Constants, indices among them."""
        return sum(operator.params for operator in self.operators("trees", "input"))

    def operators(self, name: str, source: str, *, logarithm: bool = False) -> list[Operator]:
        """List the operators from a vector of features to the sums of all groups; the last one is called ``name``."""
        decisions, ends = self.trees * self.splits, self.trees * self.leaves
        matrices = 1 if self.shared else self.trees
        sums, floor = (f"{name}/values", f"{name}/floor") if logarithm else (name, "")
        sizes: list[tuple[str, str, int, int, int]] = [
            (f"{name}/features", "gather", decisions, decisions, 0),
            (f"{name}/decisions", "compare", decisions, decisions, 0),
            (f"{name}/paths", "matmul", ends, matrices * self.splits * self.leaves, decisions * self.leaves),
            (f"{name}/leaves", "compare", ends, matrices * self.leaves, 0),
            (sums, "matmul", self.groups * self.outputs, ends * self.outputs, ends * self.outputs),
        ]
        if logarithm:
            sizes += [(floor, "add", self.outputs, 1, 0), (name, "activation", self.outputs, 0, 0)]
        found = list[Operator]()
        for own, kind, size, weights, macs in sizes:
            before = found[-1].name if found else source
            found.append(Operator(own, kind, (before,), (size,), weights, macs=macs, float_only=True))
        return [*found[:-1], found[-1]._replace(activation="log")] if logarithm else found
