"""Decision trees as matrix products, all trees at once (Nakandala et al. 2020, OSDI, arXiv 2010.04804: "GEMM").

    x (N, F) ─ gather ─ x ≤ t ─ d (N, T, I) ─ d·P ─ = lengths ─ hit (N, T, L) ─ hit·V ─ sums (N, G·J)

    P[split, leaf] = 1 where the way to the leaf goes left at the split, -1 right, 0 not by it
    lengths[leaf]  = how often it goes left: only the leaf that x reaches has d·P equal to it

Single samples on one thread of a 2-core x86-64 (digits, K = 10; onnxruntime 1.32 / LiteRT 2.3, microseconds):

    trees x leaves                                  10 x 8       50 x 16      50 x 32
    batched products, a matrix per tree            20 /  3      36 /  9      30 / 14
    the same, one matrix for trees of one form     19 /  4      18 / 11      25 / 13     4 times fewer constants
    multiplied and summed                          22 /  4      37 / 10      61 / 22
    walked level by level with gathers             42 /  6      69 / 15      94 / 16     up to 148 ONNX nodes
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from edgeml.tree_shape import TreeShape

FLOOR = 1e-7  # of probabilities in front of a logarithm, as everywhere in Keras


@keras.saving.register_keras_serializable("edgeml")
class TreeEnsemble(keras.layers.Layer):  # type: ignore[misc]
    """Trees of constants, made by ``edgeml.trees``: (N, F) to the sums over each group's trees (N, G·J). Float32 only.

    Args:
        trees, splits, leaves, outputs, groups, shared: the fields of ``edgeml.tree_shape.TreeShape``.
        logarithm: the sums are probabilities, and their logarithm is returned.
        options: of ``keras.layers.Layer``.
    """

    def __init__(
        self, trees: int, splits: int, leaves: int, outputs: int, groups: int = 1, shared: bool = False,
        logarithm: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(**{"dtype": "float32", "trainable": False, **options})
        self.shape = TreeShape(trees, splits, leaves, outputs, groups, shared)
        self.logarithm = logarithm

    @classmethod
    def of(cls, shape: TreeShape, **options: Any) -> TreeEnsemble:
        """Return a layer of these sizes, whose constants are set later."""
        return cls(**dataclasses.asdict(shape), **options)

    def build(self, input_shape: Any) -> None:
        """Make the constants."""
        of, matrices = self.shape, 1 if self.shape.shared else self.shape.trees

        def constant(name: str, *shape: int, dtype: str = "float32") -> Any:
            return self.add_weight(shape=shape, name=name, initializer="zeros", dtype=dtype, trainable=False)

        self.features = constant("features", of.trees * of.splits, dtype="int32")
        self.thresholds = constant("thresholds", of.trees * of.splits)
        self.paths = constant("paths", matrices, of.splits, of.leaves)
        self.lengths = constant("lengths", matrices, 1, of.leaves)
        self.values = constant("values", of.groups, of.trees // of.groups * of.leaves, of.outputs)

    def call(self, inputs: Any) -> Any:
        """Return what the trees of each group add up to."""
        of = self.shape
        left = ops.cast(ops.less_equal(ops.take(inputs, self.features, axis=1), self.thresholds), "float32")
        agreeing = ops.matmul(ops.reshape(left, (-1, of.trees, 1, of.splits)), self.paths)
        hit = ops.cast(ops.equal(agreeing, self.lengths), "float32")
        rows = ops.reshape(hit, (-1, of.groups, 1, of.trees // of.groups * of.leaves))
        sums = ops.reshape(ops.matmul(rows, self.values), (-1, of.groups * of.outputs))
        return ops.log(ops.maximum(sums, FLOOR)) if self.logarithm else sums

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int]:
        """Return (N, G·J)."""
        return input_shape[0], self.shape.groups * self.shape.outputs

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` takes."""
        return {**super().get_config(), **dataclasses.asdict(self.shape), "logarithm": self.logarithm}
