"""The door of TensorFlow Model Optimization (tfmot), which knows Keras 2 alone and asks for it by the environment.

tfmot 0.8.1 sets TF_USE_LEGACY_KERAS for the whole process when it is imported. It needs that during its import only:
afterwards the environment is put back, so that child processes see nothing of it. ``tf.keras``, which we do not use, is
one or the other Keras from its first use on: it is used once before tfmot comes, and so means to code of others what it
would without us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from edgeml.errors import UsageError

NEEDS = {"tensorflow": "tensorflow", "tf_keras": "tf_keras",
         "tensorflow_model_optimization": "tensorflow-model-optimization"}  # fmt: skip


def load() -> Any:
    """Import tfmot and return it.

    Raises:
        UsageError: it, tf_keras or TensorFlow is not installed.
    """
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise UsageError(
            f"compression: {', '.join(missing)} not installed. `pip install {' '.join(missing)}`, then run this again;"
            " export without compression works as it is."
        )
    with environment_kept():
        import tensorflow

        tensorflow.keras.Model  # noqa: B018  (settles it)
        import tensorflow_model_optimization as tfmot
    return tfmot


@contextmanager
def environment_kept() -> Iterator[None]:
    """Put ``os.environ`` back as it was."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def ours(name: str) -> str:
    """Return the name of a twin's layer as messages have it: ``separable_0__dw`` is ``separable_0/dw``."""
    return name.replace("__", "/")
