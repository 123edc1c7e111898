"""``edgeml devices`` as it is typed: what there is, what one is, and what is said of one that there is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EDGEML = Path(sys.executable).with_name("edgeml")


@pytest.fixture
def call(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "c"), "XDG_CONFIG_HOME": str(tmp_path / "s")}

    def run(*words):
        return subprocess.run([EDGEML, "devices", *words], capture_output=True, text=True, env=environment)

    return run


@pytest.mark.parametrize("words", [(), ("list",)])
def test_the_list_names_the_host_and_what_ships(call, words):
    process = call(*words)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "device", "host", "ethos-u55-128", "ethos-u55-256", "stm32h747-cubeai",
    ]  # fmt: skip
    assert "not calibrated" in lines[1]
    assert "from published data, ±20 %" in lines[-1]


def test_the_list_as_json(call):
    document = json.loads(call("list", "--json").stdout)
    assert document["names"] == ["host", "ethos-u55-128", "ethos-u55-256", "stm32h747-cubeai"]
    assert {"name", "path", "runtime", "precision", "error", "source"} <= document["devices"][0].keys()


def test_one_is_shown_with_its_error_and_its_source(call):
    process = call("show", "stm32h747-cubeai")
    assert process.returncode == 0, process.stderr
    assert "0.833 to 1.200" in process.stdout
    assert "ST model zoo" in process.stdout
    assert "prediction stands" in process.stdout
    (one,) = json.loads(call("show", "ethos-u55-128", "--json").stdout)["profiles"]
    assert one["coefficients"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "ethos-u55-12"), 2, "Did you mean 'ethos-u55-128'?"),
        (("show", "host"), 2, "not calibrated yet. Run `edgeml devices calibrate RECIPE`"),
        (("show", "nothing.toml"), 4, "nothing.toml: no device profile"),
        (("calibrate", "recipes/none.yaml"), 3, "none.yaml: no such"),
        (("calibrate", "photos/"), 4, "photos: no such folder"),
    ],
)
def test_what_there_is_not_is_said_in_one_line(call, words, code, message):
    process = call(*words)
    assert process.returncode == code
    assert process.stderr.count("\n") == 1
    assert message in process.stderr


def test_a_runtime_that_is_not_calibrated_is_named(call):
    recipe = Path(__file__).parents[1] / "recipes" / "digits.yaml"
    for words, message in (
        (("--runtime", "liter"), "--runtime: got 'liter'; onnxruntime or litert is allowed. Did you mean 'litert'?"),
        (("--precision", "int4"), "--precision: got 'int4'; float32 or int8 is allowed."),
    ):
        process = call("calibrate", str(recipe), *words)
        assert process.returncode == 2
        assert message in process.stderr
