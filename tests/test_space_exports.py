"""Every search space, drawn at random, through every target and precision: files compute what Keras does."""

from collections import Counter

import keras
import networks
import numpy as np
import pytest

from edgeml import arena, deploying, exporting, plugins, recipe, scaling, verification
from edgeml.errors import UsageError
from edgeml.folding import fold_batch_norm
from edgeml.precisions import FILES, PRECISIONS, is_deployed, programs
from edgeml.records import Budget
from edgeml.search import oracles
from edgeml.search.feasibility import Feasibility
from edgeml.search.space import Space, takes
from edgeml.tflite_operators import tflite_operators

NAMES = plugins.names("search_spaces")
TARGETS = [name for name in plugins.names("targets") if not is_deployed(name)]
SHAPES = {
    "images": [(8, 8, 1), (28, 28, 1), (33, 20, 3), (48, 48, 3)],
    "windows": [(119, 6), (49, 10), (20, 1), (35, 3)],
    "vectors": [(30,), (4,)],
}
MODERATE = Budget(params=60_000, macs=4_000_000)
FIRST_SLOW_SEED = 40
# Random weights amplify the rounding of a weight by up to 40 times, trained ones were not seen to.
GATES = recipe.Verify(
    float16_max_range_error=0.05, int8_min_cosine=0.98, int16x8_min_sqnr_db=15, int16x8_min_cosine=0.98
)  # fmt: skip


def drawn(name, seed):
    """Draw a network of moderate size, its input shape, and its number of classes."""
    rng = np.random.default_rng(seed)
    shapes = [shape for kind in takes(name) for shape in SHAPES[kind]]
    shape, classes = shapes[seed % len(shapes)], int(rng.integers(2, 20))
    space = Space([name], shape, classes, scaling_of(shape))

    judge = Feasibility(space.operators, MODERATE)
    oracle = oracles.create(
        "random", accepts=judge.accepts, hyperparameters=space.hyperparameters(), max_trials=1, epochs=1, seed=seed
    )
    return space, oracle._random_values(), shape


def scaling_of(shape):
    if len(shape) == 3:
        return scaling.rescale((0, 255))
    return scaling.standardize(np.full(shape[-1], 120.0), np.full(shape[-1], 64.0**2))


def shades(count, shape, seed):
    """Samples that differ, 0..255: a few random patches each (of a window: levels) and noise; vectors of noise."""
    rng = np.random.default_rng(seed)
    if len(shape) == 1:
        return rng.uniform(0, 255, (count, *shape)).astype("float32")
    if len(shape) == 2:
        return shades(count, (shape[0], 1, shape[1]), seed)[:, :, 0]
    height, width, channels = shape
    coarse = rng.uniform(0, 220, (count, 4, 4, channels))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return (coarse[:, rows][:, :, columns] + rng.uniform(0, 35, (count, *shape))).astype("float32")


def as_trained(model, x):
    """Random weights, and the statistics of ``x`` in every normalisation, as training would leave them."""
    networks.randomise(model)
    normalisations = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalisations:
        layer.momentum = 0.0
    model(x, training=True)
    return model


def assert_exports(name, seed, folder):
    space, values, shape = drawn(name, seed)
    x = shades(100, shape, seed)
    model = as_trained(space.model(values), x)
    result = fold_batch_norm(model)
    assert {name for name, _ in result.kept} <= {"scaling"} if name == "ds_cnn_1d" else not result.kept, values
    inputs = {model.inputs[0].name: shades(100, shape, seed + 1)}
    calibration = {model.inputs[0].name: x}
    files = exporting.write(result.model, folder, TARGETS, [*PRECISIONS], calibration, lambda event: None)
    rows = verification.prove(result.model, model, files, inputs, "random", GATES)
    assert len(networks.first_rows(rows)) == 1 + len(FILES)
    assert all(row.passed for row in rows)
    quantized = [
        row for row in networks.first_rows(rows) if row.gate not in ("float32", "dynamic")
    ]  # dynamic leaves small kernels alone
    assert all(row.max_abs > 0 for row in quantized), "vacuous: a file that is not quantized"
    assert_is_as_predicted(space.operators(values), folder / exporting.file_name("tflite", "int8"))


def assert_is_as_predicted(operators, path):
    """Hold the operators of a network, and where its activations lie, against its file."""
    predicted, written = arena.as_converted(operators), tflite_operators(path)
    assert Counter(o.kind for o in predicted) == Counter(o.kind for o in written)
    assert arena.head_bytes(predicted) == arena.head_bytes(written)
    assert arena.file_arena_bytes(predicted) == arena.file_arena_bytes(written)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_exports(name, tmp_path):
    assert_exports(name, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SLOW_SEED, FIRST_SLOW_SEED + 20))
@pytest.mark.parametrize("name", NAMES)
def test_a_space_exports_over_many_draws(name, seed, tmp_path):
    assert_exports(name, seed, tmp_path)


# selu of random weights: 95 % of TensorFlow Lite Micro's rows were those of the reference kernels
PROGRAM_GATES = recipe.Verify(tflm_min_equal_rows=0.5, tflm_min_top1=0.9, program_max_range_error=1e-5)
PROGRAMS = [name for name in plugins.names("targets") if is_deployed(name)]


def assert_deploys(name, seed, folder):
    """Every target takes every space: programs agree with their files, and what an NPU leaves to the CPU is said."""
    space, values, shape = drawn(name, seed)
    model = fold_batch_norm(as_trained(space.model(values), shades(100, shape, seed))).model
    x = {model.inputs[0].name: shades(100, shape, seed + 1)}
    precision = ["float32", "int8"]
    files = exporting.write(model, folder, PROGRAMS, precision, x, lambda event: None)
    macs = sum(operator.macs for operator in space.operators(values))
    golden = {name: rows[:16] for name, rows in x.items()}
    made = deploying.deploy(
        folder, programs(PROGRAMS, precision), files, golden, x, PROGRAM_GATES, macs, lambda event: None
    )
    assert {one.target for one in made} == set(PROGRAMS)
    assert all(one.parity is None or one.parity.passed for one in made)
    (npu,) = (one for one in made if one.target == "ethos_u")
    left = any(number for key, number in npu.figures.items() if key.endswith("cpu_operators"))
    assert left == any("on the CPU stay" in note for note in npu.notes)
    assert not left or values.get("activation", "selu") == "selu", npu.notes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SLOW_SEED, FIRST_SLOW_SEED + 5))
@pytest.mark.parametrize("name", NAMES)
def test_every_target_takes_every_space(name, seed, tmp_path):
    for target in PROGRAMS:
        try:
            plugins.get("targets", target).check_installed()
        except UsageError as error:
            pytest.skip(str(error))
    assert_deploys(name, seed, tmp_path)
