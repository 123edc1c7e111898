"""Latency from operators: the model finds planted coefficients, and a stand-in is the network that it stands for."""

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
from edgeml.search.space import Space
from edgeml.tflite_operators import tflite_operators

SPACE = Space(("ds_cnn",), (16, 16, 1), 4, scaling.rescale((0, 255)))
NETWORKS = [SPACE.operators(values) for values in SPACE.drawn(60, 0)]


def planted(runtime, precision, block=8):
    """Latencies that a model of this runtime would have: a coefficient for each feature, none of them zero."""
    rows = [features(operators, runtime, precision, block) for operators in NETWORKS]
    coefficients = {name: 0.01 + 0.001 * number for number, name in enumerate(sorted({n for r in rows for n in r}))}
    return np.array([sum(coefficients[name] * value for name, value in row.items()) for row in rows])


@pytest.mark.parametrize(
    ("runtime", "precision"), [("onnxruntime", "float32"), ("onnxruntime", "int8"), ("litert", "float32")]
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
