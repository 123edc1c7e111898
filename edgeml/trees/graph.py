"""Trees as a Keras graph, and as the operators that it will have, before any tree is grown.

    x ─ flat ─ TreeEnsemble ─┬─ averages: log p ───────────────────────┬─ softmax ─ probabilities (N, K)
                             └─ boosting: logits, K = 2: · (-1/2, 1/2) ┘

Like every member it ends in a softmax, so both means of ``compile_ensemble`` take it. softmax(-z/2, z/2) is (1 - p, p)
with p = sigmoid(z); the floor under p, 1e-7 as in ``edgeml.ensemble``, moves probabilities by less than K · 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeml.errors import UsageError
from edgeml.operators import Operator, Shape, with_activations_joined
from edgeml.tree_shape import TreeShape
from edgeml.trees.reading import Forest, read
from edgeml.trees.tables import complete, tables_of

COUNTED_BY = {"random_forest": "n_estimators", "hist_gradient_boosting": "max_iter"}
LAYER, HALVES, END = "trees", "two_logits", "probabilities"


def compiled(estimator: Any, input_shape: Shape, name: str = "image") -> Any:
    """Return a fitted scikit-learn classifier as a Keras model with one input ``name`` (N, *input_shape).

    Takes random forests, extremely randomized trees and histogram gradient boosting. Fit boosting on float32 values (or
    use ``fit``): where it was fitted on float64, a threshold may lie between what two float64 round to.

    Raises:
        UsageError: another kind of model, or one of another number of features.
        DataError: classes that are not 0, 1, … K - 1, or a threshold below every float32.
    """
    import keras

    from edgeml.layers import TreeEnsemble

    forest = _checked(estimator, math.prod(input_shape))
    made = tables_of(forest)
    layer = TreeEnsemble.of(made.shape, logarithm=forest.averages, name=LAYER)
    inputs = keras.Input(input_shape, name=name, dtype="float32")
    logits = layer(keras.layers.Reshape((forest.features,), name="features")(inputs))
    layer.set_weights(list(made.constants.values()))
    if _has_one_logit(made.shape):
        halves = keras.layers.Dense(2, use_bias=False, name=HALVES)
        logits = halves(logits)
        halves.set_weights([np.array([[-0.5, 0.5]], np.float32)])
    model = keras.Model(inputs, keras.layers.Softmax(name=END)(logits), name=type(estimator).__name__)
    model.trainable = False
    return model


def operators(estimator: Any) -> tuple[Operator, ...]:
    """List the operators of the graph that a fitted classifier is compiled to."""
    forest = read(estimator)
    return _operators(tables_of(forest).shape, forest.features, averages=forest.averages)


def bound(kind: str, hyperparameters: Mapping[str, Any], features: int, classes: int) -> tuple[Operator, ...]:
    """List the operators of the largest graph that these hyper-parameters can become; nothing is fitted.

    Raises:
        UsageError: an unknown kind, or no limit of trees or of depth.
    """
    check_kind(kind)
    depth, count = (_whole_number(kind, hyperparameters, key) for key in ("max_depth", COUNTED_BY[kind]))
    averages = kind == "random_forest"
    groups = 1 if averages or classes == 2 else classes
    shape = complete(count * groups, depth, classes if averages else 1, groups)
    return _operators(shape, features, averages=averages)


def check_kind(kind: str) -> None:
    """Refuse a kind of trees that is not known.

    Raises:
        UsageError: it is not.
    """
    if kind not in COUNTED_BY:
        raise UsageError(f"trees: got '{kind}'; {' and '.join(COUNTED_BY)} are allowed. Name one of them.")


def _whole_number(kind: str, hyperparameters: Mapping[str, Any], key: str) -> int:
    value = hyperparameters.get(key)
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{kind}: {key} is {value!r}; a whole number of at least 1 is due. Set it.")
    return value


def _checked(estimator: Any, features: int) -> Forest:
    forest = read(estimator)
    if forest.features != features:
        raise UsageError(
            f"trees: {type(estimator).__name__} was fitted on {forest.features} features; inputs of {features} are"
            " given. Fit it on the flattened inputs."
        )
    return forest


def _has_one_logit(shape: TreeShape) -> bool:
    return shape.groups * shape.outputs == 1


def _operators(shape: TreeShape, features: int, *, averages: bool) -> tuple[Operator, ...]:
    found = [Operator("image", "input", (), (features,)), *shape.operators(LAYER, "image", logarithm=averages)]
    if _has_one_logit(shape):
        found.append(Operator(HALVES, "dense", (LAYER,), (2,), 2, macs=2))
    found.append(Operator(END, "softmax", (found[-1].name,), found[-1].output_shape))
    return tuple(with_activations_joined(found))
