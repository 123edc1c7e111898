"""What members of a folded ensemble do alike is done once: the same steps in front, and first convolutions if asked.

    x ─┬─ · s ─ Conv(K₁) ─ relu ─ …                                    ┌─ …
       └─ · s ─ Conv(K₂) ─ relu ─ …    becomes   x ─ · s ─ Conv(K₁|K₂) ─ relu ─ split ─┴─ …

Equal resizing, padding, scaling and shift of one tensor are always shared. Equal-shaped convolutions that read one such
tensor become one with their kernels side by side only where ``merge`` is said, for what the split costs depends on the
precision. Time of the merged graph of three members as a share of the graph without (AVX-512, one thread,
``tools/ensemble_latency``):

    input      onnxruntime float32   LiteRT float32   onnxruntime int8   LiteRT int8
    28x28x1                   1.11             1.07               0.92          0.78
    8x8x1                     1.04             1.03               0.95          0.90
    96x96x3                   1.13             1.08               0.90          0.76

In float32 both runtimes copy the parts, and onnxruntime leaves its blocked layout for it; int8 kernels gain more from
the width. The wide tensor and its parts are alive together, so merging takes memory, and its members share one int8
scale there. Rule: merge where every file is int8 and the graph stays within budget (``edgeml.assembly``).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from edgeml.folding import layers
from edgeml.folding.affine import Refusal
from edgeml.folding.graph import Node, Tensor, count_calls, flatten

FRONT = (*layers.KINDS["pad"], kl.Resizing)  # beside affine layers: what two members may do alike to the input
MERGED = (kl.Conv1D, kl.Conv2D)
TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
ACTIVATIONS = (kl.Activation, kl.ReLU)  # that may stay in front of the split, if of these functions
ELEMENTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "hard_silu", "tanh", "sigmoid",
    "hard_sigmoid", "softplus", "softsign", "exponential",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shared:
    """A graph in which work is shared, and the names of the affine layers that another one stands for now."""

    model: Any
    spared: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Merger:
    """Convolutions that become one, the activations behind them that are alike, and the tensors of the parts."""

    convolutions: tuple[Node, ...]
    activations: tuple[Node, ...] = ()

    @property
    def parts(self) -> list[Tensor]:
        return [node.outputs[0] for node in self.activations or self.convolutions]


def share(model: Any, *, merge: bool = False) -> Shared:
    """Share the work of a folded graph with one input and one output; it is returned as it is where none is alike.

    Layers of ``model`` that stay are taken over, with new names where two members' are the same.
    """
    if len(model.inputs) > 1 or len(model.outputs) > 1:
        return Shared(model, ())
    nodes = flatten(model, count_calls(model))[0]
    kept, spared = _equal_once(nodes)
    mergers = _mergers(kept) if merge else []
    if len(kept) == len(nodes) and not mergers:
        return Shared(model, ())
    return Shared(_rebuilt(model, kept, mergers), spared)


# ---- the same steps in front


def _equal_once(nodes: Sequence[Node]) -> tuple[list[Node], tuple[str, ...]]:
    """Let the first of equal steps on the same tensor stand for the others."""
    first: dict[Hashable, Node] = {}
    kept, spared = [], []
    for node in nodes:
        key = _key(node)
        twin = node if key is None else first.setdefault((id(node.inputs[0]), key), node)
        if twin is node:
            kept.append(node)
            continue
        _hand_over(node.outputs[0], twin.outputs[0])
        spared += [node.layer.name] if layers.is_affine(node.layer) else []
    return kept, tuple(spared)


def _key(node: Node) -> Hashable | None:
    """Return what a step in front computes, equal for equal ones; None for any other node."""
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return None
    if layers.is_affine(node.layer) and not node.training:
        try:
            a = layers.affine_of(node.layer, len(node.inputs[0].shape))
        except Refusal:
            return None
        return a.scale.shape, a.scale.tobytes(), a.shift.shape, a.shift.tobytes(), node.layer.compute_dtype
    cls = layers.as_class(node.layer, FRONT)
    return None if cls is None else (cls, _configuration(node.layer))


def _configuration(layer: Any, *without: str) -> str:
    config = layer.get_config()
    return repr({key: config[key] for key in sorted(config) if key not in ("name", *without)})


def _hand_over(old: Tensor, new: Tensor) -> None:
    for use in old.users:
        use.node.inputs[use.index] = new
        new.users.append(use)
    old.users.clear()


# ---- first convolutions


def _mergers(nodes: Sequence[Node]) -> list[_Merger]:
    """Group the convolutions of equal shape that read one tensor to which only steps in front led."""
    groups: dict[Hashable, list[Node]] = {}
    for node in nodes:
        shape = _shape_key(node) if _is_front(node.inputs[0]) else None
        if shape is not None:
            groups.setdefault((id(node.inputs[0]), shape), []).append(node)
    return [_with_activations(tuple(group)) for group in groups.values() if len(group) > 1]


def _is_front(tensor: Tensor) -> bool:
    while tensor.source is not None and _key(tensor.source) is not None:
        tensor = tensor.source.inputs[0]
    return tensor.source is None


def _shape_key(node: Node) -> Hashable | None:
    """Return what convolutions that become one must have in common: all but width, activation and weights."""
    cls = layers.as_class(node.layer, MERGED)
    if cls is None or len(node.inputs) != 1 or node.layer.groups != 1 or len(node.layer._inbound_nodes) != 1:
        return None
    ignored = [key for key in node.layer.get_config() if key.endswith(TRAINING_ONLY)]
    return cls, _configuration(node.layer, "filters", "activation", *ignored)


def _with_activations(convolutions: tuple[Node, ...]) -> _Merger:
    """Take in the activations that are the only readers of the convolutions and are all alike."""
    if _common_activation([node.layer for node in convolutions]) is None:
        return _Merger(convolutions)
    readers = [_only_reader(node.outputs[0]) for node in convolutions]
    found = tuple(node for node in readers if node is not None and _is_elementwise(node.layer))
    alike = {(type(node.layer), _configuration(node.layer)) for node in found}
    return _Merger(convolutions, found if len(found) == len(convolutions) and len(alike) == 1 else ())


def _common_activation(convolutions: Sequence[Any]) -> Any | None:
    """Return the activation that all convolutions end in, if it may be computed before the split."""
    activations = {layer.activation for layer in convolutions}
    return next(iter(activations)) if len(activations) == 1 and _is_elementwise(convolutions[0]) else None


def _is_elementwise(layer: Any) -> bool:
    """Tell an activation that looks at one value at a time; a softmax looks at all channels."""
    if not layers.as_class(layer, (*ACTIVATIONS, *MERGED)):
        return False
    return isinstance(layer, kl.ReLU) or getattr(layer.activation, "__name__", "") in ELEMENTWISE


def _only_reader(tensor: Tensor) -> Node | None:
    return tensor.users[0].node if len(tensor.users) == 1 else None


# ---- the graph again


def _rebuilt(model: Any, nodes: Sequence[Node], mergers: Sequence[_Merger]) -> Any:
    """Call every node once more, on a new input; the convolutions of a merger where the first of them stood."""
    given, last = model.inputs[0], _last(nodes)
    inputs = keras.Input(batch_shape=given.shape, name=given.name, dtype=given.dtype)
    calls = _Calls({id(tensor): inputs for node in nodes for tensor in node.inputs if tensor.source is None})
    calls.taken |= {given.name, last.layer.name}  # names that files have: no other layer takes them
    leads = {id(merger.convolutions[0]): merger for merger in mergers}
    merged = {id(node) for merger in mergers for node in (*merger.convolutions, *merger.activations)}
    for node in nodes:
        if id(node) in leads:
            calls.merged(leads[id(node)])
        elif id(node) not in merged:
            calls.again(node, node.layer.name if node is last else calls.free(node.layer.name))
    graph = keras.Model(inputs, calls.made[id(last.outputs[0])], name=model.name)
    graph.trainable = False
    return graph


def _last(nodes: Sequence[Node]) -> Node:
    """Return the node that makes the graph's output."""
    return next(
        node for node in nodes for tensor in node.outputs if any(use.node.layer is None for use in tensor.users)
    )


