"""The sizes of decision trees as tensors, and the operators that they become.

    trees T, each of I splits and L leaves      groups G: a group's trees add up to outputs J of its own

    features (T·I)       paths (T, I, L)      or, where all trees have one form, (I, L)      values (G, T/G·L, J)
    thresholds (T·I)     lengths (T, 1, L)                                       (L)      or, of one group, (T·L, J)

A forest is one group whose leaves hold J = K probabilities; boosting has a group per class, J = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeml.operators import Operator, Shape


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
    def paths(self) -> Shape:
        """Shape of the matrices of paths."""
        return (*(() if self.shared else (self.trees,)), self.splits, self.leaves)

    @property
    def lengths(self) -> Shape:
        """Shape of the lengths of the ways to the leaves."""
        return (*(() if self.shared else (self.trees, 1)), self.leaves)

    @property
    def values(self) -> Shape:
        """Shape of what the leaves hold."""
        rows = self.trees // self.groups * self.leaves
        return (*(() if self.groups == 1 else (self.groups,)), rows, self.outputs)

    @property
    def params(self) -> int:
        """Constants, indices among them."""
        return sum(operator.params for operator in self.operators("trees", "input"))

    def operators(self, name: str, source: str, *, logarithm: bool = False) -> list[Operator]:
        """List the operators from a vector of features to the sums of all groups; the last one is called ``name``."""
        decisions, ends = (self.trees * self.splits,), (self.trees, self.leaves)
        sums, macs = (self.groups * self.outputs,), self.trees * self.leaves * self.outputs
        paths, values = "dense" if self.shared else "matmul", "dense" if self.groups == 1 else "matmul"
        rows = [  # name, kind, shape of the output, constants, MACs
            (f"{name}/features", "gather", decisions, math.prod(decisions), 0),
            (f"{name}/decisions", "compare", decisions, math.prod(decisions), 0),
            (f"{name}/paths", paths, ends, math.prod(self.paths), math.prod(decisions) * self.leaves),
            (f"{name}/leaves", "compare", ends, math.prod(self.lengths), 0),
            (f"{name}/values" if logarithm else name, values, sums, math.prod(self.values), macs),
            *([(f"{name}/floor", "add", sums, 1, 0), (name, "activation", sums, 0, 0)] if logarithm else []),
        ]
        found = list[Operator]()
        for own, kind, shape, weights, macs in rows:
            before, activation = found[-1].name if found else source, "log" if kind == "activation" else "linear"
            found.append(
                Operator(own, kind, (before,), shape, weights, 0, macs, activation=activation, float_only=True)
            )
        return found
