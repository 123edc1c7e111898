"""A folded network as a list of operators: the small intermediate form that every cost is computed from.

    search space ── hyper-parameters ──► Network ──► operators ┐
                                                               ├──► costs
    Keras model ──────── fold ──────────► keras_operators ─────┘

An operator stands for one matrix product or data movement of the graph *after* folding: normalisation has become a
bias, an activation belongs to the operator before it, and views (flatten, dropout, reshape) are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from typing import NamedTuple

Shape = tuple[int, ...]


class Operator(NamedTuple):
    """One operator at batch 1.

    ``inputs``: names of the operators that feed it (``"input"`` for the graph's). ``output_shape`` without batch.
    ``weights`` and ``biases``: scalars. ``kernel``: (height, width) or ``()``. ``activation``: what is fused into it.
    ``bytes_per_element``: of the output; 1 (int8) unless a file says otherwise. ``float_only``: it is float32, always.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output_shape: Shape
    weights: int = 0
    biases: int = 0
    macs: int = 0
    kernel: Shape = ()
    strides: Shape = ()
    activation: str = "linear"
    bytes_per_element: int = 1
    float_only: bool = False

    @property
    def params(self) -> int:
        """Scalars that inference needs."""
        return self.weights + self.biases


KINDS = {
    "input": "the graph's input",
    "conv": "convolution (k x k or 1 x 1)",
    "depthwise": "depthwise convolution",
    "dense": "matrix product with a constant matrix",
    "matmul": "matrix products side by side, each with a constant matrix of its own",
    "gather": "elements of a tensor, by index",
    "compare": "comparison with constants, as zeros and ones",
    "affine": "per-channel scale and shift that could not be folded",
    "add": "elementwise sum",
    "multiply": "elementwise product",
    "concat": "concatenation",
    "split": "channels apart, as many tensors as members read",
    "max_pool": "max pooling",
    "avg_pool": "average pooling",
    "global_pool": "global pooling",
    "pad": "padding",
    "resize": "another height and width",
    "activation": "activation that no operator could take in",
    "softmax": "softmax",
    "view": "the same values in another shape (listed in files only)",
    "transpose": "axes in another order (listed in files only)",
    "quantize": "real numbers to integers, or integers to others (listed in files only)",
    "dequantize": "integers to real numbers (listed in files only)",
}
RELABELLED = ("view", "quantize", "dequantize")  # what int8 arithmetic throughout need not hold twice


def not_counted(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operators of a kind that is not known: what they cost is in no figure."""
    return [operator for operator in operators if operator.kind not in KINDS]


def without_relabelling(operators: Sequence[Operator]) -> list[Operator]:
    """Leave out the operators whose output has the values of their input, which their readers then read."""
    stands_for: dict[str, str] = {}
    kept = []
    for operator in operators:
        inputs = tuple(stands_for.get(name, name) for name in operator.inputs)
        if operator.kind in RELABELLED and len(inputs) == 1:
            stands_for[operator.name] = inputs[0]
        else:
            kept.append(operator._replace(inputs=inputs) if inputs != operator.inputs else operator)
    return kept


def with_activations_joined(operators: Sequence[Operator], outputs: Container[str] = ()) -> list[Operator]:
    """Let activations join the operator before them where nothing else reads it and the graph does not return it."""
    by_name = {operator.name: operator for operator in operators}
    readers = Counter(name for operator in operators for name in set(operator.inputs))
    joined: dict[str, str] = {}
    for operator in operators:
        if operator.kind != "activation" or operator.weights or operator.activation == "softmax":
            continue
        source = joined.get(operator.inputs[0], operator.inputs[0])
        before = by_name[source]
        is_taken = before.kind == "input" or before.activation != "linear"
        if is_taken or readers[operator.inputs[0]] > 1 or source in outputs:
            continue
        by_name[source] = before._replace(activation=operator.activation)
        joined[operator.name] = source
        del by_name[operator.name]
    return [op._replace(inputs=tuple(joined.get(name, name) for name in op.inputs)) for op in by_name.values()]


def without_batch(shape: Shape) -> Shape:
    """Drop the batch axis of a file's tensor; a vector or a batch above 1 stays as it is."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