class _Calls:
    """The new tensors by id of the old, and the names given so far."""

    def __init__(self, made: dict[int, Any]) -> None:
        self.made = made
        self.taken: set[str] = set()

    def free(self, name: str) -> str:
        """Return the first of ``name``, ``name_1``, … that is not taken, and take it."""
        numbered = (f"{name}_{i}" for i in count(1))
        found = next(one for one in chain((name,), numbered) if one not in self.taken)
        self.taken.add(found)
        return found

    def again(self, node: Node, name: str) -> None:
        """Call a node's layer, under ``name``."""
        own = {
            id(theirs): self.made[id(ours)] for theirs, ours in zip(node.call.input_tensors, node.inputs, strict=True)
        }
        args, kwargs = node.call.arguments.fill_in(own)
        node.layer.name = name
        outputs = keras.tree.flatten(node.layer(*args, **kwargs))
        self.made.update(zip(map(id, node.outputs), outputs, strict=True))

    def merged(self, merger: _Merger) -> None:
        """Run a wide convolution and what is alike behind it, and split the result."""
        parts = [node.layer for node in merger.convolutions]
        common = _common_activation(parts)
        wide = _wide(parts, self.free(parts[0].name), common)
        value = wide(self.made[id(merger.convolutions[0].inputs[0])])
        _write(wide, parts)
        for node in merger.activations[:1]:
            node.layer.name = self.free(node.layer.name)
            value = node.layer(value)
        pieces = self._split(value, [part.filters for part in parts], 1 if wide.data_format == "channels_first" else -1)
        if common is None:
            pieces = [kl.Activation(part.activation, name=self.free(f"{part.name}_act"))(piece)
                      for part, piece in zip(parts, pieces, strict=True)]  # fmt: skip
        self.made.update(zip(map(id, merger.parts), pieces, strict=True))

    def _split(self, value: Any, sizes: Sequence[int], axis: int) -> list[Any]:
        """Split by number where parts are equal: XNNPACK has no kernel for sizes."""
        by = len(sizes) if len(set(sizes)) == 1 else list(accumulate(sizes))[:-1]
        pieces: list[Any] = keras.ops.split(value, by, axis=axis)
        pieces[0]._keras_history.operation.name = self.free("split")  # Keras counts such names on from graph to graph
        return pieces


def _wide(parts: Sequence[Any], name: str, activation: Any) -> Any:
    config = {key: value for key, value in parts[0].get_config().items() if not key.endswith(TRAINING_ONLY)}
    config |= {"filters": sum(part.filters for part in parts), "name": name, "activation": activation}
    cls: Any = layers.as_class(parts[0], MERGED)
    return cls(**config)


def _write(wide: Any, parts: Sequence[Any]) -> None:
    """Write kernels and biases side by side."""
    wide.kernel.assign(np.concatenate([layers.numpy(part.kernel) for part in parts], axis=-1))
    if wide.bias is not None:
        wide.bias.assign(np.concatenate([layers.numpy(part.bias) for part in parts]))
