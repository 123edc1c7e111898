"""Where two models part: their intermediate tensors side by side, layer by layer, and the first that differs too much.

    Keras    stem ─ act_1 ─ middle ─ act_3 ─ …        names of layers
    file     Conv_1 ─ Relu_2 ─ Conv_3 ─ Relu_4 ─ …    a node is known by the layers that it was made of

A tensor of a file may be of several layers (a convolution with its activation); it is compared with that of them which
it is nearest to, in the layout that it is nearest in. A file whose tensors have no such names is matched by order and
shape. Errors of float files are shares of the range of the layer's output; those of integer files, signal to noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.parity import FLOATS, LAYER, measure
from edgeml.recipe import Verify
from edgeml.runtimes import Arrays, Loaded, Made
from edgeml.runtimes.keras import leaves
from edgeml.targets._scopes import layers_of

MOST_ROWS = 64
MOST_BYTES = 2**28  # of all intermediate tensors together
SHARE, DECIBELS = "share of the output range", "SQNR in dB, at least"
KERNELS = ("kernel", "depthwise_kernel")


@dataclass(frozen=True)
class LayerError:
    """How far one tensor of a file is from that of a Keras layer; the ranges are those of the reference.

    ``error`` and ``limit`` are in the unit that ``measure`` names; ``node`` is the file's name for the tensor.
    """

    file: str
    layer: str
    operator: str
    node: str
    input_range: tuple[float, float]
    output_range: tuple[float, float]
    measure: str
    error: float
    limit: float
    is_within: bool


def table(
    model: Any,
    reference: Loaded,
    file: str,
    opened: Loaded,
    inputs: Arrays,
    precision: str,
    gates: Verify,
    layers: Mapping[str, Sequence[str]] | None = None,
) -> list[LayerError]:
    """Compare what the layers of a Keras model make of some of ``inputs`` with what the operators of a file make.

    Args:
        model: the folded Keras model, of which layers are looked up by name.
        reference: the same model, opened.
        file: name of the file.
        opened: the file in its runtime.
        inputs: by name, (N, …); the first rows are taken, as many as memory should hold.
        precision: that of the file.
        gates: what a layer is held to, as the outputs are.
        layers: those of each node of the file, where names of tensors do not say them.

    Returns:
        One row per layer that was found in the file, in the order of computation; none where a runtime hides tensors.
    """
    fed = _some(reference, inputs)
    keras, own = reference.layers(fed), opened.layers(fed)
    if not keras or not own:
        return []
    pairs = _paired(own, keras, [layers.get(m.name, ()) if layers else layers_of(model, m.name) for m in own])
    kernels = {name for name, layer in leaves(model).items() if any(hasattr(layer, kernel) for kernel in KERNELS)}
    found: dict[int, LayerError] = {}
    for made, places, names in pairs:
        row, place = min(
            ((_row(file, made, keras[place], precision, gates), place) for place in places),
            key=lambda one: _badness(one[0]),
        )
        computes = next((name for name in (keras[place].name, *names) if name in kernels), keras[place].name)
        if place not in found or _badness(row) < _badness(found[place]):
            found.pop(place, None)
            found[place] = _of(row, computes)
    rows = list(found.values())
    return [row for row in rows if not _is_made_up_for(row, rows, own)] if precision in FLOATS else rows


def folding_table(trained: Any, folded: Any, first: Loaded, second: Loaded, inputs: Arrays) -> list[LayerError]:
    """Compare a trained model with its folded one at the layers without weights, which both have.

    A row names the layer with weights before it.
    """
    fed = _some(first, inputs)
    plain = {name for name, layer in leaves(trained).items() if not layer.weights}
    weighted = {name for name, layer in leaves(folded).items() if layer.weights}
    want = {made.name: made for made in first.layers(fed) or () if made.name in plain}
    found, last = [], ""
    for made in second.layers(fed) or ():
        last = made.name if made.name in weighted else last
        if made.name in want and made.values.shape == want[made.name].values.shape:
            found.append(_of(_row("model.keras", made, want[made.name], "float32", Verify()), last or made.name))
    return found


def first_diverging(rows: Sequence[LayerError]) -> LayerError | None:
    """Return the first row that is not within its limit; where all are, the one at which the error grows most."""
    if not rows:
        return None
    outside = next((row for row in rows if not row.is_within), None)
    if outside is not None:
        return outside
    before = [None, *rows[:-1]]
    return max(zip(rows, before, strict=True), key=lambda pair: _growth(*pair))[0]


def told(row: LayerError) -> str:
    """Say it in one line."""
    figure = f"{row.error:.1e} of its range" if row.measure == SHARE else f"SQNR {row.error:.1f} dB"
    limit = f"{row.limit:.0e}" if row.measure == SHARE else f"{row.limit:g} dB"
    low, high = row.output_range
    is_plain = row.node != row.layer and not set("/;") & set(row.node)  # not a path of scopes
    where = f"{row.operator} {row.node}" if is_plain else row.operator
    return f"layer '{row.layer}' ({where}): {figure}, limit {limit}; output {low:.3g} to {high:.3g}"


def _some(model: Loaded, inputs: Arrays) -> Arrays:
    """Return as many first rows as all tensors of them should fit into memory."""
    one = model.layers({name: values[:1] for name, values in inputs.items()}) or []
    taken = sum(made.values.nbytes for made in one)
    rows = max(1, min(MOST_ROWS, MOST_BYTES // max(taken, 1)))
    return {name: values[:rows] for name, values in inputs.items()}


Pair = tuple[Made, list[int], Sequence[str]]  # a tensor of the file, places of layers of Keras, names of its layers


def _paired(own: Sequence[Made], keras: Sequence[Made], named: Sequence[Sequence[str]]) -> list[Pair]:
    by_name: dict[str, list[int]] = {}
    for place, made in enumerate(keras):
        by_name.setdefault(made.name, []).append(place)
    found: list[Pair] = []
    for made, known in zip(own, named, strict=True):
        names = [name for name in known if name in by_name]
        places = [place for name in names for place in by_name[name] if _fits(made, keras[place])]
        if places:
            found.append((made, places, names))
    return found or _by_order(own, keras)


def _by_order(own: Sequence[Made], keras: Sequence[Made]) -> list[Pair]:
    """Match every layer to the next tensor of the file that has its shape."""
    found: list[Pair] = []
    at = 0
    for place, layer in enumerate(keras):
        there = next((i for i in range(at, len(own)) if _fits(own[i], layer)), None)
        if there is not None:
            found.append((own[there], [place], (layer.name,)))
            at = there + 1
    return found


def _fits(made: Made, layer: Made) -> bool:
    return next(_laid_out(made.values, layer.values.shape), None) is not None


def _is_made_up_for(row: LayerError, rows: Sequence[LayerError], own: Sequence[Made]) -> bool:
    """Tell whether all that is computed from a tensor out of its limit is within: then it is another tensor.

    A converter may add the bias of a layer behind the next one.
    """
    if row.is_within:
        return False
    by_node = {one.node: one for one in rows}
    readers: dict[str, list[str]] = {}
    for made in own:
        for name in made.reads:
            readers.setdefault(name, []).append(made.name)
    ahead, seen, after = list(readers.get(row.node, ())), {row.node}, []
    while ahead:
        name = ahead.pop()
        if name in by_node:
            after.append(by_node[name])
        elif name not in seen:
            ahead += readers.get(name, ())
        seen.add(name)
    return bool(after) and all(one.is_within for one in after)


def _laid_out(values: NDArray[np.float32], shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Yield the tensor in every layout that has ``shape``: as it is, channels moved to the end, sizes of 1 left out."""
    if values.shape == shape:
        yield values
    if values.ndim >= 3:
        moved = np.moveaxis(values, 1, -1)
        if _without_ones(moved.shape) == _without_ones(shape):
            yield moved.reshape(shape)
    if values.shape != shape and _without_ones(values.shape) == _without_ones(shape):
        yield values.reshape(shape)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0] if shape else 1, *(size for size in shape[1:] if size != 1))


