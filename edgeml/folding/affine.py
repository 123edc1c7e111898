"""Affine maps x → s·x + b and what a kernel makes of them: NumPy in float64, no framework.

A map stands for one tensor without its batch axis: ``scale`` and ``shift`` have the tensor's rank, and each axis is
either full or, where the value does not change along it, 1. Batch normalization at inference is such a map:

    y = γ·(x - μ) / √(σ² + ε) + β        s = γ / √(σ² + ε),   b = β - μ·s

After a layer y = K·x + c it goes into the output channels:    s·y + b  =  (s·K)·x + (s·c + b)
Before one it goes into the input channels:            K·(s·x + b) + c  =  (K·s)·x + (c + K·b)

K·b is summed over all taps of the kernel, with the kernel as it was before s: exact only where each output sees every
tap, that is, where no zero is padded in. (Jacob et al. 2018, Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Shape = tuple[int | None, ...]


class Refusal(Exception):  # noqa: N818  (not a failure: the reason why a map stays where it is)
    """An exact fold does not exist here; the message says why."""


def array(values: Any) -> Array:
    """Read anything as float64, at least one-dimensional."""
    return np.atleast_1d(np.asarray(values, np.float64))


def compress(a: Array) -> Array:
    """Set every axis along which ``a`` is constant to size 1."""
    for axis in range(a.ndim):
        if a.shape[axis] > 1 and bool(np.all(a == a.take([0], axis))):
            a = a.take([0], axis)
    return a


def static(shape: Shape) -> tuple[int, ...]:
    """Return a shape whose sizes are all known."""
    known = tuple(size for size in shape if size is not None)
    if len(known) != len(shape):
        raise Refusal("its shape is not static")
    return known


@dataclass(frozen=True, eq=False)
class Affine:
    """x → scale·x + shift for one tensor without its batch axis."""

    scale: Array
    shift: Array

    @classmethod
    def per_channel(cls, scale: Array, shift: Array, rank: int, axis: int) -> Affine:
        """Place one value per channel on ``axis`` of a tensor of ``rank``."""
        shape = tuple(-1 if a == axis else 1 for a in range(rank))
        return cls(compress(array(scale).reshape(shape)), compress(array(shift).reshape(shape)))

    @property
    def rank(self) -> int:
        """Rank of the tensor, without its batch axis."""
        return self.scale.ndim

    @property
    def shifts(self) -> bool:
        """Whether any shift differs from 0."""
        return bool(np.any(self.shift != 0))

    def scale_only(self) -> Affine:
        """Return the same map without its shift."""
        return Affine(self.scale, np.zeros_like(self.shift))

    def after(self, first: Affine) -> Affine:
        """Return x → self(first(x))."""
        return Affine(compress(self.scale * first.scale), compress(self.scale * first.shift + self.shift))

    def channels(self, axis: int, count: int) -> tuple[Array, Array]:
        """Return scale and shift as ``count`` values along ``axis``.

        Raises:
            Refusal: they change along another axis too.
        """
        return _vector(self.scale, axis, count), _vector(self.shift, axis, count)

    def moved(self, source: tuple[int, int], target: tuple[int, int]) -> Affine:
        """Move a per-channel map from (rank, channel axis) ``source`` to ``target``."""
        scale, shift = (_vector(a, source[1], a.shape[source[1]]) for a in (self.scale, self.shift))
        return Affine.per_channel(scale, shift, *target)

    def reshaped(self, source: Shape, target: Shape) -> Affine:
        """Follow a reshape of the tensor from ``source`` to ``target``."""
        if self.scale.size == self.shift.size == 1:
            return Affine(self.scale.reshape((1,) * len(target)), self.shift.reshape((1,) * len(target)))
        old, new = static(source), static(target)
        return self._map(lambda a: compress(np.broadcast_to(a, old).reshape(new)))

    def transposed(self, order: Sequence[int]) -> Affine:
        """Follow a permutation: axis i of the result is axis ``order[i]``."""
        return self._map(lambda a: a.transpose(order))

    def split(self, axis: int, sizes: Sequence[int]) -> list[Affine]:
        """Cut along ``axis`` into pieces of ``sizes``."""
        ends = np.cumsum(sizes)
        return [
            self._map(lambda a, cut=slice(end - size, end): compress(a[_at(a, axis, cut)] if a.shape[axis] > 1 else a))
            for size, end in zip(sizes, ends, strict=True)
        ]

    def embedded(self, axis: int, sizes: Sequence[int], index: int) -> Affine:
        """Widen piece ``index`` of a concatenation along ``axis``; the other pieces stay as they are."""

        def widen(a: Array, neutral: float) -> Array:
            shape = [size if at != axis else sum(sizes) for at, size in enumerate(a.shape)]
            wide = np.full(shape, neutral)
            start = sum(sizes[:index])
            wide[_at(a, axis, slice(start, start + sizes[index]))] = a
            return compress(wide)

        return Affine(widen(self.scale, 1.0), widen(self.shift, 0.0))

    def _map(self, function: Any) -> Affine:
        return Affine(function(self.scale), function(self.shift))


def _at(a: Array, axis: int, cut: slice) -> tuple[slice, ...]:
    return tuple(cut if at == axis else slice(None) for at in range(a.ndim))


def _vector(a: Array, axis: int, count: int) -> Array:
    if any(size != 1 for at, size in enumerate(a.shape) if at != axis):
        raise Refusal("it changes along an axis that is not the channel axis there")
    return np.ascontiguousarray(np.broadcast_to(a.reshape(-1), (count,)))
