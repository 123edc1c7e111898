"""Cross-layer equalization: scales moved over a ReLU, so that the channels between two layers need like ranges.

    x → A → relu → B → y      becomes      x → A / s → relu → s · B → y        relu(x / s) = relu(x) / s,  s > 0

Per channel c, r₁ is the largest weight of A that makes c, r₂ the largest of B that reads it, and s = √(r₁ / r₂): both
layers then have the range √(r₁ r₂) there (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and
Bias Correction, arXiv 1906.04721, section 4.1). Here s is rounded to a power of two: in floats such a scale changes
exponents alone, so the equalized model computes the same bits. No data is needed.

Tensors between layers are quantized with one scale: a channel a hundred times smaller than its neighbours loses all its
steps. Pairs that share a layer are balanced in turns until no scale is left that would round to anything but 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeml.folding import layers
from edgeml.folding.affine import Affine, Array, Refusal
from edgeml.folding.fold import opened
from edgeml.folding.graph import Node, Tensor
from edgeml.folding.kernels import largest_by_input, largest_by_output
from edgeml.folding.rebuild import rebuild
from edgeml.folding.walk import Walk

MOST_TURNS = 50
LEAST_RANGE = 1e-9  # a channel below it is dead, on one side or the other
PASSED = ("same", "activation", "mean", "max", "pad")


@dataclass(frozen=True)
class Equalized:
    """A model that computes the same, and the pairs of layers whose common channels were scaled; empty: none."""

    model: Any
    pairs: tuple[tuple[str, str], ...]


def equalize(model: Any) -> Equalized:
    """Balance the weight ranges of layers that follow each other over relu, leaky relu, pooling or nothing.

    Works on any Functional or Sequential model whose batch normalizations are folded; one that stays, relu6 and
    everything else that is not f(s·x) = s·f(x) ends a pair. The given model is not changed.
    """
    nodes, walk = opened(model)
    ends = [(node, _reader(node.outputs[0])) for node in nodes if layers.kind_of(node.layer) == "carrier"]
    pairs = [(first, second) for first, second in ends if second is not None]
    carriers = [node for node, _ in ends]
    touched = set[tuple[str, str]]()
    for _ in range(MOST_TURNS):
        moved = {(a.layer.name, b.layer.name) for a, b in pairs if _balance(walk, a, b)}
        moved |= {(node.layer.name, node.layer.name) for node in carriers if _balance_within(walk, node)}
        touched |= moved
        if not moved:
            break
    return Equalized(rebuild(model, set(), walk), tuple(sorted(touched)))


def _reader(tensor: Tensor) -> Node | None:
    """Return the one layer with kernels that reads a tensor, through layers that keep channels apart."""
    while len(tensor.users) == 1 and (node := tensor.users[0].node).layer is not None:
        kind = layers.kind_of(node.layer)
        if kind == "carrier":
            return node
        if kind not in PASSED:
            return None
        tensor = node.outputs[0]
    return None


def _balance(walk: Walk, first: Node, second: Node) -> bool:
    """Move scales from one layer into the other; tell whether any differed from 1."""
    tensor = first.outputs[0]
    try:
        one, other = walk.stack(first), walk.stack(second)
        s = _scales(
            largest_by_output(one.kernels[-1], one.forms[-1]),
            largest_by_input(other.kernels[0], other.forms[0], other.groups),
        )
        if s is None:
            return False
        rank = len(tensor.shape)
        axis = layers.channel_axis(first.layer, rank)
        smaller, larger = (Affine.per_channel(one, np.zeros_like(one), rank, axis) for one in (1 / s, s))
        edits = [*walk.backward(tensor, smaller), *walk.forward(tensor, larger)]
    except Refusal:
        return False
    for edit in edits:
        edit()
    return True


def _balance_within(walk: Walk, node: Node) -> bool:
    """Move scales between the two kernels of a separable convolution."""
    try:
        stack = walk.stack(node)
    except Refusal:
        return False
    if len(stack.kernels) < 2:
        return False
    (depthwise, pointwise), (first, second) = stack.kernels, stack.forms
    s = _scales(largest_by_output(depthwise, first), largest_by_input(pointwise, second, 1))
    if s is None:
        return False
    stack.kernels[:] = first.scale_outputs(depthwise, 1 / s), second.scale_inputs(pointwise, s, 1)
    walk.changed.add(id(node.layer))
    return True


def _scales(made: Array, read: Array) -> Array | None:
    """Return √(r₁ / r₂) as powers of two; None where all are 1, or channels do not correspond."""
    alive = (made > LEAST_RANGE) & (read > LEAST_RANGE) if made.shape == read.shape else np.zeros(1, bool)
    if not alive.any():
        return None
    ratio = np.divide(made, read, out=np.ones_like(made), where=alive)
    s = np.exp2(np.rint(np.log2(ratio) / 2))
    return None if (s == 1).all() else np.asarray(s, np.float64)
