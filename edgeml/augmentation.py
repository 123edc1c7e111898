"""Augmentation of training images: flip, shift, crop and rotation, in plain NumPy, whatever trains the network.

Flip and shift move whole pixels and are one gather. With crop or rotation on, everything is one affine map per sample,
from the pixel (i, j) of the result to the point (r, s) of the image that it shows, read bilinearly:

    (r, s) = A (i - (H-1)/2, j - (W-1)/2) + t + ((H-1)/2, (W-1)/2)     A = zoom · rotation · flip

Outside the image the nearest edge is repeated: no black borders that a network could learn from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.recipe import Augment

CHUNK_PIXELS = 16_384  # the affine gather works on so many pixels at a time, to stay in the processor's cache

Floats = NDArray[np.float32]


class Augmenter:
    """Changes each image of a batch at random; two with the same seed make the same changes."""

    def __init__(self, config: Augment, seed: int) -> None:
        self._config = config
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return a changed copy of ``x`` (N, H, W, C), of the same type and shape; ``x`` itself if all is off."""
        config, samples, size = self._config, len(x), np.array(x.shape[1:3])
        if config == Augment():
            return x
        flip = self._rng.random((samples, 2)) < 0.5
        flip &= np.array([config.flip in {"vertical", "both"}, config.flip in {"horizontal", "both"}])
        shift = self._rng.uniform(-config.shift, config.shift, (samples, 2)) * size
        if not (config.crop or config.rotation):
            return shifted(x, np.rint(shift).astype(np.int64), flip)
        kept = 1 - self._rng.uniform(0, config.crop, samples)
        window = self._rng.uniform(-0.5, 0.5, (samples, 2)) * (1 - kept)[:, None] * (size - 1)
        angle = np.deg2rad(self._rng.uniform(-config.rotation, config.rotation, samples))
        return warped(x, matrices(kept, angle, flip), shift + window)


def shifted(x: NDArray[Any], shift: NDArray[np.int64], flip: NDArray[np.bool_]) -> NDArray[Any]:
    """Show the image ``shift`` (N, 2) pixels further down and right, then mirror the axes of ``flip`` (N, 2)."""
    samples, height, width, channels = x.shape
    rows = _moved(height, shift[:, :1], flip[:, :1])
    columns = _moved(width, shift[:, 1:], flip[:, 1:])
    rows += np.arange(samples)[:, None] * height
    pixels = (rows * width)[:, :, None] + columns[:, None, :]
    moved: NDArray[Any] = x.reshape(-1, channels).take(pixels.ravel(), axis=0)
    return moved.reshape(x.shape)


def matrices(zoom: NDArray[np.float64], angle: NDArray[np.float64], flip: NDArray[np.bool_]) -> Floats:
    """Return A (N, 2, 2): mirror, turn by ``angle`` (radians), scale by ``zoom`` (below 1: the image is enlarged)."""
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return (turn * np.where(flip, -1.0, 1.0)[:, None, :]).astype(np.float32)


def warped(x: NDArray[Any], matrix: NDArray[Any], offset: NDArray[Any]) -> NDArray[Any]:
    """Apply one affine map per sample: A (N, 2, 2) and t (N, 2) in pixels."""
    step = max(1, CHUNK_PIXELS // (x.shape[1] * x.shape[2]))
    out = np.empty_like(x)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        values = _bilinear(x[part], *_points(x.shape[1:3], matrix[part], offset[part]))
        out[part] = np.rint(values) if x.dtype.kind in "ui" else values
    return out


def _moved(length: int, shift: NDArray[np.int64], flip: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, for each place of an axis, which place it shows (N, length)."""
    place = np.arange(length)
    place = np.where(flip, length - 1 - place, place) - shift
    return place.clip(0, length - 1)


def _points(size: tuple[int, ...], matrix: NDArray[Any], offset: NDArray[Any]) -> list[Floats]:
    """Return row and column (N, H, W) of the point that each pixel shows, within the image."""
    middle = [(length - 1) / 2 for length in size]
    i, j = (np.arange(length, dtype=np.float32) - centre for length, centre in zip(size, middle, strict=True))
    points = []
    for axis, length in enumerate(size):
        along = matrix[:, axis, :1] * i + (offset[:, axis, None] + middle[axis])
        point = along[:, :, None].astype(np.float32) + (matrix[:, axis, 1:] * j)[:, None, :].astype(np.float32)
        points.append(point.clip(0, length - 1))
    return points


def _bilinear(x: NDArray[Any], row: Floats, column: Floats) -> Floats:
    """Read ``x`` (N, H, W, C) at points (N, H, W) within the image."""
    samples, height, width, channels = x.shape
    edged = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge").astype(np.float32).reshape(-1, channels)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, right = (row - top).reshape(-1, 1).astype(np.float32), (column - left).reshape(-1, 1).astype(np.float32)
    first = (np.arange(samples) * (height + 1) * (width + 1))[:, None, None] + top * (width + 1) + left
    first = first.ravel()

    def between(pixel: NDArray[np.int64]) -> Floats:
        value: Floats = edged.take(pixel, axis=0)
        return value + (edged.take(pixel + 1, axis=0) - value) * right

    upper = between(first)
    return (upper + (between(first + width + 1) - upper) * down).reshape(x.shape)
