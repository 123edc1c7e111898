"""A folded network as a list of operators: the small intermediate form that every cost is computed from.

    search space ── hyper-parameters ──► Network ──► operators ┐
                                                               ├──► costs
    Keras model ──────── fold ──────────► keras_operators ─────┘

An operator stands for one matrix product or data movement of the graph *after* folding: normalisation has become a
bias, an activation belongs to the operator before it, and views (flatten, dropout, reshape) are gone.
"""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator at batch 1.

    ``inputs``: names of the operators that feed it (``"input"`` for the graph's). ``output_shape`` without batch.
    ``weights`` and ``biases``: scalars. ``kernel``: (height, width) or ``()``. ``activation``: what is fused into it.
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

    @property
    def params(self) -> int:
        """Scalars that inference needs."""
        return self.weights + self.biases


KINDS = {
    "input": "the graph's input",
    "conv": "convolution (k x k or 1 x 1)",
    "depthwise": "depthwise convolution",
    "dense": "matrix product with a constant matrix",
    "affine": "per-channel scale and shift that could not be folded",
    "add": "elementwise sum",
    "multiply": "elementwise product",
    "concat": "concatenation",
    "max_pool": "max pooling",
    "avg_pool": "average pooling",
    "global_pool": "global pooling",
    "pad": "padding",
    "resize": "upsampling",
    "activation": "activation that no operator could take in",
    "softmax": "softmax",
}
