"""Latency from operators: planted coefficients are found, a stand-in is its network, shipped profiles are whole."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgeml import costs, exporting, scaling
from edgeml.devices import profile
from edgeml.devices.features import features
from edgeml.devices.fit import fit
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import TargetError
from edgeml.operators import Operator
from edgeml.search.space import Space, of_kind
from edgeml.tflite_operators import tflite_operators

SPACE = Space(("ds_cnn",), (16, 16, 1), 4, scaling.rescale((0, 255)))
NETWORKS = [SPACE.operators(values) for values in SPACE.drawn(60, 0)]
SHIPPED = sorted(Path(profile.__file__).parent.glob("*.toml"))
JUDGES = ("measured", "vela", "none")
STANDARDIZED = scaling.standardize(np.full(3, 120.0), np.full(3, 3600.0))


def planted(runtime, precision, block=8):
    """Latencies that a model of this runtime would have: a coefficient for each feature, none of them zero."""
    rows = [features(operators, runtime, precision, block) for operators in NETWORKS]
    coefficients = {name: 0.01 + 0.001 * number for number, name in enumerate(sorted({n for r in rows for n in r}))}
    return np.array([sum(coefficients[name] * value for name, value in row.items()) for row in rows])


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("onnxruntime", "float32"), ("onnxruntime", "int8"), ("litert", "float32"), ("vela", "int8")],
)
def test_a_model_that_is_true_is_found(runtime, precision):
    ms = planted(runtime, precision)
    found = fit(NETWORKS[:50], ms[:50], runtime, precision)
    made = profile.of_fit(
        found, name="p", description="", runtime=runtime, runtime_version="1", precision=precision, source="", key={}
    )
    errors = [abs(made.predict(operators).ms / t - 1) for operators, t in zip(NETWORKS[50:], ms[50:], strict=True)]
    assert np.median(errors) < 0.02
    assert np.quantile(errors, 0.9) < 0.1


def test_depthwise_kernels_of_litert_take_at_most_sixteen_channels():
    """Matrix products of AVX-512 take 32, and half of them for few channels; int8 has one block for all."""
    wide, narrow = (features(NETWORKS[0], "litert", "float32", block) for block in (32, 16))
    names = [name for name in wide if name.startswith("dw")]
    assert names
    assert [wide[name] for name in names] == [narrow[name] for name in names]
    assert (
        features(NETWORKS[0], "litert", "int8", 32)["dw3:mac"] > features(NETWORKS[0], "litert", "int8", 8)["dw3:mac"]
    )


def test_a_profile_comes_back_as_it_was(tmp_path):
    found = fit(NETWORKS[:20], planted("litert", "int8")[:20], "litert", "int8")
    made = profile.of_fit(
        found, name="p", description="d", runtime="litert", runtime_version="1", precision="int8", source="s",
        key={"threads": 1},
    )  # fmt: skip
    profile.write(made, tmp_path / "p.toml")
    again = profile.read(tmp_path / "p.toml")
    assert again.predict(NETWORKS[0]) == made.predict(NETWORKS[0])
    assert again.key == made.key
    assert (again.judge, again.accelerator) == ("measured", "")


def test_a_kind_that_was_not_measured_is_refused():
    found = fit(NETWORKS[:20], planted("litert", "int8")[:20], "litert", "int8")
    made = profile.of_fit(
        found, name="p", description="", runtime="litert", runtime_version="1", precision="int8", source="", key={}
    )
    pooled = (*NETWORKS[0][:2], Operator("p", "max_pool", (NETWORKS[0][1].name,), (4, 4, 8)))
    with pytest.raises(TargetError, match="'max_pool' was not measured"):
        made.predict(pooled)


@pytest.mark.parametrize("number", [0, 7])
def test_a_stand_in_has_the_operators_of_its_network(number, tmp_path):
    samples = {INPUT: np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 1)).astype("float32")}
    files = exporting.write(
        StandIn(NETWORKS[number]), tmp_path, ["tflite"], ["float32", "int8"], samples, lambda event: None
    )
    want = costs.cost(NETWORKS[number])
    for file in files:
        found = costs.cost(tflite_operators(file.path))
        assert (found.params, found.macs) == (want.params, want.macs)
        assert Interpreter(str(file.path)).get_input_details()[0]["shape"].tolist() == [1, 16, 16, 1]


@pytest.mark.parametrize(
    ("space", "shape"),
    [("ds_cnn_1d", (49, 10)), ("wide_deep", (49, 10)), ("wide_deep", (30,)), ("dense_selu", (30,))],
    ids=str,
)
def test_a_stand_in_of_windows_and_vectors_is_its_network_and_has_features(space, shape, tmp_path):
    channels = np.full(shape[-1], 3.0)
    networks = Space((space,), shape, 5, scaling.standardize(channels, channels))
    operators = networks.operators(networks.drawn(1, 3)[0])
    samples = {INPUT: np.random.default_rng(0).uniform(0, 6, (4, *shape)).astype("float32")}
    [file] = exporting.write(StandIn(operators), tmp_path, ["tflite"], ["float32"], samples, lambda event: None)
    assert Interpreter(str(file.path)).get_input_details()[0]["shape"].tolist() == [1, *shape]
    assert costs.cost(tflite_operators(file.path)).macs == costs.cost(operators).macs
    for runtime, precision in (
        ("onnxruntime", "float32"),
        ("onnxruntime", "int8"),
        ("litert", "int8"),
        ("vela", "int8"),
    ):
        assert all(np.isfinite(value) for value in features(operators, runtime, precision, 8).values())


def test_profiles_are_shipped():
    assert {path.stem for path in SHIPPED} >= {"ethos-u55-128", "ethos-u55-256", "stm32h747-cubeai"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_has_every_field(path):
    stated = tomllib.loads(path.read_text("utf-8"))
    assert stated.keys() == {field.name for field in dataclasses.fields(profile.Profile)}
    made = profile.read(path)
    assert made.name == path.stem
    assert made.judge in JUDGES
    assert bool(made.accelerator) == (made.judge == "vela")
    assert made.coefficients.keys() == made.range.keys()
    assert made.error["p5"] < made.error["p50"] < made.error["p95"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("space", of_kind("images"))
def test_a_shipped_profile_predicts_every_space(path, space):
    made = profile.read(path)
    networks = Space((space,), (32, 32, 3), 10, STANDARDIZED)
    for values in networks.drawn(20, 0):
        found = made.predict(networks.operators(values))
        assert 0 < found.ms < found.safe_ms


@pytest.mark.parametrize(("name", "block"), [("ethos-u55-128", 16), ("ethos-u55-256", 32)])
def test_the_block_of_an_npu_was_found_from_data(name, block):
    """An eighth of its multiply-accumulates per cycle: nobody told the fit."""
    made = profile.read(next(path for path in SHIPPED if path.stem == name))
    assert made.block == block


def test_resnet_8_on_an_stm32_is_within_the_error_of_what_is_published(shared_data):
    file = shared_data / "models" / "mlcommons_tiny" / "image_classification" / "pretrainedResnet_quant.tflite"
    made = profile.read(next(path for path in SHIPPED if path.stem == "stm32h747-cubeai"))
    found = made.predict(tflite_operators(file))
    assert found.ms == pytest.approx(35.96, rel=0.2)  # ms, STM32Cube.AI 8.1.0, ST model zoo
    assert found.safe_ms == pytest.approx(1.2 * found.ms)
    assert not found.outside


@pytest.mark.parametrize("space", of_kind("images"))
def test_what_a_whole_graph_writes_is_what_its_file_writes(space, tmp_path):
    networks = Space((space,), (32, 32, 3), 10, STANDARDIZED, ("activation=hard_swish",))
    operators = networks.operators(networks.drawn(1, 5)[0])
    samples = {INPUT: np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")}
    [file] = exporting.write(StandIn(operators), tmp_path, ["tflite"], ["int8"], samples, lambda event: None)
    in_file = tflite_operators(file.path)
    elements = sum(np.prod(o.output_shape) for o in in_file if o.kind not in ("input", "view"))
    assert features(operators, "cubeai", "int8", 1) == pytest.approx(
        {"graph:mac": costs.cost(in_file).macs / 1e6, "graph:out": elements / 1e6}
    )
