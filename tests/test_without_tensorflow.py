"""The search on JAX where TensorFlow is not installed: in child processes, resumed, and in this process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import SMALL_SPACE, write_package

ROOT = Path(__file__).parents[1]
HIDDEN = """
import sys
from importlib.machinery import PathFinder

HIDDEN = {"tensorflow", "tf_keras", "tensorflow_model_optimization", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert",
          "jinja2", "matplotlib"}


class Path:
    '''Finds modules and distributions as Python does, but for those that are to be absent.'''

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        for found in PathFinder.find_distributions(*context):
            if found.name.lower().replace("-", "_") not in HIDDEN:
                yield found


sys.meta_path[:] = [Path if finder is PathFinder else finder for finder in sys.meta_path]
"""
RECIPE = """
schema_version: 1
name: tiny
data: {source: digits}
search: {space: small, max_trials: 1, epochs: 1, batch_size: 2048, tensorboard: true}
train: {epochs: 1, finalists: 1}
"""
PROGRAM = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path
from unittest.mock import Mock
from edgeml import pipeline, recipe_file, run_folder
from edgeml.search import space
from edgeml.search.engine import InProcess
from edgeml.verbs import make

assert importlib.util.find_spec("tensorflow") is None
try:
    raise SystemExit(importlib.metadata.version("tensorflow"))
except importlib.metadata.PackageNotFoundError:
    pass
quiet = lambda event: None
recipe = recipe_file.read(Path("tiny.yaml"))
first, again = (make.search(recipe, quiet, Mock(), resume=resume, overwrite=False)[1] for resume in (False, True))

recipe = recipe_file.read(Path("tiny.yaml"), ["search.oracle=hyperband", "search.epochs=3", "search.max_trials=4"])
run = run_folder.begin(Path("runs/here"), recipe, keep_finished=False)
arrays = pipeline.prepare(run, quiet)
engine = InProcess(run, space.of_run(run, arrays), arrays)
candidates = pipeline.search(run, arrays, engine, quiet)
(finalist,) = pipeline.train_finalists(run, engine, candidates, quiet)
import keras
print(json.dumps({
    "backend": keras.backend.backend(), "first": first, "again": again,
    "here": [candidate.status for candidate in candidates],
    "promoted": sum("tuner/trial_id" in candidate.hyperparameters for candidate in candidates),
    "finalist": pipeline.load_finalist(run, finalist).output_shape,
}))
"""


@pytest.mark.slow
def test_a_search_on_jax_needs_no_tensorflow(tmp_path):
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDDEN)
    write_package(tmp_path / "package", "search_spaces", "small", SMALL_SPACE.replace("[8, 16]", "[8, 16, 24, 32]"))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    path = os.pathsep.join([str(tmp_path / "hiding"), str(tmp_path / "package"), str(ROOT), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["backend"] == "jax"
    assert found["first"]["trials"] == {"completed": 1}
    assert found["again"]["best"] == found["first"]["best"]
    assert found["here"] == 4 * ["completed"]
    assert found["promoted"] > 0, "one that goes on from the weights of another"
    assert found["finalist"] == [None, 10]
    logs = {path.parent.name for path in (tmp_path / "runs" / "here" / "tensorboard").glob("*/events*")}
    assert {"t0000", "t0003"} < logs
    assert [path.parent.parent.name for path in (tmp_path / "runs").rglob("sprite.png")] == ["tensorboard"]
