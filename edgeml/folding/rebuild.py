"""The folded model: every layer cloned, the folded ones left out, the weights written at the end.

Graphs are computed again on new inputs, node by node, so that shared layers stay shared (one memo for the whole nest),
nested models stay nested, and structure and names of inputs and outputs stay. Where a folded layer gave an output of
the model its name, the layer before it takes that name over. The clone is not compiled and not trainable.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras

from edgeml.errors import UsageError
from edgeml.folding import layers
from edgeml.folding.graph import calls_in, graph_of, inner_layers
from edgeml.folding.walk import Walk
from edgeml.layers import BatchRenormalization

_GONE = object()
_TRAINING_ONLY = ("_regularizer", "_constraint")


def rebuild(model: Any, gone: set[int], walk: Walk) -> Any:
    """Clone ``model`` without the layers whose ids are in ``gone``, with the kernels and maps of ``walk``."""
    cloning = _Cloning(gone, walk)
    cloning.keep_output_names(graph_of(model))
    clone = cloning.clone(model)
    cloning.write_weights()
    clone.trainable = False
    return clone


def copied(model: Any) -> Any:
    """Clone ``model`` as it is: every layer, every weight, and what of it is trainable."""
    clone = rebuild(model, set(), Walk(Counter(), Counter()))
    for own, other in zip(model._flatten_layers(), clone._flatten_layers(), strict=True):
        other.trainable = own.trainable
    return clone


class _Cloning:
    def __init__(self, gone: set[int], walk: Walk) -> None:
        self.gone = gone
        self.walk = walk
        self.memo: dict[int, Any] = {}
        self.pairs: list[tuple[Any, Any]] = []  # layer and clone, where the clone has weights of its own
        self.names: dict[int, str] = {}  # new names by id of the layer
        self.stand_ins: set[int] = set()  # folded layers whose name needs a place: an Identity

    # ---- names of the outputs

    def keep_output_names(self, graph: Any) -> None:
        sources = {id(tensor): call for call in calls_in(graph) for tensor in call.outputs}
        for tensor in graph.outputs:
            call = last = sources.get(id(tensor))
            while call is not None and self._vanishes(call.operation):
                last, call = call, sources.get(id(call.input_tensors[0]))
            if call is last:
                continue
            if call is not None and self._may_be_renamed(call):
                self.names[id(call.operation)] = sources[id(tensor)].operation.name
            else:
                self.stand_ins.add(id(sources[id(tensor)].operation))

    @staticmethod
    def _may_be_renamed(call: Any) -> bool:
        """Tell a leaf with one output; an affine layer that stays is in the report by its own name."""
        layer = call.operation
        return graph_of(layer) is None and len(call.outputs) == 1 and not layers.is_affine(layer)

    def _vanishes(self, layer: Any) -> bool:
        """Tell whether nothing of a layer or nested model is left."""
        graph = graph_of(layer)
        if graph is None:
            return id(layer) in self.gone
        calls = calls_in(graph)
        return len(graph.inputs) == len(graph.outputs) == 1 and all(self._vanishes(call.operation) for call in calls)

    # ---- structure

    def clone(self, layer: Any) -> Any:
        """Return the clone of a layer, operation or model, or ``_GONE``."""
        if id(layer) not in self.memo:
            self.memo[id(layer)] = self._clone(layer)
        return self.memo[id(layer)]

    def _clone(self, layer: Any) -> Any:
        if id(layer) in self.stand_ins:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        if self._vanishes(layer):
            return _GONE
        graph = graph_of(layer)
        if graph is None:
            return self._leaf(layer)
        build = self._sequential if isinstance(layer, keras.Sequential) else self._functional
        return build(layer, graph)

    def _sequential(self, model: Any, graph: Any) -> Any:
        clones = [self.clone(call.operation) for call in calls_in(graph)]
        first = _input(graph.inputs[0])
        return keras.Sequential([first, *(c for c in clones if c is not _GONE)], name=model.name)

    def _functional(self, model: Any, graph: Any) -> Any:
        made = {id(tensor): _input(tensor).output for tensor in graph.inputs}
        inputs = keras.tree.map_structure(lambda tensor: made[id(tensor)], graph.input)
        for call in calls_in(graph):
            clone = self.clone(call.operation)
            if clone is _GONE:
                made[id(call.outputs[0])] = made[id(call.input_tensors[0])]
                continue
            args, kwargs = call.arguments.fill_in(made)
            if id(call.operation) in self.stand_ins:  # an Identity takes no mask
                args, kwargs = (made[id(call.input_tensors[0])],), {}
            outputs = keras.tree.flatten(clone(*args, **kwargs))
            made.update(zip(map(id, call.outputs), outputs, strict=True))
        outputs = keras.tree.map_structure(lambda tensor: made[id(tensor)], graph.output)
        return keras.Model(inputs, outputs, name=model.name)

    # ---- leaves

    def _leaf(self, layer: Any) -> Any:
        kind = layers.kind_of(layer)
        if kind == "carrier":
            clone = self._carrier(layer)
        elif kind == "affine" and id(layer) in self.walk.maps:
            clone = self._affine(layer)
        else:
            clone = self._opaque(layer)
        if clone is not layer:
            self.pairs.append((layer, clone))
        return clone

    def _carrier(self, layer: Any) -> Any:
        """Clone as the public class: a subclass that only changed its constructor is not needed any more."""
        cls: Any = layers.as_class(layer, layers.KINDS["carrier"])
        config = self._named(layer, cls.get_config(layer))
        stack = self.walk.stacks.get(id(layer))
        if stack is None:
            return self._opaque(layer)
        config |= {key: None for key in config if key.endswith(_TRAINING_ONLY)}
        return cls.from_config(config | {"use_bias": stack.bias is not None})

    def _affine(self, layer: Any) -> Any:
        a, changed = self.walk.maps[id(layer)], self._is_rewritten(layer)
        if changed and layers.as_class(layer, layers.BATCH_NORMS):
            config = self._named(layer, keras.layers.BatchNormalization.get_config(layer))
            return keras.layers.BatchNormalization.from_config(config | {"scale": True, "center": True})
        if changed or (layers.as_class(layer, (keras.layers.Normalization,)) and layers.rescalable(a)):
            return layers.rescaling_of(a, self._named(layer, layer.get_config()))
        return self._opaque(layer)

    def _is_rewritten(self, layer: Any) -> bool:
        """Tell an affine layer that took something in, or whose class nobody else has: it becomes Keras' own."""
        ours = layers.as_class(layer, (BatchRenormalization,)) and id(layer) in self.walk.maps
        return bool(ours) or id(layer) in self.walk.changed

    def _opaque(self, layer: Any) -> Any:
        """Clone from the config; what has none, and no weights that would then be shared, is used itself."""
        stateless = not getattr(layer, "weights", None)
        if stateless and hasattr(layer, "save_assets"):  # a vocabulary is neither weight nor config
            return layer
        try:
            return type(layer).from_config(self._named(layer, layers.exact_config(layer)))
        except (NotImplementedError, TypeError, ValueError) as error:
            if stateless:
                return layer
            raise UsageError(
                f"layer '{layer.name}': {type(layer).__name__} cannot be cloned from its get_config() "
                f"({' '.join(str(error).split())}); a layer with weights must be. Give it get_config and from_config."
            ) from error

    def _named(self, layer: Any, config: dict[str, Any]) -> dict[str, Any]:
        return config | ({"name": self.names[id(layer)]} if id(layer) in self.names else {})

    # ---- weights

    def write_weights(self) -> None:
        for layer, clone in self.pairs:
            if id(layer) in self.walk.stacks:
                layers.write_stack(self.walk.stacks[id(layer)], clone)
            elif self._is_rewritten(layer) and isinstance(clone, keras.layers.BatchNormalization):
                layers.write_batch_normalization(self.walk.maps[id(layer)], clone)
            elif getattr(clone, "weights", None):
                clone.set_weights(layer.get_weights())
                for part in (clone, *inner_layers(clone)):  # a Normalization computes with constants cached in here
                    if hasattr(part, "finalize_state"):
                        part.finalize_state()


def _input(tensor: Any) -> Any:
    """Clone an input with its flags and both its names: that of the layer and that of the tensor."""
    layer = tensor._keras_history.operation
    flags = {"sparse": tensor.sparse, "ragged": tensor.ragged}
    twin = keras.KerasTensor(tensor.shape, tensor.dtype, name=tensor.name, **flags)
    return keras.layers.InputLayer(input_tensor=twin, optional=layer.optional, name=layer.name)
