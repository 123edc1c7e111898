"""Layer by layer: tensors of files find the Keras layers that they are of, and the first that is wrong is named."""

import keras
import networks
import numpy as np
import onnx
import pytest
from networks import nudge, pictures, separable

from edgeml import divergence, exporting, recipe
from edgeml.divergence import DECIBELS, SHARE, LayerError
from edgeml.ensemble import compile_ensemble, fold_ensemble
from edgeml.folding import fold_batch_norm
from edgeml.precisions import OWN, PRECISIONS
from edgeml.runtimes import open_model
from edgeml.runtimes.keras import Reference

L = keras.layers
GATES = recipe.Verify()
X = {"pixels": pictures(40)}
WEIGHTED = ["stem", "depthwise", "middle", "separable", "hidden", "logits"]
SILENT = lambda event: None  # noqa: E731


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folded = fold_batch_norm(separable()).model
    folder = tmp_path_factory.mktemp("layers")
    return folded, exporting.write(folded, folder, [*OWN], [*PRECISIONS], X, SILENT)


def table(model, artifact, layers=True, inputs=X):
    known = artifact.layers if layers else {"none": ()}
    opened = open_model(artifact.path)
    return divergence.table(
        model, Reference(model), artifact.path.name, opened, inputs, artifact.precision, GATES, known or None
    )


@pytest.mark.parametrize("target", OWN)
def test_every_layer_with_weights_is_found_in_every_file(target, written):
    folded, artifacts = written
    for artifact in artifacts:
        if artifact.target != target:
            continue
        rows = table(folded, artifact)
        assert [row.layer for row in rows if row.layer in WEIGHTED] == WEIGHTED, artifact.path.name
        assert all(row.is_within for row in rows)
        if artifact.precision in ("float32", "float16"):
            assert max(row.error for row in rows) < GATES.of(artifact.precision, "max_range_error") / 2
            assert {row.measure for row in rows} == {SHARE}
        else:
            assert {row.measure for row in rows} == {DECIBELS}
            assert all(row.limit == GATES.of(artifact.precision, "min_sqnr_db") < row.error for row in rows)
        first = rows[0]
        assert first.operator.lower().startswith("conv")
        assert first.input_range == pytest.approx((0, 1), abs=0.01)
        assert first.output_range[1] > 1


def test_layers_stand_beside_the_file_where_names_do_not_say_them(written):
    _, artifacts = written
    by_name = {artifact.path.name: artifact for artifact in artifacts}
    assert by_name["model.onnx"].layers["Conv_5"] == ("middle",)
    assert by_name["model.onnx"].layers["Conv_3"] == ("depthwise",), "known by its bias alone"
    assert "act_3" in by_name["model_int8.onnx"].layers["Conv_14"]
    assert by_name["model.tflite"].layers == {}
    named = {node.name for node in onnx.load(by_name["model.onnx"].path).graph.node}
    assert set(by_name["model.onnx"].layers) <= named
    assert not [name for name in named if "middle" in name], "canonical names cost no bytes"


def test_the_first_layer_that_is_wrong_is_named_whatever_follows(written):
    folded, artifacts = written
    artifact = next(one for one in artifacts if one.path.name == "model.onnx")
    whole = artifact.path.read_bytes()
    nudge(artifact.path)
    try:
        rows, unnamed = table(folded, artifact), table(folded, artifact, layers=False)
    finally:
        artifact.path.write_bytes(whole)
    first = divergence.first_diverging(rows)
    assert (first.layer, first.operator, first.node, first.is_within) == ("middle", "Conv", "Conv_5", False)
    assert [row.layer for row in rows if not row.is_within][:3] == ["middle", "act_3", "shortcut"]
    assert [row.layer for row in rows if row.is_within] == ["stem", "act_1", "depthwise", "act_2"]
    assert divergence.told(first).startswith("layer 'middle' (Conv Conv_5): ")
    assert divergence.first_diverging(unnamed).layer == "middle", "matched by order and shape"


