"""Splits: every sample goes to train, validation, blend or test; by class, by seed, copies together.

*train* fits weights, *validation* steers the search, *blend* fits ensemble weights, *test* is measured once. A split
gets its share of each class to within one sample, and its share of the whole to within one sample, both by largest
remainder in exact fractions; only where a class is so small that it would miss in a split does that come first.

Samples with identical bytes stay together. Held-out splits draw from what occurs once before they draw copies, so
copies land in train, and figures on the others count no picture twice. What bears two labels goes to train. Samples
that share measurements (``Dataset.groups``) stay together as copies do.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import recipe
from edgeml.data import Dataset
from edgeml.errors import DataError, RecipeError

GIVEN = "given"
CHUNK_SAMPLES = 1024  # standardization works through so many samples at a time, in float64

Indices = NDArray[np.int64]
Arrays = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Part:
    """One split: ``indices`` into the data in random order, samples per class name, SHA-256 of its x and y bytes."""

    indices: Indices
    per_class: Mapping[str, int]
    sha256_x: str
    sha256_y: str


@dataclass(frozen=True, eq=False)
class Partition:
    """Where each sample went. If ``test_given``, the indices of test count in the source's own test arrays."""

    seed: int
    parts: Mapping[str, Part]
    test_given: bool
    notes: tuple[str, ...] = ()

    def arrays(self, dataset: Dataset) -> dict[str, Arrays]:
        """Return (x, y) of each split, copied out of ``dataset``."""
        sources = {name: _source(dataset, name) for name in self.parts}
        return {name: (x[self.parts[name].indices], y[self.parts[name].indices]) for name, (x, y) in sources.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what ``splits.json`` records."""
        return {
            "seed": self.seed,
            "test_given": self.test_given,
            "notes": list(self.notes),
            "splits": {
                name: {
                    "samples": len(part.indices),
                    "per_class": dict(part.per_class),
                    "sha256": {"x": part.sha256_x, "y": part.sha256_y},
                    "indices": part.indices.tolist(),
                }
                for name, part in self.parts.items()
            },
        }


def split(dataset: Dataset, config: recipe.Splits, seed: int) -> Partition:
    """Split a data set, the same way for the same seed on every machine.

    A test split that the source gives is used where the recipe says ``given``, or leaves ``test`` at its default.

    Raises:
        RecipeError: the shares leave nothing for train, or ``test`` does not fit what the source gives.
        DataError: a class has fewer different samples than there are splits.
    """
    shares = _shares(dataset, config)
    rng = np.random.Generator(np.random.PCG64(seed))
    digests = _digests(dataset.x)
    first: dict[bytes, int] = {}
    groups = [first.setdefault(digest, index) for index, digest in enumerate(digests)]
    torn = _torn(groups, dataset.y)
    together = _together(groups, dataset.groups)
    dealt = _deal_all(dataset, together, _torn(together, dataset.y), shares, rng)
    notes = [*_copy_notes(dataset, groups, torn), *_given_notes(dataset, first, config)]
    if dataset.test is not None:
        dealt["test"] = list(range(len(dataset.test[1])))
    parts = {name: _part(dataset, name, rng.permutation(np.array(dealt[name], np.int64))) for name in dealt}
    return Partition(seed, parts, dataset.test is not None, tuple(notes))


def apportion(counts: Sequence[int], shares: Mapping[str, Fraction]) -> dict[str, list[int]]:
    """Return how many samples of each class every held-out split gets; train gets the rest.

    Where a class cannot give every split its rounded share, each split still gets one sample of it, train included;
    so each class needs as many samples as there are splits.
    """
    totals = _largest_remainder(sum(counts), [*shares.values(), 1 - sum(shares.values(), Fraction(0))])
    spare = [count - 1 for count in counts]  # train keeps one sample of each class
    owed = [Fraction(0)] * len(counts)  # what rounding took from a class so far: it is first in the next split
    quotas: dict[str, list[int]] = {}
    for place, (name, share) in enumerate(shares.items()):
        most = [left - (len(shares) - place - 1) for left in spare]  # the splits to come keep one each, too
        quota = _quota([share * count for count in counts], most, totals[place], owed)
        spare = [left - taken for left, taken in zip(spare, quota, strict=True)]
        owed = [debt + share * n - taken for debt, n, taken in zip(owed, counts, quota, strict=True)]
        quotas[name] = quota
    return quotas


def standardization(x_train: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (C,) and variance (C,) of each channel of training samples (N, …, C), in float64."""
    axes = tuple(range(x_train.ndim - 1))
    chunks = [x_train[start : start + CHUNK_SAMPLES] for start in range(0, len(x_train), CHUNK_SAMPLES)]
    values, zeros = x_train[..., 0].size, np.zeros(x_train.shape[-1])
    mean = sum((chunk.sum(axis=axes, dtype=np.float64) for chunk in chunks), start=zeros) / values
    return mean, sum((((chunk - mean) ** 2).sum(axis=axes) for chunk in chunks), start=zeros) / values


def _shares(dataset: Dataset, config: recipe.Splits) -> dict[str, Fraction]:
    """Return the share of each split that is drawn, train left out."""
    given, asked = dataset.test is not None, config.test
    if asked == GIVEN and not given:
        raise RecipeError("data.splits.test: given, but the source gives no test split; a share is needed. Try 0.2.")
    if given and asked not in {GIVEN, recipe.Splits().test}:
        raise RecipeError(
            f"data.splits.test: {asked}, but the source gives its own test split; only `given` is allowed then. "
            "Write `test: given`, or hand over the data in one piece."
        )
    drawn = {"validation": config.validation, "blend": config.blend} | ({} if given else {"test": asked})
    shares = {name: Fraction(str(share)) for name, share in drawn.items()}
    if sum(shares.values()) >= 1:
        listed = " + ".join(f"{name} {share}" for name, share in drawn.items())
        raise RecipeError(f"data.splits: {listed} leave nothing for train; together less than 1 is allowed. Lower one.")
    return shares


def _largest_remainder(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Divide ``total`` by ``shares`` (which sum to 1) into whole numbers, each within one of its exact share."""
    parts = [int(share * total) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda k: parts[k] - shares[k] * total)
    for k in by_remainder[: total - sum(parts)]:
        parts[k] += 1
    return parts


def _quota(ideal: Sequence[Fraction], most: Sequence[int], total: int, owed: Sequence[Fraction]) -> list[int]:
    """Round ``ideal`` to whole numbers from 1 to ``most`` that sum to ``total`` where these bounds allow it."""
    quota = [max(1, min(int(share), top)) for share, top in zip(ideal, most, strict=True)]
    missing = total - sum(quota)
    for k in sorted(range(len(ideal)), key=lambda k: (quota[k] - ideal[k], -owed[k], k)):
        if missing > 0 and quota[k] < ideal[k] and quota[k] < most[k]:
            quota[k] += 1
            missing -= 1
    return quota


def _digests(x: NDArray[Any]) -> list[bytes]:
    """Hash each sample."""
    return [hashlib.blake2b(sample.tobytes(), digest_size=16).digest() for sample in x]


def _together(copies: Sequence[int], groups: Sequence[int]) -> list[int]:
    """Join groups that hold copies of one sample; each is named by its first sample."""
    first_of: dict[int, int] = {}
    joined = list(copies)
    for index, group in enumerate(groups):
        ends = _root(joined, index), _root(joined, first_of.setdefault(group, index))
        joined[max(ends)] = min(ends)
    return [_root(joined, index) for index in range(len(joined))]


def _root(joined: Sequence[int], index: int) -> int:
    while joined[index] != index:
        index = joined[index]
    return index


def _torn(groups: Sequence[int], y: NDArray[np.int64]) -> set[int]:
    """Return the groups of identical samples that bear more than one label."""
    return {group for group, label in zip(groups, y.tolist(), strict=True) if label != y[group]}


def _deal_all(
    dataset: Dataset, groups: Sequence[int], torn: set[int], shares: Mapping[str, Fraction], rng: np.random.Generator
) -> dict[str, list[int]]:
    """Deal the samples of every class to train and to the splits of ``shares``."""
    units: dict[int, list[int]] = {}
    for index in rng.permutation(len(groups)).tolist():
        units.setdefault(groups[index], []).append(index)
    by_class: list[list[list[int]]] = [[] for _ in dataset.labels]
    for group, unit in units.items():
        if group not in torn:
            by_class[dataset.y[group]].append(unit)
    quotas = apportion(np.bincount(dataset.y, minlength=len(dataset.labels)).tolist(), shares)
    dealt: dict[str, list[int]] = {"train": [index for group in sorted(torn) for index in units[group]]}
    dealt |= {name: [] for name in shares}
    for k, label in enumerate(dataset.labels):
        _deal(label, deque(sorted(by_class[k], key=len)), {name: quotas[name][k] for name in shares}, dealt)
    return dealt


def _deal(label: str, units: deque[list[int]], quotas: Mapping[str, int], dealt: dict[str, list[int]]) -> None:
    """Deal the units of one class, fewest copies first: held-out splits up to their quota, the rest to train."""
    if len(units) <= len(quotas):
        raise DataError(
            f"splits: class '{label}' has {len(units)} different samples of one label (windows that overlap are one); "
            f"each of train, {', '.join(quotas)} needs one. Add samples that are no copies."
        )
    for place, (name, quota) in enumerate(quotas.items()):
        splits_to_come, taken = len(quotas) - place, units.popleft()
        while len(taken) < quota and len(units) > splits_to_come:
            taken = taken + units.popleft()
        dealt[name] += taken
    dealt["train"] += [index for unit in units for index in unit]


def _source(dataset: Dataset, name: str) -> Arrays:
    """Return the arrays that the indices of a split count in."""
    return dataset.test if name == "test" and dataset.test is not None else (dataset.x, dataset.y)


def _part(dataset: Dataset, name: str, indices: Indices) -> Part:
    """Record one split with its counts and hashes."""
    x, y = _source(dataset, name)
    hash_x = hashlib.sha256()
    for index in indices:
        hash_x.update(x[index].tobytes())
    counts = np.bincount(y[indices], minlength=len(dataset.labels)).tolist()
    hash_y = hashlib.sha256(y[indices].tobytes())
    return Part(indices, dict(zip(dataset.labels, counts, strict=True)), hash_x.hexdigest(), hash_y.hexdigest())


def _copy_notes(dataset: Dataset, groups: Sequence[int], torn: set[int]) -> list[str]:
    """Note samples that occur more than once, in one class or in several."""
    pairs = [(group, index) for index, group in enumerate(groups) if group != index]
    copies = [pair for pair in pairs if pair[0] not in torn]
    clashes = [(group, index) for group, index in pairs if dataset.y[group] != dataset.y[index]]
    notes = []
    if copies:
        notes.append(f"copies of other samples: {_listed(dataset, copies)}; copies stay in one split")
    if clashes:
        notes.append(
            f"identical samples of different classes: {_listed(dataset, clashes)}; all are in train: correct them"
        )
    return notes


def _listed(dataset: Dataset, pairs: Sequence[tuple[int, int]]) -> str:
    """Count pairs of identical samples and name the first three."""
    name = [*dataset.ids] or [f"sample {index}" for index in range(len(dataset.y))]
    return f"{len(pairs)} ({', '.join(f'{name[a]} = {name[b]}' for a, b in pairs[:3])}{', …' * (len(pairs) > 3)})"


def _given_notes(dataset: Dataset, known: Mapping[bytes, int], config: recipe.Splits) -> list[str]:
    """Note a test split that the source gives where a share was meant, and its samples that training may see."""
    if dataset.test is None:
        return []
    notes = []
    if config.test != GIVEN:
        notes.append(f"the source gives its own test split of {len(dataset.test[1])} samples; it is used")
    leaked = [index for index, digest in enumerate(_digests(dataset.test[0])) if digest in known]
    if leaked:
        notes.append(
            f"{len(leaked)} of {len(dataset.test[1])} given test samples also occur in the other splits (the first at "
            f"index {leaked[0]}): figures on test flatter by as much"
        )
    return notes
