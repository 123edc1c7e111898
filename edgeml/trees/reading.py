"""scikit-learn's fitted models as plain trees.

    random forest         p      = Σ leaf / T            leaf: shares of the classes (K)
    gradient boosting     logits = baseline + Σ leaf     leaf: one number of one class; two classes have one logit

1/T and the baseline are taken into the leaves. Read from ``tree_`` and from ``_predictors`` (scikit-learn 1.9; the
latter is not public, and only there are the trees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, UsageError

Float = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes (M,); root first: ``x[features] <= thresholds`` goes ``left``, which is -1 at leaves; ``values`` (M, J)."""

    features: Integers
    thresholds: Float
    left: Integers
    right: Integers
    values: Float


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees, group by group. ``averages``: they add up to probabilities, else to logits (two classes: to one)."""

    trees: tuple[Tree, ...]
    groups: int
    averages: bool
    features: int
    classes: int


def read(estimator: Any) -> Forest:
    """Return the trees of a fitted classifier.

    Raises:
        UsageError: another kind of model, not fitted, of several outputs, or with categorical features.
        DataError: classes that are not 0, 1, … K - 1.
    """
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier

    is_boosting = isinstance(estimator, HistGradientBoostingClassifier)
    name = type(estimator).__name__
    if not (is_boosting or isinstance(estimator, (RandomForestClassifier, ExtraTreesClassifier))):
        allowed = "RandomForestClassifier, ExtraTreesClassifier and HistGradientBoostingClassifier"
        raise UsageError(f"trees: got {name}; {allowed} are allowed. Fit one of them.")
    if not hasattr(estimator, "classes_"):
        raise UsageError(f"trees: {name} is not fitted; a fitted one is due. Call fit(x, y).")
    if isinstance(estimator.classes_, list):
        raise UsageError(f"trees: {name} has {len(estimator.classes_)} outputs; one is allowed. Fit one for each.")
    check_classes(estimator.classes_)
    return _boosting(estimator) if is_boosting else _forest(estimator)


def check_classes(classes: Any) -> None:
    """Refuse labels that are not class indices.

    Raises:
        DataError: a class is missing, or there is only one.
    """
    found = np.asarray(classes)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        shown = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
        raise DataError(f"trees: labels {shown}; 0, 1, … up to K - 1 are due, two or more. Number the classes so.")


def _forest(estimator: Any) -> Forest:
    count = len(estimator.estimators_)
    trees = []
    for one in (member.tree_ for member in estimator.estimators_):
        shares = one.value[:, 0, :] / one.value[:, 0, :].sum(axis=1, keepdims=True)
        trees.append(_tree(one.feature, one.threshold, one.children_left, one.children_right, shares / count))
    return Forest(tuple(trees), 1, True, int(estimator.n_features_in_), len(estimator.classes_))


def _boosting(estimator: Any) -> Forest:
    if estimator.is_categorical_ is not None:
        raise UsageError(
            "trees: HistGradientBoostingClassifier splits by categories; numbers are allowed. Leave"
            " categorical_features out."
        )
    rounds = estimator._predictors  # one list per iteration, a tree for each logit
    trees = [_boosted(one, baseline) for one, baseline in zip(_by_logit(rounds), _baselines(estimator), strict=True)]
    return Forest(tuple(trees), len(rounds[0]), False, int(estimator.n_features_in_), len(estimator.classes_))


def _by_logit(rounds: Sequence[Sequence[Any]]) -> list[Any]:
    return [one.nodes for trees in zip(*rounds, strict=True) for one in trees]


def _baselines(estimator: Any) -> list[float]:
    """Return what is added to each tree: the baseline of a logit to its first one."""
    rounds = len(estimator._predictors)
    return [float(b) if i == 0 else 0.0 for b in np.ravel(estimator._baseline_prediction) for i in range(rounds)]


def _boosted(nodes: Any, baseline: float) -> Tree:
    is_leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return _tree(nodes["feature_idx"], nodes["num_threshold"], left, right, nodes["value"][:, None] + baseline)


def _tree(features: Any, thresholds: Any, left: Any, right: Any, values: Any) -> Tree:
    return Tree(
        np.asarray(features, np.int64), np.asarray(thresholds, np.float64), np.asarray(left, np.int64),
        np.asarray(right, np.int64), np.asarray(values, np.float64),
    )  # fmt: skip
