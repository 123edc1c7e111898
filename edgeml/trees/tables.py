"""Trees as tables of one size: the constants of a ``TreeEnsemble``.

    own form     paths (T, I, L)    as many splits and leaves as the largest tree has, a matrix for each tree
    one form     paths (I, L)       every tree filled up to 2^D leaves at the greatest depth D, one matrix for all

The form of fewer bytes is taken. A tree is filled up with splits that send every number left. A threshold becomes the
largest float32 that is not above it, so that float32 numbers stay on the side where float64 had them (but for numbers
nearer to 0 than 1e-38: TensorFlow takes them for 0, while the files do not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError
from edgeml.tree_shape import TreeShape
from edgeml.trees.reading import Float, Forest, Tree

Float32 = NDArray[np.float32]
Way = list[tuple[int, float]]  # splits from the root to a leaf, 1 where it goes left and -1 where it goes right
WORTH = 200  # constants that matrices of their own must save: as many bytes as their operators add to a file
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Tables:
    """Sizes, and the constants by their names in the layer, in its order."""

    shape: TreeShape
    constants: dict[str, NDArray[Any]]


def tables_of(forest: Forest) -> Tables:
    """Return the tables of a forest, in the form that takes fewer bytes.

    Raises:
        DataError: a threshold below every float32.
    """
    count, outputs = len(forest.trees), forest.trees[0].values.shape[1]
    depth = max(1, *(len(way) for tree in forest.trees for _, way in _ways(tree)))
    splits = max(1, *(int((tree.left >= 0).sum()) for tree in forest.trees))
    own = TreeShape(count, splits, splits + 1, outputs, forest.groups, shared=count == 1)
    filled = complete(count, depth, outputs, forest.groups)
    if own.shared or own.params + WORTH < filled.params:
        return _tables(own, forest.trees)
    return _tables(filled, [_filled(tree, depth) for tree in forest.trees])


def complete(trees: int, depth: int, outputs: int, groups: int) -> TreeShape:
    """Return the sizes of trees that are filled up: no tree of at most this depth needs more."""
    return TreeShape(trees, 2**depth - 1, 2**depth, outputs, groups, shared=True)


def rounded_down(thresholds: Float) -> Float32:
    """Return the largest float32 numbers that are not above ``thresholds``.

    Raises:
        DataError: there is none.
    """
    near = np.clip(thresholds, -LARGEST, LARGEST).astype(np.float32)
    with np.errstate(over="ignore"):  # one step below the least float32 is -inf, and refused
        down = np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
    if not np.all(np.isfinite(down)):
        worst = float(thresholds[~np.isfinite(down)][0])
        raise DataError(f"trees: a threshold of {worst:g}; {-LARGEST:g} and more are allowed. Fit on float32 numbers.")
    return down


def _tables(shape: TreeShape, trees: Sequence[Tree]) -> Tables:
    features = np.zeros((shape.trees, shape.splits), np.int32)
    thresholds = np.full((shape.trees, shape.splits), LARGEST)
    matrices = 1 if shape.shared else shape.trees
    paths = np.zeros((matrices, shape.splits, shape.leaves), np.float32)
    lengths = np.zeros((matrices, shape.leaves), np.float32)
    values = np.zeros((shape.trees, shape.leaves, shape.outputs))  # a leaf that a smaller tree lacks adds 0
    for number, tree in enumerate(trees):
        nodes = np.flatnonzero(tree.left >= 0)
        features[number, : len(nodes)], thresholds[number, : len(nodes)] = tree.features[nodes], tree.thresholds[nodes]
        ways = _ways(tree)
        values[number, : len(ways)] = tree.values[[leaf for leaf, _ in ways]]
        if number < matrices:
            _write_paths(ways, nodes, paths[number], lengths[number])
    constants = {
        "features": features.ravel(), "thresholds": rounded_down(thresholds.ravel()),
        "paths": paths.reshape(shape.paths), "lengths": lengths.reshape(shape.lengths),
        "values": values.reshape(shape.values).astype(np.float32),
    }  # fmt: skip
    return Tables(shape, constants)


def _write_paths(ways: Sequence[tuple[int, Way]], nodes: NDArray[np.intp], paths: Float32, lengths: Float32) -> None:
    place = {int(node): i for i, node in enumerate(nodes)}
    for leaf, (_, way) in enumerate(ways):
        lengths[leaf] = sum(side > 0 for _, side in way)
        for node, side in way:
            paths[place[node], leaf] = side


def _ways(tree: Tree) -> list[tuple[int, Way]]:
    """List the leaves from left to right, each with the way to it."""
    found, stack = list[tuple[int, Way]](), [(0, Way())]
    while stack:
        node, way = stack.pop()
        if tree.left[node] < 0:
            found.append((node, way))
        else:
            stack.append((int(tree.right[node]), [*way, (node, -1.0)]))
            stack.append((int(tree.left[node]), [*way, (node, 1.0)]))
    return found


def _filled(tree: Tree, depth: int) -> Tree:
    """Fill a tree up to ``depth``: node i has the children 2i + 1 and 2i + 2."""
    first_leaf = 2**depth - 1
    nodes = np.arange(2 * first_leaf + 1)
    came_from = np.zeros(len(nodes), np.int64)
    for i in nodes[:first_leaf]:
        old = came_from[i]
        is_leaf = tree.left[old] < 0
        came_from[2 * i + 1 : 2 * i + 3] = old if is_leaf else (tree.left[old], tree.right[old])
    is_real = (nodes < first_leaf) & (tree.left[came_from] >= 0)
    return Tree(
        np.where(is_real, tree.features[came_from], 0), np.where(is_real, tree.thresholds[came_from], np.inf),
        np.where(nodes < first_leaf, 2 * nodes + 1, -1), np.where(nodes < first_leaf, 2 * nodes + 2, -1),
        tree.values[came_from],
    )  # fmt: skip
