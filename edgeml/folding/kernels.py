"""Scale and shift through the kernel of a layer: NumPy in float64, no framework.

A form says where a kernel keeps its channels:

    form         kernel                    input channel      output channel
    dense        (taps…, in/groups, out)   axis -2            axis -1            Dense, Conv1D/2D/3D
    transposed   (taps…, out, in)          axis -1            axis -2            Conv1D/2D/3DTranspose
    depthwise    (taps…, in, multiplier)   axis -2            in·multiplier + m  DepthwiseConv1D/2D
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeml.folding.affine import Array, Refusal


@dataclass(frozen=True)
class Form:
    """How one kind of kernel is scaled and summed; ``groups`` matters to the dense form alone."""

    scale_outputs: Callable[[Array, Array], Array]
    scale_inputs: Callable[[Array, Array, int], Array]
    shift_through: Callable[[Array, Array, int], Array] | None
    inputs: Callable[[Array, int], int]
    outputs: Callable[[Array], int]


def spread(values: Array, kernel: Array, groups: int) -> Array:
    """Lay values per input channel beside the last two axes of a dense kernel.

    Element (i, o) of a kernel (…, in/groups, out) reads input channel i + in/groups · ⌊o / (out/groups)⌋.
    """
    within, out = kernel.shape[-2:]
    group = np.arange(out) // (out // groups)
    return np.asarray(values[np.arange(within)[:, None] + within * group[None, :]], np.float64)


def _taps(kernel: Array) -> Array:
    """Sum a kernel over its taps: what it does to a constant."""
    return np.asarray(kernel.sum(axis=tuple(range(kernel.ndim - 2))), np.float64)


DENSE = Form(
    scale_outputs=lambda kernel, s: kernel * s,
    scale_inputs=lambda kernel, s, groups: kernel * spread(s, kernel, groups),
    shift_through=lambda kernel, b, groups: (_taps(kernel) * spread(b, kernel, groups)).sum(axis=0),
    inputs=lambda kernel, groups: kernel.shape[-2] * groups,
    outputs=lambda kernel: kernel.shape[-1],
)
TRANSPOSED = Form(
    scale_outputs=lambda kernel, s: kernel * s[:, None],
    scale_inputs=lambda kernel, s, _groups: kernel * s,
    shift_through=None,  # how many taps an output sees changes with its position
    inputs=lambda kernel, _groups: kernel.shape[-1],
    outputs=lambda kernel: kernel.shape[-2],
)
DEPTHWISE = Form(
    scale_outputs=lambda kernel, s: kernel * s.reshape(kernel.shape[-2:]),
    scale_inputs=lambda kernel, s, _groups: kernel * s[:, None],
    shift_through=lambda kernel, b, _groups: (_taps(kernel) * b[:, None]).reshape(-1),
    inputs=lambda kernel, _groups: kernel.shape[-2],
    outputs=lambda kernel: kernel.shape[-2] * kernel.shape[-1],
)


def largest_by_output(kernel: Array, form: Form) -> Array:
    """Return the largest weight, by amount, of each output channel."""
    taps = _largest_of_taps(kernel)
    return taps.reshape(-1) if form is DEPTHWISE else np.asarray(taps.max(axis=0 if form is DENSE else 1))


def largest_by_input(kernel: Array, form: Form, groups: int) -> Array:
    """Return the largest weight, by amount, that reads each input channel.

    Raises:
        Refusal: the kernel is grouped.
    """
    if groups > 1:
        raise Refusal("its kernel is grouped")
    return np.asarray(_largest_of_taps(kernel).max(axis=0 if form is TRANSPOSED else 1))


def _largest_of_taps(kernel: Array) -> Array:
    return np.asarray(np.abs(kernel).max(axis=tuple(range(kernel.ndim - 2))))


@dataclass
class Stack:
    """The kernels of one layer, applied one after the other, and the bias of the last."""

    forms: tuple[Form, ...]
    kernels: list[Array]
    bias: Array | None
    groups: int = 1

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.forms[0].inputs(self.kernels[0], self.groups)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.forms[-1].outputs(self.kernels[-1])

    @property
    def takes_shift(self) -> bool:
        """Whether a shift before the layer can become a bias, where no zeros are padded in."""
        return all(form.shift_through is not None for form in self.forms)

    def absorb_after(self, s: Array, b: Array) -> None:
        """Make the layer return s·y + b where it returned y."""
        self.kernels[-1] = self.forms[-1].scale_outputs(self.kernels[-1], s)
        if self.bias is not None or np.any(b != 0):
            self.bias = s * (0.0 if self.bias is None else self.bias) + b

    def absorb_before(self, s: Array, b: Array) -> None:
        """Make the layer take x where it took s·x + b."""
        if np.any(b != 0):
            for form, kernel in zip(self.forms, self.kernels, strict=True):
                if form.shift_through is None:
                    raise Refusal("a shift before a transposed convolution changes with the position")
                b = form.shift_through(kernel, b, self.groups)
            self.bias = b if self.bias is None else self.bias + b
        self.kernels[0] = self.forms[0].scale_inputs(self.kernels[0], s, self.groups)
