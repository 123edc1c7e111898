"""Which trees are tried: every size whose bound is within budget is fitted, the best of each kind stay.

A size limits number and depth of trees, so what it can become at most is known before it is fitted. Boosting does not
stop early: the number of rounds is part of the size, and the sizes are compared on the validation split anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import costs
from edgeml.errors import DataError
from edgeml.operators import Operator
from edgeml.precisions import DEFAULT_FILES, File
from edgeml.records import Budget, Cost, Event
from edgeml.trees.graph import bound, check_kind, operators
from edgeml.trees.reading import check_classes

Arrays = tuple[NDArray[Any], NDArray[Any]]
OnEvent = Callable[[Event], None]
KEPT = 2  # of each kind
ONE_THREAD_BELOW = 2_000_000  # values: threads of OpenMP that wait for each other take minutes on a busy machine


def _forests(*sizes: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    return tuple({"n_estimators": trees, "max_depth": depth} for trees, depth in sizes)


def _boosted(*sizes: tuple[int, int, float]) -> tuple[dict[str, Any], ...]:
    return tuple({"max_iter": n, "max_depth": depth, "learning_rate": rate} for n, depth, rate in sizes)


SIZES: dict[str, tuple[dict[str, Any], ...]] = {  # of each kind, from tiny to fifty trees
    "random_forest": _forests((5, 3), (10, 3), (10, 4), (20, 4), (50, 4), (20, 5), (50, 5), (50, 6)),
    "hist_gradient_boosting": _boosted(
        (5, 2, 0.5), (10, 2, 0.3), (10, 3, 0.3), (20, 2, 0.3), (20, 3, 0.2), (50, 2, 0.2), (50, 3, 0.1), (50, 4, 0.1)
    ),
}
KINDS = tuple(SIZES)


@dataclass(frozen=True)
class TreeCandidate:
    """Trees that were fitted within budget. ``id``: as in ``t_random_forest_1``, numbered by the table of sizes.

    ``metrics``: ``val_loss`` (log-loss) and ``val_accuracy``.
    """

    id: str
    kind: str
    hyperparameters: Mapping[str, Any]
    cost: Cost
    metrics: Mapping[str, float]
    seconds: float


def fit(kind: str, hyperparameters: Mapping[str, Any], x: NDArray[Any], y: NDArray[Any], seed: int = 0) -> Any:
    """Fit one size to inputs (N, …), flattened and rounded to float32, and labels 0 … K - 1.

    Raises:
        UsageError: an unknown kind. DataError: other labels, or inputs that are not finite.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    check_kind(kind)
    check_classes(np.unique(y))
    rows = flat(x)
    if not np.all(np.isfinite(rows)):
        raise DataError("trees: inputs hold NaN or infinite values; finite ones are due. Fill them in.")
    if kind == "random_forest":
        return RandomForestClassifier(**hyperparameters, random_state=seed).fit(rows, y)
    options = {**hyperparameters, "max_leaf_nodes": None, "early_stopping": False}
    with _few_threads(rows):
        return HistGradientBoostingClassifier(**options, random_state=seed).fit(rows, y)


def _few_threads(rows: NDArray[np.float32]) -> AbstractContextManager[Any]:
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1 if rows.size < ONE_THREAD_BELOW else None, "openmp")
    return limits


def flat(x: NDArray[Any]) -> NDArray[np.float32]:
    """Return inputs (N, …) as scikit-learn takes them, (N, F)."""
    return np.asarray(x, np.float32).reshape(len(x), -1)


def candidates(
    kinds: Sequence[str],
    train: Arrays,
    validation: Arrays,
    budget: Budget,
    *,
    seed: int = 0,
    files: Sequence[File] = DEFAULT_FILES,
    keep: int = KEPT,
    on_event: OnEvent = lambda event: None,
) -> list[tuple[TreeCandidate, Any]]:
    """Fit every size of ``kinds`` that is within ``budget``, and return the best ``keep`` of each kind, fitted.

    Best is the least log-loss on ``validation``. Nothing is returned of a kind whose smallest size is over budget.
    Limits of latency are not judged here: they need the compiled graph.

    Raises:
        UsageError: an unknown kind. DataError: labels that are not 0 … K - 1, or inputs that are not finite.
    """
    found = list[tuple[TreeCandidate, Any]]()
    for kind in kinds:
        check_kind(kind)
        fitted = list[tuple[TreeCandidate, Any]]()
        features, classes = flat(train[0][:1]).shape[1], len(np.unique(train[1]))
        for number, size in enumerate(SIZES[kind], 1):
            if _fits(bound(kind, size, features, classes), budget, files):
                fitted.append(_fitted(f"t_{kind}_{number}", kind, size, train, validation, seed, files))
                on_event(Event("trees", fitted[-1][0].id, fitted[-1][0].metrics))
        found += sorted(fitted, key=lambda one: one[0].metrics["val_loss"])[:keep]
    return found


def _fits(of: Sequence[Operator], budget: Budget, files: Sequence[File]) -> bool:
    return not budget.violations(costs.charged(costs.cost(of, files)))


def _fitted(
    name: str, kind: str, size: Mapping[str, Any], train: Arrays, validation: Arrays, seed: int, files: Sequence[File]
) -> tuple[TreeCandidate, Any]:
    start = time.monotonic()
    estimator = fit(kind, size, *train, seed)
    seconds = time.monotonic() - start
    rows = flat(validation[0])
    with _few_threads(rows):
        metrics = _metrics(estimator.predict_proba(rows), validation[1])
    return TreeCandidate(name, kind, size, costs.cost(operators(estimator), files), metrics, seconds), estimator


def _metrics(probabilities: NDArray[np.float64], labels: NDArray[Any]) -> dict[str, float]:
    said = np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)  # as in edgeml.ensemble
    right = probabilities.argmax(axis=1) == labels
    return {"val_loss": float(-np.log(said).mean()), "val_accuracy": float(right.mean())}
