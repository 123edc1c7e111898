"""Input scaling as part of the graph: deployed files take raw values.

rescale       y = x / max|x|              no shift: folds into the first convolution
standardize   y = (x - mean) / deviation  per channel or feature, fitted on train only; folds into dense layers, and
                                          into convolutions that pad no zeros
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.kinds import kind_of
from edgeml.operators import Operator, Shape


@dataclass(frozen=True)
class Scaling:
    """``y = x * scale + offset``; one value, or one per channel."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def keras(self, network: Any) -> Any:
        """Put this scaling in front of a Keras model; the input is named after what a sample is."""
        import keras

        scale, offset = (np.array(v if len(v) > 1 else v[0], "float32") for v in (self.scale, self.offset))
        shape = network.input_shape[1:]
        inputs = keras.Input(shape, name=kind_of(shape).sample)
        scaled = keras.layers.Rescaling(scale, offset, name="scaling")(inputs)
        return keras.Model(inputs, network(scaled), name=network.name)

    def operators(self, network: tuple[Operator, ...]) -> tuple[Operator, ...]:
        """Put what remains of this scaling after folding in front of a network's operators."""
        source = network[0]
        readers = [operator for operator in network if source.name in operator.inputs]
        if not any(self.offset) or all(_takes_shift(reader, source.output_shape) for reader in readers):
            return network
        affine = Operator("scaling", "affine", (source.name,), source.output_shape, len(self.scale), len(self.offset))
        fed = [_fed_by(operator, source.name, affine.name) for operator in network[1:]]
        return (source, affine, *fed)


def _takes_shift(reader: Operator, source: Shape) -> bool:
    """Tell whether a shift in front of an operator folds into it: not where zeros are padded in."""
    if reader.kind not in ("conv", "depthwise"):
        return reader.kind == "dense"
    sides = zip(source, reader.kernel, reader.strides, strict=False)  # a window has no width
    return all(kernel == 1 or (-(-side // stride) - 1) * stride + kernel <= side for side, kernel, stride in sides)


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
