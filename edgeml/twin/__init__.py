"""The tf_keras twin of a Keras 3 model: the same function, in layers that TensorFlow Model Optimization takes.

    Keras 3 model ── twin ──► tf_keras model ── pruned, clustered, fake-quantized ── back ──► Keras 3

tfmot 0.8.1 knows Keras 2 alone (``tf_keras``). The twin is flat, and written in the layers that tfmot can handle:

    SeparableConv(D, P, b)        DepthwiseConv2D(D) ─ Conv2D(P, b)          name__dw, name__pw
    Conv1D, pooling, … along T    the same on (1, T, C)                      name__tall, name, name__flat
    Dense(activation=f)           Dense ─ f                                  name, name__act
    hard_silu(x)                  x · (relu6(x + 3) / 6)                     name__p3, name__r6, name__s6, name
    BatchRenormalization          BatchNormalization (what it is at inference)

Weights go both ways as they are, so that a twin and its model differ by rounding alone. Where fake quantization is due,
the model is folded first (``edgeml.fold_batch_norm``): tfmot leaves batch normalization behind dense layers in float.
Nothing here reads ``tf.keras``, which may be either Keras.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import UsageError


def twin(model: Any, *, strip_scaling: bool = False) -> Any:
    """Return a tf_keras functional model that computes what a Functional or Sequential Keras 3 model does at inference.

    ``strip_scaling`` leaves out the Rescaling and Normalization layers that stand at an input: whoever feeds the twin
    then feeds what ``feed`` returns.

    Raises:
        UsageError: tf_keras is not installed, the model has no layer graph, or a layer cannot be translated.
    """
    if find_spec("tf_keras") is None:
        raise UsageError("twin: tf_keras is not installed. `pip install tf_keras`, then run this again.")
    from edgeml.twin.translation import plan_of, translated

    return translated(plan_of(model), strip_scaling=strip_scaling)


def back(twin: Any, model: Any) -> None:
    """Copy the weights of a twin, changed, wrapped for pruning or quantization, or stripped, into a Keras 3 model.

    ``model`` has the structure of the one that the twin was made of, or is that model.

    Raises:
        UsageError: the twin lacks a weight of the model, or holds clusters that were not stripped.
    """
    from edgeml.twin.translation import plan_of
    from edgeml.twin.weights import copy_back

    copy_back(plan_of(model).links, twin)


def feed(model: Any, x: NDArray[Any]) -> NDArray[np.float32]:
    """Return what a twin with ``strip_scaling`` takes where ``model``, of one input, takes ``x`` (N, …)."""
    from edgeml.twin.translation import plan_of

    plan = plan_of(model)
    if len(plan.inputs) != 1:
        raise UsageError(f"model '{model.name}': {len(plan.inputs)} inputs; one is due. Feed each of them yourself.")
    scaled = np.asarray(x, np.float64)
    for affine in plan.scalings(plan.inputs[0]):
        scaled = scaled * affine.scale + affine.shift
    return scaled.astype(np.float32)