def test_a_bias_of_a_tflite_file_that_is_wrong_is_found(written, tmp_path):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    folded, artifacts = written
    model = schema.ModelT.InitFromPackedBuf(artifacts[0].path.read_bytes(), 0)
    node = model.subgraphs[0].operators[2]
    data = model.buffers[model.subgraphs[0].tensors[node.inputs[2]].buffer].data
    values = np.frombuffer(bytes(data), "<f4").copy()
    values[np.abs(values).argmax()] *= 1.01
    model.buffers[model.subgraphs[0].tensors[node.inputs[2]].buffer].data = np.frombuffer(values.tobytes(), "uint8")
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(builder.Output()))
    rows = divergence.table(folded, Reference(folded), path.name, open_model(path), X, "float32", GATES)
    first = divergence.first_diverging(rows)
    assert (first.layer, first.operator, first.is_within) == ("middle", "CONV_2D", False)


def test_models_inside_models_and_layers_called_twice(tmp_path):
    shared = L.Dense(6, name="shared")
    inner = keras.Sequential([keras.Input((8, 8, 4)), L.Conv2D(4, 3, padding="same", name="inside")], name="inner")
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = inner(L.Conv2D(4, 1, activation="tanh", name="first")(x))
    x = L.GlobalAveragePooling2D(name="mean")(x)
    model = networks.randomise(keras.Model(inputs, L.Dense(3, name="last")(shared(shared(L.Dense(6, name="wide")(x))))))
    samples = {"pixels": pictures(12, (8, 8, 3))}
    for artifact in exporting.write(model, tmp_path, ["tflite", "onnx"], ["float32"], None, SILENT):
        rows = table(model, artifact, inputs=samples)
        # the converter of TFLite adds a bias behind the next layer where nothing is between
        denses = ["shared"] if artifact.target == "tflite" else ["wide", "shared", "shared"]
        assert [row.layer for row in rows] == ["first", "inner/inside", "mean", *denses, "last"]
        assert all(row.is_within for row in rows)
    assert not [layer for layer in model._flatten_layers() if "call" in vars(layer)], "Keras is left as it was"


def test_as_many_rows_as_memory_should_hold(written, monkeypatch):
    folded, _ = written
    one = sum(made.values.nbytes for made in Reference(folded).layers({"pixels": X["pixels"][:1]}))
    for most, rows in ((10**9, 40), (3 * one, 3), (1, 1)):
        monkeypatch.setattr(divergence, "MOST_BYTES", most)
        assert len(divergence._some(Reference(folded), X)["pixels"]) == rows


def row(error, is_within=True, measure=SHARE):
    return LayerError("f", f"{error}", "Conv", "n", (0, 1), (0, 1), measure, error, 2e-5, is_within)


def test_without_a_layer_out_of_its_limit_the_largest_step_is_it():
    shares = [row(error) for error in (1e-7, 2e-7, 1.5e-5, 1.9e-5)]
    assert divergence.first_diverging(shares).error == 1.5e-5
    decibels = [row(error, measure=DECIBELS) for error in (40.0, 38.0, 20.0, 19.0)]
    assert divergence.first_diverging(decibels).error == 20.0
    assert divergence.first_diverging([row(40.0, measure=DECIBELS), row(39.0, measure=DECIBELS)]).error == 39.0
    assert divergence.first_diverging([]) is None


def test_layers_of_members_are_told_apart(tmp_path):
    """Members of one space have layers of the same names."""
    pair = [separable(seed=1), separable(seed=2)]
    folded = fold_ensemble(compile_ensemble(pair, (0.5, 0.5))).model
    samples = {folded.inputs[0].name: pictures(20)}
    for artifact in exporting.write(folded, tmp_path, ["tflite", "onnx"], ["float32"], None, SILENT):
        found = [row.layer for row in table(folded, artifact, inputs=samples) if row.layer.endswith("middle")]
        assert len(set(found)) == 2, found
    nudge(tmp_path / "model.onnx")
    first = divergence.first_diverging(table(folded, artifact, inputs=samples))
    assert (first.layer in found, first.is_within) == (True, False)
