"""Members and weights as one Keras graph: one input, one output, members side by side.

    arithmetic   x ─┬─ member 1 ─ · w₁ ─┐            geometric   x ─┬─ logits 1 ─ · w₁ ─┐
                    └─ member 2 ─ · w₂ ─┴─ + ─ y                    └─ logits 2 ─ · w₂ ─┴─ + ─ softmax ─ y

The weights of a geometric mean fold into the members' last dense layers; those of an arithmetic mean stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def compile_ensemble(models: Sequence[Any], weights: Sequence[float], mean: str = "arithmetic") -> Any:
    """Return one Keras model that averages ``models`` (equal input and output shapes, each ending in a softmax).

    A weight of zero drops its member. A single member is returned as it is.

    Raises:
        ValueError: no members; weights that are negative or do not sum to one; members that do not fit together.
    """
    import keras

    _check(models, weights)
    if mean not in ("arithmetic", "geometric"):
        raise ValueError(f"mean: got '{mean}'; arithmetic or geometric is allowed")
    kept = [(model, weight) for model, weight in zip(models, weights, strict=True) if weight > 0]
    if len(kept) == 1:
        return kept[0][0]
    inputs = keras.Input(kept[0][0].input_shape[1:], name=kept[0][0].inputs[0].name)
    weighted = []
    for number, (model, weight) in enumerate(kept):
        member = _renamed(model if mean == "arithmetic" else logits(model), f"member_{number}")
        weighted.append(keras.layers.Rescaling(np.float32(weight), name=f"weight_{number}")(member(inputs)))
    if mean == "arithmetic":
        outputs = keras.layers.Add(name="probabilities")(weighted)
    else:
        outputs = keras.layers.Softmax(name="probabilities")(keras.layers.Add(name="mean_logits")(weighted))
    return keras.Model(inputs, outputs, name="ensemble")


def logits(model: Any) -> Any:
    """Return ``model`` without the softmax at its end.

    Raises:
        ValueError: it does not end in a Softmax layer.
    """
    import keras

    history = model.outputs[0]._keras_history
    layer = history.operation
    source = layer._inbound_nodes[history.node_index].input_tensors[0]
    if isinstance(layer, keras.Model):
        return keras.Model(model.inputs, logits(layer)(source), name=model.name)
    is_softmax = isinstance(layer, keras.layers.Softmax) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.softmax
    )
    if not is_softmax:
        raise ValueError(f"{model.name}: ends in {type(layer).__name__} '{layer.name}'; a softmax layer is due")
    return keras.Model(model.inputs, source, name=model.name)


def _renamed(model: Any, name: str) -> Any:
    import keras

    return keras.Model(model.inputs, model.outputs[0], name=name)


def _check(models: Sequence[Any], weights: Sequence[float]) -> None:
    if not models:
        raise ValueError("models: got none; at least one is due")
    if len(models) != len(weights):
        raise ValueError(f"weights: got {len(weights)} for {len(models)} models; one each is due")
    if not (all(weight >= 0 for weight in weights) and abs(sum(weights) - 1) <= 1e-6):
        raise ValueError(f"weights: got {list(weights)}; weights are not negative and sum to one")
    for what in ("input_shape", "output_shape"):
        shapes = {tuple(getattr(model, what)) for model in models}
        if len(shapes) > 1:
            raise ValueError(f"models: {what} differs: {sorted(shapes, key=str)}; members share one")
