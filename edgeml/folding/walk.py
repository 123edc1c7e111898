"""Where a map can go: backward into what made its tensor, or forward into everything that reads it.

Backward, a tensor t must become s·t + b; it may have no other reader, or they would see it too. Forward, every reader
of t must take t where it took s·t + b. Both ways pass through layers that commute with the map and branch where tensors
join or part; every branch must accept, or nothing is done: a walk only collects edits, the caller applies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from edgeml.folding import layers
from edgeml.folding.affine import Affine, Refusal, Shape, static
from edgeml.folding.graph import Node, Tensor, Use
from edgeml.folding.kernels import Stack

Edit = Callable[[], None]


class Walk:
    """The maps and kernels of a model in float64, and the ways between them."""

    def __init__(self, calls: Counter[int], owners: Counter[int]) -> None:
        self.calls = calls  # of a layer, by id
        self.owners = owners  # of a variable, by id
        self.stacks: dict[int, Stack] = {}  # kernels by id of their layer, with all folds so far
        self.maps: dict[int, Affine] = {}  # affine layers by id, with all maps merged into them
        self.changed: set[int] = set()  # ids of the layers that took something in

    # ---- what a node is

    def affine(self, node: Node) -> Affine:
        """Return the map of an affine node that may go."""
        key = id(node.layer)
        if key not in self.maps:
            self.maps[key] = layers.affine_of(node.layer, len(node.inputs[0].shape))
        self._own(node)
        if node.training:
            raise Refusal(f"'{node.layer.name}' is called with training=True")
        return self.maps[key]

    def stack(self, node: Node) -> Stack:
        """Return the kernels of a carrier that may change."""
        if id(node.layer) not in self.stacks:
            self._own(node)
            self.stacks[id(node.layer)] = layers.stack_of(node.layer)
        return self.stacks[id(node.layer)]

    def _own(self, node: Node) -> None:
        name, tensor = node.layer.name, node.inputs[0]
        if self.calls[id(node.layer)] > 1:
            raise Refusal(f"'{name}' is used in {self.calls[id(node.layer)]} places")
        if any(self.owners[id(variable)] > 1 for variable in node.layer.variables):
            raise Refusal(f"'{name}' shares its weights with another layer")
        if tensor.dtype != node.outputs[0].dtype or tensor.dtype != node.layer.compute_dtype:
            raise Refusal(f"'{name}' turns {tensor.dtype} into {node.outputs[0].dtype}")

    # ---- backward

    def backward(self, tensor: Tensor, a: Affine) -> list[Edit]:
        """Collect what makes ``tensor`` become a(tensor)."""
        node = tensor.source
        if node is None:
            raise Refusal("it stands at an input")
        if len(tensor.users) != 1:
            raise Refusal(f"the output of '{node.layer.name}' is also used elsewhere")
        kind = layers.kind_of(node.layer)
        if kind == "carrier":
            return self._after_carrier(node, a)
        if kind == "affine":
            return self._merge(node, a.after, a)
        if kind in _JOINS:
            pieces = _JOINS[kind](node, a)
            return [e for piece, source in zip(pieces, node.inputs, strict=True) for e in self.backward(source, piece)]
        return self.backward(node.inputs[0], _through(node, kind, a, False))

    def _after_carrier(self, node: Node, a: Affine) -> list[Edit]:
        stack = self.stack(node)
        if not layers.commutes(node.layer, a):
            raise Refusal(f"'{node.layer.name}' ends in an activation")
        self._bias_fits(node, stack, a)
        s, b = a.channels(layers.channel_axis(node.layer, a.rank), stack.outputs)
        return [self._edit(node, lambda: stack.absorb_after(s, b))]

    @staticmethod
    def _bias_fits(node: Node, stack: Stack, a: Affine) -> None:
        if (a.shifts or stack.bias is not None) and layers.adds_bias_astray(node.layer, node.outputs[0].shape):
            raise Refusal(f"'{node.layer.name}' has as many channels as columns; its bias would go along the columns")

    def _merge(self, node: Node, combine: Callable[[Affine], Affine], a: Affine) -> list[Edit]:
        key = id(node.layer)
        self.affine(node)
        layers.check_merge(node.layer, a)
        return [self._edit(node, lambda: self.maps.update({key: combine(self.maps[key])}))]

    def _edit(self, node: Node, act: Edit) -> Edit:
        def edit() -> None:
            act()
            self.changed.add(id(node.layer))

        return edit

    # ---- forward

    def forward(self, tensor: Tensor, a: Affine) -> list[Edit]:
        """Collect what makes every reader take ``tensor`` where it took a(tensor)."""
        return [edit for use in tensor.users for edit in self._into(use, a)]

    def _into(self, use: Use, a: Affine) -> list[Edit]:
        node = use.node
        if node.layer is None:
            raise Refusal("its value is an output of the model")
        kind = layers.kind_of(node.layer)
        if kind == "carrier":
            return self._before_carrier(node, a)
        if kind == "affine":
            return self._merge(node, lambda own: own.after(a), a)
        if kind == "concatenate":
            axis, sizes = _cut(node)
            return self.forward(node.outputs[0], a.embedded(axis, sizes, use.index))
        return self.forward(node.outputs[0], _through(node, kind, a, True))

    def _before_carrier(self, node: Node, a: Affine) -> list[Edit]:
        stack = self.stack(node)
        if a.shifts and layers.pads_zeros(node.layer, node.inputs[0].shape):
            raise Refusal(f"'{node.layer.name}' pads with zeros, which a shift would change")
        self._bias_fits(node, stack, a)
        s, b = a.channels(layers.channel_axis(node.layer, a.rank), stack.inputs)
        if a.shifts and not stack.takes_shift:
            raise Refusal(f"'{node.layer.name}' is a transposed convolution, where a shift changes with the position")
        return [self._edit(node, lambda: stack.absorb_before(s, b))]


def _through(node: Node, kind: str | None, a: Affine, forward: bool) -> Affine:
    """Carry a map from one side of a layer that commutes with it to the other."""
    name = f"'{node.layer.name}' ({type(node.layer).__name__})"
    if kind not in _WAYS:
        raise Refusal(f"no map passes through {name}")
    trains = node.training and not layers.as_class(node.layer, layers.RANDOM)
    if len(node.inputs) != 1 or len(node.outputs) != 1 or trains:
        raise Refusal(f"{name} has a mask, several inputs or is called with training=True")
    if node.inputs[0].dtype != node.outputs[0].dtype or node.layer.compute_dtype != node.inputs[0].dtype:
        raise Refusal(f"{name} turns {node.inputs[0].dtype} into {node.layer.compute_dtype}")
    return _WAYS[kind](node, a, forward)


def _shapes(node: Node, forward: bool) -> tuple[Shape, Shape]:
    """Return the shapes on the side the map comes from and on the side it goes to."""
    before, after = node.inputs[0].shape, node.outputs[0].shape
    return (before, after) if forward else (after, before)


def _same(_node: Node, a: Affine, _forward: bool) -> Affine:
    return a


def _activation(node: Node, a: Affine, _forward: bool) -> Affine:
    if not layers.commutes(node.layer, a):
        raise Refusal(f"'{node.layer.name}' is an activation")
    return a


def _reshape(node: Node, a: Affine, forward: bool) -> Affine:
    source, target = _shapes(node, forward)
    if getattr(node.layer, "data_format", None) == "channels_first" and len(node.inputs[0].shape) > 1:
        raise Refusal(f"'{node.layer.name}' reorders a channels_first tensor")
    return a.reshaped(source, target)


def _permute(node: Node, a: Affine, forward: bool) -> Affine:
    order = [axis - 1 for axis in node.layer.dims]
    return a.transposed(order if forward else sorted(range(len(order)), key=order.__getitem__))


def _per_channel(node: Node, a: Affine, forward: bool) -> Affine:
    source, target = ((len(s), layers.channel_axis(node.layer, len(s))) for s in _shapes(node, forward))
    return a.moved(source, target)


def _max(node: Node, a: Affine, forward: bool) -> Affine:
    if (a.scale < 0).any():
        raise Refusal(f"a negative scale turns the maximum of '{node.layer.name}' into a minimum")
    return _per_channel(node, a, forward)


def _pad(node: Node, a: Affine, forward: bool) -> Affine:
    if a.shifts:
        raise Refusal(f"'{node.layer.name}' pads with zeros, which a shift would change")
    return _per_channel(node, a, forward)


_WAYS: dict[str | None, Callable[[Node, Affine, bool], Affine]] = {
    "same": _same,
    "activation": _activation,
    "reshape": _reshape,
    "permute": _permute,
    "mean": _per_channel,
    "max": _max,
    "pad": _pad,
}


# ---- joins, backward: what each branch must become


def _alike(node: Node) -> None:
    if any(tensor.shape != node.outputs[0].shape for tensor in node.inputs):
        raise Refusal(f"'{node.layer.name}' broadcasts its inputs")


def _first_shifts(node: Node, a: Affine) -> list[Affine]:
    _alike(node)
    return [a] + [a.scale_only()] * (len(node.inputs) - 1)


def _all_alike(node: Node, a: Affine) -> list[Affine]:
    _alike(node)
    return [a] * len(node.inputs)


def _pieces(node: Node, a: Affine) -> list[Affine]:
    return a.split(*_cut(node))


def _cut(node: Node) -> tuple[int, tuple[int, ...]]:
    """Return the axis of a Concatenate, without batch, and the sizes of its pieces there."""
    rank = len(node.outputs[0].shape)
    axis = node.layer.axis % (rank + 1) - 1
    if axis < 0:
        raise Refusal(f"'{node.layer.name}' concatenates along the batch axis")
    return axis, static(tuple(tensor.shape[axis] for tensor in node.inputs))


_JOINS: dict[str | None, Callable[[Node, Affine], list[Affine]]] = {
    "add": _first_shifts,
    "subtract": _first_shifts,
    "average": _all_alike,
    "concatenate": _pieces,
}
