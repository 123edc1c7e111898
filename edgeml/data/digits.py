"""scikit-learn's digits: 1,797 handwritten digits, 8x8 grey, values 0..16; it comes with the package, no download.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
"""

from __future__ import annotations

import numpy as np

from edgeml.data import Dataset
from edgeml.recipe import Data


def load(config: Data) -> Dataset:
    """Load the 1,797 digits; the source gives no test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        x=bunch.images[..., None].astype(np.float32),
        y=bunch.target.astype(np.int64),
        labels=tuple(str(name) for name in bunch.target_names),
        value_range=(0.0, 16.0),
    )
