"""Input scaling as part of the graph: deployed files take raw values.

rescale       y = x / max|x|              no shift: folds into the first convolution
standardize   y = (x - mean) / deviation  per channel, fitted on train only
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.operators import Operator, Shape


@dataclass(frozen=True)
class Scaling:
    """``y = x * scale + offset``; one value, or one per channel."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def keras(self, network: Any, name: str = "image") -> Any:
        """Put this scaling in front of a Keras model."""
        import keras

        scale, offset = (np.array(v if len(v) > 1 else v[0], "float32") for v in (self.scale, self.offset))
        inputs = keras.Input(network.input_shape[1:], name=name)
        scaled = keras.layers.Rescaling(scale, offset, name="scaling")(inputs)
        return keras.Model(inputs, network(scaled), name=network.name)

    def operators(self, network: tuple[Operator, ...]) -> tuple[Operator, ...]:
        """Put what remains of this scaling after folding in front of a network's operators."""
        if not any(self.offset):
            return network
        source = network[0]
        affine = Operator("scaling", "affine", (source.name,), source.output_shape, len(self.scale), len(self.offset))
        fed = [_fed_by(operator, source.name, affine.name) for operator in network[1:]]
        return (source, affine, *fed)


def _fed_by(operator: Operator, old: str, new: str) -> Operator:
    return operator._replace(inputs=tuple(new if name == old else name for name in operator.inputs))


def rescale(value_range: tuple[float, float]) -> Scaling:
    """Divide by the largest absolute value that the source can deliver."""
    return Scaling((1.0 / max(abs(value_range[0]), abs(value_range[1]), 1e-12),), (0.0,))


def standardize(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> Scaling:
    """Subtract the mean and divide by the deviation, per channel; a constant channel is only centred."""
    deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
    return Scaling(tuple((1.0 / deviation).tolist()), tuple((-mean / deviation).tolist()))


def input_shape(x: NDArray[Any]) -> Shape:
    """Return the shape of one sample."""
    return tuple(int(size) for size in x.shape[1:])
