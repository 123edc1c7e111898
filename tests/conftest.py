"""Where tests find real data, and a Keras home of their own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Keras reads this once, at import: its downloads and settings must not be those of whoever runs the tests.
KERAS_HOME = tempfile.mkdtemp(prefix="keras-home-")
os.environ["KERAS_HOME"] = KERAS_HOME
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the processes that train: then both compute the same


# Two processes take file after file: those that last longest come first, so that none is left with one at the end.
LONGEST = (
    "cli",
    "model_export",
    "tiny",
    "tuner",
    "targets",
    "runner",
    "processes",
    "space_exports",
    "search_spaces",
    "framing",
    "foreign",
    "compression",
    "killed",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_unconfigure() -> None:
    shutil.rmtree(KERAS_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def keras_settings() -> Iterator[None]:
    """Fail the test that leaves Keras with other settings than it found: the next ones would compute in them."""
    yield
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        left = keras.config.floatx(), keras.config.dtype_policy().name, keras.config.image_data_format()
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
        assert left == ("float32", "float32", "channels_last")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds data/trashnet150 and data/cifar10_sample_png."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("EDGEML_TEST_DATA", root.parent / "shared"))
    missing = [name for name in ("trashnet150", "cifar10_sample_png") if not (folder / "data" / name).is_dir()]
    if missing:
        reason = f"{folder} has no data/{missing[0]}; EDGEML_TEST_DATA=FOLDER says where real data is"
        if os.environ.get("EDGEML_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
