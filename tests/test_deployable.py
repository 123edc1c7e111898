"""What a target cannot take is found before a search: layers of a space, and means of members."""

from unittest.mock import Mock

import keras
import numpy as np
import pytest
from foreign import SMALL_SPACE, install
from networks import pictures, randomise

from edgeml import exporting, plugins, recipe_file, scaling
from edgeml.errors import TargetError
from edgeml.runtimes import tflm as micro
from edgeml.search import deployable
from edgeml.search.space import Space, takes
from edgeml.targets import tflm
from edgeml.verbs import examine, make

L = keras.layers
SILENT = lambda event: None  # noqa: E731
needs_micro = pytest.mark.skipif(not micro.is_installed(), reason="the extra [micro] is not installed")
RECIPE = """
schema_version: 1
name: tiny
data: {{source: digits}}
search: {{space: {space}, max_trials: 1, epochs: 1}}
export: {{targets: [{targets}], precision: [int8]}}
ensemble: {{mean: {mean}, max_members: {members}}}
"""
BENT = (
    SMALL_SPACE
    + """
def operators(hp, input_shape, num_classes):
    bend = hp.Choice("bend", ["relu", "gelu"])
    return tuple(one._replace(activation=bend) if one.kind == "conv" else one
                 for one in network(hp, input_shape, num_classes).operators())
"""
)
PICKY = """
from edgeml.errors import TargetError

PRECISIONS = ("int8",)
NEEDS = {"int8": (("tflite", "int8"),)}

def check_installed():
    pass

def check_operators(operators):
    if any(one.kind == "conv" for one in operators):
        raise TargetError("picky int8: layer 'conv_0' (conv): it takes none. Change that layer.")

def check(source, model, layers):
    pass

def deploy(source, folder, golden):
    pass
"""


def recipe(targets="tflite, tflm", space="small", mean="auto", members=3):
    return recipe_file.parse(RECIPE.format(targets=targets, space=space, mean=mean, members=members), "r")


def space_of(name):
    return Space([name], (8, 8, 1), 10, scaling.rescale((0, 16)))


def test_a_layer_of_a_space_is_named_with_what_to_change(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "search_spaces", "bent", BENT)
    with pytest.raises(TargetError, match=r"^search.space: bent: tflm int8: layer 'conv_0' \(gelu\): TensorFlow Lite"
                       r" Micro has no int8 kernel for it\. Choose another `activation`") as raised:  # fmt: skip
        deployable.check(recipe(space="bent"), space_of("bent"))
    assert (raised.value.exit_code, "\n" in str(raised.value)) == (10, False)
    deployable.check(recipe("tflite, ethos_u", "bent"), space_of("bent"))
    deployable.check(recipe(space="bent"), Space(["bent"], (8, 8, 1), 10, scaling.rescale((0, 16)), ["bend=relu"]))


@pytest.mark.parametrize("name", plugins.names("search_spaces"))
def test_no_space_of_ours_is_refused(name):
    shape = {"images": (8, 8, 1), "windows": (49, 10), "vectors": (30,)}[takes(name)[0]]
    fitted = scaling.standardize(np.zeros(shape[-1]), np.ones(shape[-1]))
    deployable.check(recipe("tflite, onnx, tflm, ort, ethos_u", name), Space([name], shape, 4, fitted))


def test_a_mean_that_a_target_cannot_take_is_refused_and_not_chosen(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "search_spaces", "small", SMALL_SPACE)
    assert deployable.means(recipe("tflite")) == ("arithmetic", "geometric", "exponential")
    assert deployable.means(recipe()) == ("arithmetic", "geometric")
    deployable.check(recipe(), space_of("small"))
    deployable.check(recipe(mean="exponential", members=1), space_of("small"))
    said = r"^ensemble.mean: got exponential, which tflm cannot take; auto, arithmetic, geometric are allowed\."
    with pytest.raises(TargetError, match=said):
        deployable.check(recipe(mean="exponential"), space_of("small"))


@pytest.mark.parametrize("verb", ["search", "dry run"])
def test_a_search_and_its_rehearsal_refuse_before_anything_is_trained(verb, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "a", "search_spaces", "small", SMALL_SPACE)
    install(monkeypatch, tmp_path / "b", "targets", "picky", PICKY)
    monkeypatch.chdir(tmp_path)
    asked = recipe("picky")
    with pytest.raises(TargetError, match=r"^search.space: small: picky int8: layer 'conv_0'"):
        if verb == "search":
            make.search(asked, SILENT, Mock(), resume=False, overwrite=False)
        else:
            examine.dry_run(asked, SILENT)
    assert not (tmp_path / "runs/tiny").exists()


def checked(activation, folder):
    """What TensorFlow Lite Micro says of a network with an activation, behind ten layers."""
    inputs = x = keras.Input((6, 6, 2), name="pixels")
    for _ in range(10):
        x = L.Conv2D(2, 1)(x)
    x = L.GlobalAveragePooling2D()(L.Activation(activation, name="bent")(x))
    model = randomise(keras.Model(inputs, L.Dense(3, name="scores")(x)))
    (file,) = exporting.write(
        model, folder, ["tflite"], ["int8"], {"pixels": pictures(16, (6, 6, 2))}, lambda event: None
    )
    tflm.check(file.path, model, file.layers)


@needs_micro
def test_the_layer_whose_operator_has_no_kernel_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"^tflm int8: layer 'bent' \(EXP\)"):
        checked("exponential", tmp_path)


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("activation", [one for one in tflm.LACKS if one != "exp"])  # Keras' exponential
def test_what_is_refused_early_would_be_refused_late(activation, tmp_path):
    with pytest.raises(TargetError, match=r"^tflm int8: layer 'bent'"):
        checked(activation, tmp_path)


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize(
    "activation",
    ["relu", "relu6", "leaky_relu", "selu", "tanh", "sigmoid", "hard_sigmoid", "silu", "hard_silu", "softsign"],
)
def test_what_is_not_refused_early_is_taken(activation, tmp_path):
    checked(activation, tmp_path)