def _row(file: str, made: Made, layer: Made, precision: str, gates: Verify) -> LayerError:
    want = layer.values.astype(np.float64)
    seen = [measure(want, values.astype(np.float64), LAYER) for values in _laid_out(made.values, want.shape)]
    if precision in FLOATS:
        error, limit = min(one.range_error for one in seen), gates.of(precision, "max_range_error") or 0.0
        is_within, name = error <= limit, SHARE
    else:
        error, limit = max(one.sqnr_db for one in seen), gates.of(precision, "min_sqnr_db") or 0.0
        is_within, name = error >= limit, DECIBELS
    ends = (float(want.min()), float(want.max())) if want.size else (0.0, 0.0)
    return LayerError(file, layer.name, made.operator, made.name, made.input_range, ends, name, error, limit, is_within)


def _of(row: LayerError, layer: str) -> LayerError:
    return LayerError(**{**vars(row), "layer": layer})


def _badness(row: LayerError) -> float:
    return row.error if row.measure == SHARE else -row.error


def _growth(row: LayerError, before: LayerError | None) -> float:
    """Return by how much a row is worse than the one before: decibels, or a logarithm of shares."""
    if row.measure == DECIBELS:
        return (before.error if before else 0.0) - row.error
    tiny = 1e-7  # a rounding of float32
    return float(np.log10((row.error + tiny) / ((before.error if before else 0.0) + tiny)))
