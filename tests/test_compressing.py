"""What a recipe's compression does to the graph that ships, and what is said of it: files beside those of before."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from networks import L, pictures, randomise

from edgeml import assembly, compressing, descriptions, exporting, nameplates, recipe_file
from edgeml.assembly import Assembled
from edgeml.errors import RecipeError
from edgeml.stored_kernels import stored_kernels

SHAPE, CLASSES = (8, 8, 2), 4


def recipe(more=""):
    return recipe_file.parse(f"schema_version: 1\nname: x\ndata: {{source: digits}}\n{more}", "r.yaml")


def network(seed=0):
    """Convolutions and a dense layer with batch normalization, large enough for zeros to show in a packed file."""
    x = inputs = keras.Input(SHAPE, name="image")
    for number, width in enumerate((32, 32)):
        x = L.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv_{number}")(x)
        x = L.ReLU()(L.BatchNormalization(name=f"norm_{number}")(x))
    x = L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling2D()(x))
    return randomise(keras.Model(inputs, L.Softmax(name="probabilities")(x)), seed)


def halved(model):
    """The same with zeros for every other weight of the convolutions."""
    after = keras.models.clone_model(model)
    after.set_weights(model.get_weights())
    for name in ("conv_0", "conv_1"):
        layer = after.get_layer(name)
        layer.kernel.assign(np.where(np.arange(layer.kernel.shape[-2])[:, None] % 2, layer.kernel, 0))
    return after


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        name: (pictures(count, SHAPE, seed), rng.integers(0, CLASSES, count))
        for seed, (name, count) in enumerate({"train": 128, "validation": 32, "blend": 64}.items())
    }


def told(before, after, arrays, folder, asked):
    made = assembly.fold(after)
    calibration = {"image": arrays["train"][0]}
    files = exporting.write(
        made.folding.model, folder, asked.export.targets, asked.export.precision, calibration, lambda event: None
    )
    about = descriptions.of_model(made.folding.model, calibration, "NHWC", None)
    done = assembly.Compression(assembly.fold(before), ())
    return compressing.told(done, nameplates.put_on(files, about), asked, calibration, arrays["blend"], about)


def test_zeros_are_seen_in_packed_bytes_and_in_the_stored_kernels(arrays, tmp_path):
    model = network()
    said = told(model, halved(model), arrays, tmp_path, recipe())
    assert said["smaller"] == ["model.tflite", "model_int8.tflite", "model.onnx", "model_int8.onnx"]
    for row in said["files"]:
        assert row["after"]["bytes"] == pytest.approx(row["before"]["bytes"], rel=0.02)  # raw, a zero takes a byte too
        assert row["after"]["gzip_bytes"] < 0.9 * row["before"]["gzip_bytes"]
        assert row["after"]["interval_95"][0] <= row["after"]["accuracy"] <= row["after"]["interval_95"][1]
        assert row["after"]["quiet_ms"] > 0
    for file in said["kernels"]:
        by_name = {kernel["name"]: kernel for kernel in file["kernels"]}
        assert list(by_name) == ["conv_0", "conv_1", "logits"]
        assert by_name["conv_1"]["sparsity"] == pytest.approx(0.5, abs=0.01)
        assert by_name["logits"]["sparsity"] < 0.05


def test_where_nothing_was_gained_nothing_is_claimed(arrays, tmp_path):
    assert told(network(), network(), arrays, tmp_path, recipe())["smaller"] == []


def test_stored_kernels_of_int8_are_integers(arrays, tmp_path):
    files = exporting.write(
        assembly.fold(network()).folding.model, tmp_path, ["tflite"], ["int8"], {"image": arrays["train"][0]},
        lambda event: None,
    )  # fmt: skip
    for kernel in stored_kernels(files[0].path):
        assert 2 < kernel.distinct <= 255


def test_a_run_ships_what_it_compressed_and_keeps_the_graph_before(arrays):
    run = SimpleNamespace(recipe=recipe("compress: {prune: 0.5, cluster: 8, epochs: 1}\n"))
    graph, events = assembly.fold(network()), []
    after = compressing.compressed(run, Assembled(None, None, graph), arrays, events.append)
    assert after.compression.before is graph
    kernel = np.asarray(after.graph.folding.model.get_layer("conv_1").kernel)
    assert np.mean(kernel == 0) >= 0.49
    assert len(np.unique(kernel)) <= 8
    assert (after.graph.cost.params, after.graph.cost.macs) == (graph.cost.params, graph.cost.macs)
    assert [e.message for e in events if "of validation" in e.message][-1].startswith("cluster: 1 epochs")


def test_without_being_asked_nothing_is_compressed(arrays):
    assembled = Assembled(None, None, assembly.fold(network()))
    run = SimpleNamespace(recipe=recipe())
    assert compressing.compressed(run, assembled, arrays, lambda event: None) is assembled


BAD = {
    "prune: 0.99": "compress.prune: got the number 0.99",
    "prune: '4:8'": "compress.prune",
    "cluster: 2": "compress.cluster: got the number 2",
    "qat: 3": "compress.qat",
    "squeeze: 1": "squeeze",
}


@pytest.mark.parametrize("given", BAD)
def test_what_a_recipe_may_ask_for(given):
    with pytest.raises(RecipeError, match=BAD[given]):
        recipe(f"compress: {{{given}}}\n")


def test_trees_are_not_compressed():
    text = "compress: {prune: 0.5}\nensemble: {trees: [random_forest]}\nexport: {precision: float32}\n"
    with pytest.raises(RecipeError, match="which trees have no kernels for"):
        recipe(text)
