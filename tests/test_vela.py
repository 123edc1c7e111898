"""Arm's compiler for Ethos-U, run for real: on networks of the shipped profiles, and on one that needs the CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeml import exporting, scaling
from edgeml.devices import profile, vela
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import DataError, UsageError
from edgeml.operators import Operator
from edgeml.search.space import Space

SHIPPED = Path(profile.__file__).parent
SHAPE = (32, 32, 3)
SPACE = Space(("ds_cnn",), SHAPE, 10, scaling.rescale((0, 255)))


def written(network, folder, precision="int8"):
    samples = {INPUT: np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")}
    [file] = exporting.write(network, folder, ["tflite"], [precision], samples, lambda event: None)
    return file.path


@pytest.fixture(scope="module")
def network():
    return SPACE.operators(SPACE.drawn(1, seed=3)[0])


@pytest.fixture(scope="module")
def int8(network, tmp_path_factory):
    return written(StandIn(network), tmp_path_factory.mktemp("int8"))


@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u55-256"])
def test_vela_finds_what_the_profile_predicts(accelerator, network, int8, capfd):
    found = vela.compiled(int8, accelerator)
    device = profile.read(SHIPPED / f"{accelerator}.toml")
    assert device.error["p5"] <= device.predict(network).ms / found.ms <= device.error["p95"]
    assert device.runtime_version == found.version
    assert found.ms == pytest.approx(found.cycles / 500e3)
    assert 0 < found.sram_bytes < 1e6
    assert 0 < found.flash_bytes < 2 * int8.stat().st_size
    assert found.cpu_operators == ()
    assert capfd.readouterr() == ("", "")


class Shuffled(StandIn):
    """A network that lays pixels into channels after its input: the NPU has no operator for that."""

    def __call__(self, x, training=False):
        import tensorflow as tf

        return super().__call__(tf.nn.space_to_depth(tf.nn.depth_to_space(tf.tile(x, (1, 1, 1, 4)), 2), 2)[..., :3])


def test_operators_that_stay_on_the_cpu_are_named(tmp_path):
    network = (Operator("input", "input", (), SHAPE), Operator("pool", "global_pool", ("input",), (3,)))
    found = vela.compiled(written(Shuffled(network), tmp_path), "ethos-u55-128")
    assert len(found.cpu_operators) == 2
    assert any("SpaceToDepth" in name for name in found.cpu_operators)


def test_a_file_that_vela_cannot_compile_is_refused_in_one_line_with_its_reason(network, tmp_path):
    with pytest.raises(DataError, match=r"Vela cannot compile it \(.*HARD_SWISH.*FLOAT32.*\)\. Export int8"):
        vela.compiled(written(StandIn(network), tmp_path, "float32"), "ethos-u55-128")


def test_an_accelerator_that_does_not_exist_is_named_with_the_nearest(int8):
    with pytest.raises(UsageError, match=r"no accelerator 'ethos-u55-12';.*Did you mean 'ethos-u55-128'"):
        vela.compiled(int8, "ethos-u55-12")


def test_without_vela_the_message_says_what_to_install(int8, monkeypatch):
    monkeypatch.setitem(sys.modules, "ethosu", None)
    monkeypatch.delitem(sys.modules, "ethosu.vela", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'edgeml-export\[ethos\]'"):
        vela.compiled(int8, "ethos-u55-128")


def test_what_is_no_tflite_file_is_refused(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(DataError, match="not a TFLite file"):
        vela.compiled(path, "ethos-u55-128")


def test_vela_leaves_python_as_it_was(int8):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 1)
    try:
        vela.compiled(int8, "ethos-u55-128")
        assert sys.getrecursionlimit() == before + 1
    finally:
        sys.setrecursionlimit(before)
