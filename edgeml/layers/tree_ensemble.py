"""Decision trees as matrix products, all trees at once (Nakandala et al. 2020, OSDI, arXiv 2010.04804: "GEMM").

    x (N, F) ─ gather ─ x ≤ t ─ left (N, T, I) ─ left·P ─ = lengths ─ hit (N, T, L) ─ hit·V ─ sums (N, G·J)

    P[split, leaf] = 1 where the way to the leaf goes left at the split, -1 right, 0 not by it
    lengths[leaf]  = how often it goes left: left·P is that number for the leaf that x reaches alone

Microseconds of onnxruntime 1.32 / LiteRT 2.3 for single samples, one thread of an x86-64 (digits: 10 classes):

    trees x leaves                          10 x 8     50 x 16    50 x 32
    a matrix for each tree                 20 /  3    36 /  9    30 / 14
    one matrix, for trees of one form      16 /  3    17 /  6    22 / 12     a third of the constants
    multiplied and summed                  22 /  4    37 / 10    61 / 22
    walked level by level, gathering       42 /  6    69 / 15    94 / 16     up to 148 ONNX operators
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
        of = self.shape

        def constant(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Any:
            return self.add_weight(shape=shape, name=name, initializer="zeros", dtype=dtype, trainable=False)

        self.features = constant("features", (of.trees * of.splits,), "int32")
        self.thresholds = constant("thresholds", (of.trees * of.splits,))
        self.paths = constant("paths", of.paths)
        self.lengths = constant("lengths", of.lengths)
        self.values = constant("values", of.values)

    def call(self, inputs: Any) -> Any:
        """Return what the trees of each group add up to."""
        of = self.shape
        left = ops.cast(ops.less_equal(ops.take(inputs, self.features, axis=1), self.thresholds), "float32")
        # One matrix is multiplied in two dimensions: TensorFlow 2.21's oneDNN crashes on (N, 1, T, I) @ (1, I, L).
        rows = ops.reshape(left, (-1, of.splits) if of.shared else (-1, of.trees, 1, of.splits))
        hit = ops.cast(ops.equal(ops.matmul(rows, self.paths), self.lengths), "float32")
        ends = of.trees // of.groups * of.leaves
        rows = ops.reshape(hit, (-1, ends) if of.groups == 1 else (-1, of.groups, 1, ends))
        sums = ops.reshape(ops.matmul(rows, self.values), (-1, of.groups * of.outputs))
        return ops.log(ops.maximum(sums, FLOOR)) if self.logarithm else sums

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, int]:
        """Return (N, G·J)."""
        return input_shape[0], self.shape.groups * self.shape.outputs

    def get_config(self) -> dict[str, Any]:
        """Return what ``from_config`` takes."""
        return {**super().get_config(), **dataclasses.asdict(self.shape), "logarithm": self.logarithm}
