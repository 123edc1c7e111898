"""The image sets that Keras downloads by name: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100; uint8, test split given.

They are downloaded once into Keras' own folder (``~/.keras/datasets``). Where there is no internet, the same arrays in
a file do: ``--set data.source=npz --set data.path=FILE``.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

import numpy as np
from numpy.typing import NDArray

from edgeml import plugins
from edgeml.data import Dataset
from edgeml.errors import DataError, RecipeError
from edgeml.recipe import Data

REQUIRES = ("name",)

DIGITS = "0 1 2 3 4 5 6 7 8 9"
CLOTHES = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot"
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm"""
LABELS = {"mnist": DIGITS, "fashion_mnist": CLOTHES, "cifar10": CIFAR10, "cifar100": CIFAR100}  # in label order


def load(config: Data) -> Dataset:
    """Load the data set ``config.name``, downloading it if need be.

    Raises:
        RecipeError: no data set of this name.
        DataError: it cannot be downloaded or read.
    """
    name = config.name or ""
    if name not in LABELS:
        near = plugins.did_you_mean(name, list(LABELS))
        raise RecipeError(f"data.name: '{name}'; keras_dataset knows {', '.join(LABELS)}.{near}")
    try:
        module = importlib.import_module(f"keras.datasets.{name}")
        with contextlib.redirect_stdout(sys.stderr):  # Keras draws its progress bar on stdout
            (x, y), (x_test, y_test) = module.load_data()
    except Exception as error:  # Keras 3.15 raises a bare Exception when a download fails
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"keras_dataset {name}: not downloaded ({reason}); Keras fetches it once from the internet. "
            "Without internet: --set data.source=npz --set data.path=FILE"
        ) from error
    return Dataset(
        x=_images(x),
        y=y.ravel(),
        labels=tuple(LABELS[name].split()),
        value_range=(0.0, 255.0),
        test=(_images(x_test), y_test.ravel()),
    )


def _images(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give grey images (N, H, W) their channel axis."""
    return x[..., None] if x.ndim == 3 else x
