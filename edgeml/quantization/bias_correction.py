"""Bias correction: what rounding the weights adds to each channel on average is taken off its bias.

    b[c] ← b[c] - E[(q(W) - W) · x][c]        x: what the layer reads, over the calibration samples

q rounds as the TFLite converter does: int8 from -127 to 127, one scale per output channel. Of few weights to a channel
(nine, in a depthwise convolution) the errors do not cancel, and every pixel is off by about the same (Nagel et al.
2019, arXiv 1906.04721, section 4.2; here E is measured, as in the appendix, not derived from batch normalization).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from edgeml.folding import layers
from edgeml.folding.affine import Array, Refusal
from edgeml.folding.fold import opened
from edgeml.folding.graph import Node, graph_of
from edgeml.folding.kernels import Form, largest_by_output
from edgeml.folding.rebuild import rebuild
from edgeml.folding.walk import Walk
from edgeml.runtimes import Arrays

STEPS = 127  # of int8 weights, on either side of 0
BATCH = 32


def correct_biases(model: Any, calibration: Arrays) -> tuple[Any, tuple[str, ...]]:
    """Return the model with corrected biases, and the names of the layers; the given one is not changed.

    ``calibration``: samples (N, …) by input. Layers that are called twice stay as they are.
    """
    nodes, walk = opened(model)
    found = [node for node in nodes if layers.kind_of(node.layer) == "carrier" and _may_change(walk, node)]
    reads = _read_by(model, [np.asarray(calibration[tensor.name][:1]) for tensor in model.inputs], _ids(found))
    found = [node for node in found if len(reads[id(node.layer)]) == 1]
    for node, error in zip(found, _mean_errors(model, walk, found, calibration), strict=True):
        stack = walk.stack(node)
        stack.bias = (0.0 if stack.bias is None else stack.bias) - error
    return rebuild(model, set(), walk), tuple(node.layer.name for node in found)


def rounded(kernel: Array, form: Form) -> Array:
    """Return a kernel as its int8 form computes it."""
    largest = largest_by_output(kernel, form)
    scale = np.where(largest > 0, largest, 1.0) / STEPS
    return form.scale_outputs(np.rint(form.scale_outputs(kernel, 1 / scale)), scale)


def _may_change(walk: Walk, node: Node) -> bool:
    try:
        walk.stack(node)
    except Refusal:
        return False
    return not layers.adds_bias_astray(node.layer, node.outputs[0].shape)


def _mean_errors(model: Any, walk: Walk, nodes: list[Node], calibration: Arrays) -> list[Array]:
    """Return, for each layer, the mean by output channel of what its rounded kernels add, without the bias."""
    pairs = [(_linear(node, walk, is_rounded=True), _linear(node, walk, is_rounded=False)) for node in nodes]
    rows = len(next(iter(calibration.values())))
    sums = [np.zeros(walk.stack(node).outputs) for node in nodes]
    for start in range(0, rows, BATCH):
        batch = [np.asarray(calibration[tensor.name][start : start + BATCH]) for tensor in model.inputs]
        seen = _read_by(model, batch, _ids(nodes))
        for place, node in enumerate(nodes):
            (x,) = seen[id(node.layer)]
            quantized, exact = (layers.numpy(one(x)) for one in pairs[place])
            difference = quantized - exact
            axis = 1 + layers.channel_axis(node.layer, difference.ndim - 1)
            others = tuple(at for at in range(difference.ndim) if at != axis)
            sums[place] += difference.mean(axis=others) * len(difference)
    return [total / rows for total in sums]


def _ids(nodes: list[Node]) -> set[int]:
    return {id(node.layer) for node in nodes}


def _read_by(model: Any, batch: list[Any], watched: set[int]) -> dict[int, list[Any]]:
    """Return what layers read at each call, by their id, as the model computes; those in nested models too."""
    seen: dict[int, list[Any]] = {layer: [] for layer in watched}

    def followed(operation: Any) -> Callable[..., Any]:
        graph = graph_of(operation)
        if graph is not None:
            return lambda x, **options: graph._run_through_graph(x, operation_fn=followed)
        if id(operation) not in watched:
            return cast("Callable[..., Any]", operation)

        def noted(x: Any, **options: Any) -> Any:
            seen[id(operation)].append(x)
            return operation(x, **options)

        return noted

    graph: Any = graph_of(model)
    graph._run_through_graph(batch, operation_fn=followed)
    return seen


def _linear(node: Node, walk: Walk, *, is_rounded: bool) -> Any:
    """Return the layer without bias and activation, with rounded kernels or as it is."""
    cls: Any = layers.as_class(node.layer, layers.KINDS["carrier"])
    config = cls.get_config(node.layer) | {"use_bias": False, "activation": None, "name": None}
    made = cls.from_config({key: value for key, value in config.items() if value is not None or key != "name"})
    made.build((None, *node.inputs[0].shape))
    stack = walk.stack(node)
    kernels = [rounded(k, f) if is_rounded else k for k, f in zip(stack.kernels, stack.forms, strict=True)]
    layers.write_stack(type(stack)(stack.forms, kernels, None, stack.groups), made)
    return made
