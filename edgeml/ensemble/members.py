"""Who may be in an ensemble: Keras models with one input and one output, a distribution over the same classes each.

    weights   not negative, their sum is one; zero drops a member, the same object twice adds up
    inputs    of one type; equal shapes, or images of equal channels: the largest is the graph's, the others are resized
    outputs   equal shapes; on a probe finite, not negative, rows that sum to one

A layer of two members (a backbone) is copied, so that each folds by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeml.ensemble.means import SUM_TOLERANCE

PROBES = 4  # rows of uniform noise that a member's output is judged by
FREE_SIZE = 32  # of a probe along an axis of any size
WEIGHTS_TOLERANCE = 1e-6
IMAGE_RANK = 3  # height, width, channels


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble and its share, above zero."""

    model: Any
    weight: float

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of the input without batch."""
        return tuple(self.model.inputs[0].shape[1:])


def members_of(models: Sequence[Any], weights: Sequence[float]) -> list[Member]:
    """Return the members that count, no layer in two of them.

    Raises:
        ValueError: no members; weights that are negative or do not sum to one; members that do not fit together, or
            whose output is no distribution.
    """
    _check_kinds(models)
    _check_weights(len(models), [float(weight) for weight in weights])
    for number, model in enumerate(models):
        _check_ends(f"member {number} ('{getattr(model, 'name', model)}')", model)
    _check_fit(models)
    for number, model in enumerate(models):
        _check_distribution(f"member {number} ('{model.name}')", model)
    shares: dict[int, float] = {}
    for model, weight in zip(models, weights, strict=True):
        shares[id(model)] = shares.get(id(model), 0.0) + float(weight)
    by_id = {id(model): model for model in models}
    return _apart([Member(by_id[key], share) for key, share in shares.items() if share > 0])


def _check_kinds(models: Sequence[Any]) -> None:
    import keras

    if not isinstance(models, list | tuple):
        raise ValueError(f"models: got a {type(models).__name__}; a list of Keras models is due")
    other = next((model for model in models if not isinstance(model, keras.Model)), None)
    if other is not None:
        raise ValueError(f"models: got a {type(other).__name__} among them; Keras models are due")


def largest_input(members: Sequence[Member]) -> Any:
    """Return the input tensor that holds most, the first among equals."""
    return max(members, key=lambda member: math.prod(size or 1 for size in member.shape)).model.inputs[0]


def _check_weights(count: int, weights: Sequence[float]) -> None:
    if not count:
        raise ValueError("models: got none; at least one is due")
    if count != len(weights):
        raise ValueError(f"weights: got {len(weights)} for {count} models; one each is due")
    if not (all(weight >= 0 for weight in weights) and abs(sum(weights) - 1) <= WEIGHTS_TOLERANCE):
        raise ValueError(f"weights: got {list(weights)}; weights are not negative and sum to one")


def _check_ends(who: str, model: Any) -> None:
    from edgeml.folding.graph import graph_of

    if graph_of(model) is None:
        raise ValueError(f"{who}: {type(model).__name__} has no layer graph; Functional and built Sequential have one")
    for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            raise ValueError(f"{who}: has {len(tensors)} {what}; one is allowed")


def _check_fit(models: Sequence[Any]) -> None:
    for what, values in (
        ("output shapes", [tuple(model.outputs[0].shape[1:]) for model in models]),
        ("input types", [str(model.inputs[0].dtype) for model in models]),
    ):
        if len(set(values)) > 1:
            raise ValueError(f"models: {what} {', '.join(map(str, values))}; members share one")
    shapes = [tuple(model.inputs[0].shape[1:]) for model in models]
    is_resizable = all(len(shape) == IMAGE_RANK and None not in shape for shape in shapes)
    if len(set(shapes)) > 1 and not (is_resizable and len({shape[-1] for shape in shapes}) == 1):
        raise ValueError(
            f"models: input shapes {', '.join(map(str, shapes))}; members share one, or take images (height, width,"
            " channels) of as many channels"
        )


def _check_distribution(who: str, model: Any) -> None:
    import keras

    from edgeml.folding.graph import graph_of

    graph: Any = graph_of(model)  # a Sequential that nobody called has no input of its own
    tensor = model.inputs[0]
    shape = (tensor.shape[0] or PROBES, *(size or FREE_SIZE for size in tensor.shape[1:]))
    probe = keras.ops.cast(np.random.default_rng(0).uniform(0, 1, shape), tensor.dtype)
    (output,) = keras.tree.flatten(graph(keras.tree.pack_sequence_as(graph.input, [probe]), training=False))
    found = keras.ops.convert_to_numpy(output).astype(np.float64)
    if not np.all(np.isfinite(found)):
        what = "NaN or infinite values"
    elif found.min() < 0:
        what = f"values down to {found.min():.3g}"
    elif np.abs(found.sum(axis=-1) - 1).max() > SUM_TOLERANCE:
        what = f"rows that sum to {found.sum(axis=-1).min():.3g} to {found.sum(axis=-1).max():.3g}"
    else:
        return
    raise ValueError(f"{who}: its output has {what}; a distribution is due. End the model in a softmax.")


def _apart(members: Sequence[Member]) -> list[Member]:
    """Copy the members that share a layer with one before them."""
    seen: set[int] = set()
    found = []
    for member in members:
        own = _layers(member.model)
        found.append(Member(_copy(member.model), member.weight) if own & seen else member)
        seen |= own
    return found


def _layers(model: Any) -> set[int]:
    flat = [layer for layer in model._flatten_layers() if type(layer).__name__ != "InputLayer"]
    return {id(layer) for layer in flat}


def _copy(model: Any) -> Any:
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers(include_self=False):
        if hasattr(layer, "finalize_state"):  # a Normalization computes with constants made from its weights
            layer.finalize_state()
    return copy
