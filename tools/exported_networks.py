"""Random networks of every search space, folded and exported: what cost formulas are held against.

Each eighth is an ensemble of two. Images are rescaled in the graph, windows and vectors standardized.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeml import exporting, scaling
from edgeml.ensemble import compile_ensemble
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.operators import Operator
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space, of_kind

SHAPES = {  # how many: without a divisor in common with that of the spaces, so that each space meets all
    "images": ((28, 28, 1), (32, 32, 3), (48, 48, 3), (8, 8, 1), (64, 48, 1)),
    "windows": ((119, 6), (49, 10), (20, 1), (128, 3)),
    "vectors": ((30,), (4,), (13,), (64,)),
}
BUDGETS = (Budget(params=60_000, macs=6_000_000), Budget(params=300_000, macs=30_000_000))
ENSEMBLE_EVERY = 8
CALIBRATION = 8  # samples: ranges change no size


@dataclass(frozen=True)
class Exported:
    """One network: the space it is from, its operators, and its files by target and precision."""

    name: str
    operators: tuple[Operator, ...]
    files: dict[tuple[str, str], Path]


def exported(
    count: int, targets: tuple[str, ...], precisions: tuple[str, ...], seed: int = 0,
    kinds: Sequence[str] = ("images",),
) -> Iterator[Exported]:  # fmt: skip
    """Yield ``count`` networks, the spaces in turn; the files of one are gone when the next is asked for."""
    spaces = [(kind, name) for kind in kinds for name in of_kind(kind)]
    for number in range(count):
        kind, name = spaces[number % len(spaces)]
        names, shapes = of_kind(kind), SHAPES[kind]
        shape = shapes[number % len(shapes)]
        model = drawn(name, shape, BUDGETS[number // 2 % len(BUDGETS)], seed + number)
        if number % ENSEMBLE_EVERY == ENSEMBLE_EVERY - 1:
            other = names[number // ENSEMBLE_EVERY % len(names)]
            second = drawn(other, shape, BUDGETS[0], seed + number + 10)  # as many classes
            mean = ("arithmetic", "geometric")[number // ENSEMBLE_EVERY % 2]
            model, name = compile_ensemble([model, second], (0.6, 0.4), mean), f"{name} + {other}"
        folded = fold_batch_norm(model).model
        rng = np.random.default_rng(seed + number)
        samples = {model.inputs[0].name: rng.uniform(0, 255, (CALIBRATION, *shape)).astype("float32")}
        with tempfile.TemporaryDirectory() as folder:
            files = exporting.write(folded, Path(folder), targets, precisions, samples, lambda event: None)
            paths = {(file.target, file.precision): file.path for file in files}
            yield Exported(f"{number:2d} {name}", keras_operators(folded), paths)


def drawn(name: str, shape: tuple[int, ...], budget: Budget, seed: int) -> Any:
    """Draw a network within ``budget`` and give it random weights and statistics."""
    standardized = scaling.standardize(np.full(shape[-1], 120.0), np.full(shape[-1], 4_096.0))
    space = Space([name], shape, 2 + seed % 10, scaling.rescale((0, 255)) if len(shape) == 3 else standardized)
    judge = Feasibility(space.operators, budget, least_use=0.1)
    oracle = oracles.create(
        "random", accepts=judge.accepts, hyperparameters=space.hyperparameters(), max_trials=1, epochs=1, seed=seed + 1
    )
    model = space.model(oracle._random_values())
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        spread = 1 / np.sqrt(max(1.0, np.prod(weight.shape[:-1]))) if len(weight.shape) > 1 else 0.2
        positive = "variance" in weight.path or "gamma" in weight.path
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, spread, weight.shape))
    return model
