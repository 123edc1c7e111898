"""scikit-learn's bundled tables as vectors: small, real, and there without a download.

    breast_cancer  569 x 30, 2 classes     wine    178 x 13, 3 classes
    iris           150 x 4, 3 classes      digits  1,797 x 64, 10 classes (as numbers, their places forgotten)

Source: the UCI Machine Learning Repository; of each table, scikit-learn's ``DESCR``.
"""

from __future__ import annotations

import numpy as np

from edgeml.data import Dataset
from edgeml.errors import RecipeError
from edgeml.plugins import did_you_mean
from edgeml.recipe import Data

REQUIRES = ("name",)

NAMES = ("breast_cancer", "digits", "iris", "wine")


def load(config: Data) -> Dataset:
    """Load the table; it gives no test split.

    Raises:
        RecipeError: scikit-learn has no such table.
    """
    from sklearn import datasets

    name = config.name or ""
    if name not in NAMES:
        raise RecipeError(
            f"data.name: {name}; {', '.join(NAMES[:-1])} or {NAMES[-1]} is allowed.{did_you_mean(name, list(NAMES))}"
        )
    bunch = getattr(datasets, f"load_{name}")()
    x = bunch.data.astype(np.float32)
    return Dataset(
        x=x,
        y=bunch.target.astype(np.int64),
        labels=tuple(str(label) for label in bunch.target_names),
        value_range=(float(x.min()), float(x.max())),
        columns=tuple(map(str, bunch.feature_names)),
        meaning=f"{x.shape[1]} features, {bunch.feature_names[0]} to {bunch.feature_names[-1]}",
    )
