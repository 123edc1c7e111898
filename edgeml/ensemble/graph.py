"""Members and weights as one Keras graph: one input, one output, members side by side, folded, what is equal shared.

    arithmetic    Σ wᵢ pᵢ                    x ─┬─ member 1 ─ · w₁ ─┐
                                               └─ member 2 ─ · w₂ ─┴─ + ─ y
    geometric     softmax(Σ wᵢ zᵢ)           x ─┬─ logits 1 ─ · w₁ ─┐
                                               └─ logits 2 ─ · w₂ ─┴─ + ─ softmax ─ y
    exponential   softmax(log Σ wᵢ exp pᵢ)   x ─┬─ member 1 ─ exp ─ · w₁ ─┐
                                               └─ member 2 ─ exp ─ · w₂ ─┴─ + ─ log ─ softmax ─ y

The last is p ∝ Σ wᵢ exp pᵢ: softmax ∘ log divides by the sum over the classes. Weights of a geometric mean fold into
the members' last dense layers, equal ones of an exponential mean cancel, equal ones of an arithmetic mean are one
product behind the sum; others stay. A member of a smaller input size has the input resized (bilinear) in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.ensemble.members import largest_input, members_of

if TYPE_CHECKING:
    from edgeml.folding import Folding

NAME = "ensemble"
OUTPUT = "probabilities"
MEMBER = "member_"


def compile_ensemble(
    models: Sequence[Any], weights: Sequence[float], mean: str = "arithmetic", *, merge: bool = False
) -> Any:
    """Return one folded Keras model that averages ``models``, each ending in a distribution over the same classes.

    A weight of zero drops its member. A single member is its own graph, folded, whatever the mean. With ``merge``,
    equal-shaped first convolutions run as one: for graphs that become int8 files alone (``sharing`` has the figures).

    Raises:
        ValueError: no members; weights that are negative or do not sum to one; members that do not fit together, whose
            output is no distribution or, for a geometric mean, not made by a softmax.
    """
    return fold_ensemble(side_by_side(models, weights, mean), merge=merge).model


def fold_ensemble(graph: Any, *, merge: bool = False) -> Folding:
    """Fold what ``side_by_side`` returned, then do once what its members do alike."""
    from edgeml.ensemble.sharing import share
    from edgeml.folding import fold_batch_norm

    folding = fold_batch_norm(graph)
    shared = share(folding.model, merge=merge)
    spared, kept = list(shared.spared), []
    for name, reason in reversed(folding.kept):
        if name in spared:
            spared.remove(name)
        else:
            kept.append((name, reason))
    return replace(folding, model=shared.model, kept=tuple(reversed(kept)))


def side_by_side(models: Sequence[Any], weights: Sequence[float], mean: str = "arithmetic") -> Any:
    """Return the members as they were trained, averaged in one graph: what a folded one is held against.

    A single member is returned as it is.

    Raises:
        ValueError: as ``compile_ensemble``.
    """
    import keras

    if mean not in _MEANS:
        raise ValueError(f"mean: got '{mean}'; {', '.join(_MEANS)} are allowed")
    members = members_of(models, weights)
    if len(members) == 1:
        return members[0].model
    tensor = largest_input(members)
    inputs = keras.Input(tensor.shape[1:], name=members[0].model.inputs[0].name, dtype=tensor.dtype)
    outputs = []
    for number, member in enumerate(members):
        model = logits(member.model) if mean == "geometric" else member.model
        own = keras.Model(model.inputs, model.outputs[0], name=f"{MEMBER}{number}")
        outputs.append(own(_resized(inputs, member.shape, number)))
    return keras.Model(inputs, _MEANS[mean](outputs, [member.weight for member in members]), name=NAME)


def is_side_by_side(graph: Any) -> bool:
    """Tell what ``side_by_side`` made of several members; a name alone makes no ensemble."""
    return graph.name == NAME and any(layer.name == f"{MEMBER}0" for layer in graph._flatten_layers())


def logits(model: Any) -> Any:
    """Return ``model`` without the softmax at its end.

    Raises:
        ValueError: it does not end in one.
    """
    import keras

    history = model.outputs[0]._keras_history
    layer = history.operation
    source = layer._inbound_nodes[history.node_index].input_tensors[0]
    if isinstance(layer, keras.Model):
        return keras.Model(model.inputs, logits(layer)(source), name=model.name)
    if isinstance(layer, keras.layers.Identity):
        return logits(keras.Model(model.inputs, source, name=model.name))
    is_softmax = getattr(layer, "activation", None) is keras.activations.softmax
    if isinstance(layer, keras.layers.Dense) and is_softmax:
        return keras.Model(model.inputs, _linear(layer)(source), name=model.name)
    is_own = type(layer).__name__ == "Softmax"  # the layer, or keras.ops.softmax
    if not (is_own or (isinstance(layer, keras.layers.Activation) and is_softmax)):
        raise ValueError(f"{model.name}: ends in {type(layer).__name__} '{layer.name}'; a softmax layer is due")
    return keras.Model(model.inputs, source, name=model.name)


def _linear(layer: Any) -> Any:
    """Return a copy of a dense layer without its activation."""
    twin = type(layer).from_config(layer.get_config() | {"activation": "linear"})
    twin.build(layer.input.shape)
    twin.set_weights(layer.get_weights())
    return twin


def _resized(inputs: Any, shape: tuple[int | None, ...], number: int) -> Any:
    import keras

    if tuple(inputs.shape[1:]) == shape:
        return inputs
    height, width, _ = shape
    resizing = keras.layers.Resizing(
        height, width, interpolation="bilinear", data_format="channels_last", name=f"resize_{number}"
    )
    return resizing(inputs)


# ---- means of the members' outputs


def _weighted(outputs: Sequence[Any], weights: Sequence[float]) -> list[Any]:
    import keras

    scalings = [keras.layers.Rescaling(np.float64(w), name=f"weight_{i}") for i, w in enumerate(weights)]
    return [scaling(output) for scaling, output in zip(scalings, outputs, strict=True)]


def _is_plain(weights: Sequence[float]) -> bool:
    return len(set(weights)) == 1


def _arithmetic(outputs: Sequence[Any], weights: Sequence[float]) -> Any:
    import keras

    if not _is_plain(weights):
        return keras.layers.Add(name=OUTPUT)(_weighted(outputs, weights))
    total = keras.layers.Add(name="sum")(outputs)
    return keras.layers.Rescaling(np.float64(weights[0]), name=OUTPUT)(total)


def _geometric(outputs: Sequence[Any], weights: Sequence[float]) -> Any:
    import keras

    return keras.layers.Softmax(name=OUTPUT)(keras.layers.Add(name="mean_logits")(_weighted(outputs, weights)))


def _exponential(outputs: Sequence[Any], weights: Sequence[float]) -> Any:
    import keras

    powers = [keras.layers.Activation("exponential", name=f"power_{i}")(p) for i, p in enumerate(outputs)]
    parts = powers if _is_plain(weights) else _weighted(powers, weights)
    logarithm = keras.ops.log(keras.layers.Add(name="sum")(parts))
    logarithm._keras_history.operation.name = "log"  # Keras counts such names on from graph to graph
    return keras.layers.Softmax(name=OUTPUT)(logarithm)


_MEANS: dict[str, Callable[[Sequence[Any], Sequence[float]], Any]] = {
    "arithmetic": _arithmetic,
    "geometric": _geometric,
    "exponential": _exponential,
}
