"""Trees of scikit-learn as one graph: probabilities are scikit-learn's own in Keras and in every file."""

import math

import keras
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from networks import export, pictures, separable
from sklearn import datasets
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits

import edgeml
from edgeml import costs, ensemble, exporting, trees
from edgeml.devices.features import features
from edgeml.errors import DataError, NotMeasuredError, TargetError, UsageError
from edgeml.file_bytes import at_most
from edgeml.folding import fold_batch_norm
from edgeml.keras_operators import keras_operators
from edgeml.layers import TreeEnsemble
from edgeml.onnx_operators import onnx_operators
from edgeml.operators import not_counted
from edgeml.precisions import File
from edgeml.records import Budget
from edgeml.runtimes import keras as keras_runtime
from edgeml.runtimes import litert, open_model
from edgeml.tflite_operators import tflite_operators
from edgeml.trees.reading import read
from edgeml.trees.tables import LARGEST, rounded_down, tables_of
from edgeml.verbs import inspection

TOLERANCE = 1e-5
MOST_ROWS = 900
READERS = {"tflite": tflite_operators, "onnx": onnx_operators}
FLOATS = (File("tflite", "float32"), File("onnx", "float32"))
SETS = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine, "digits": datasets.load_digits}
MIDDLE = {kind: trees.SIZES[kind][4] for kind in trees.KINDS}


@pytest.fixture(autouse=True)
def one_thread():
    """Boosting on several threads waits for all of them at every split: on shared cores, for seconds."""
    with threadpool_limits(1, "openmp"):
        yield


def of_set(name):
    x, y = SETS[name](return_X_y=True)
    return x.astype("float32"), y


def noise(rows=240, features=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype("float32")
    return x, (np.arange(rows) + (x[:, 0] > 0)) % classes


def written(model, folder, **options):
    folded = fold_batch_norm(model).model
    return exporting.write(folded, folder, ("tflite", "onnx"), ("float32",), None, lambda event: None, **options)


def files_say(model, folder, x, **options):
    """Return what each file answers, by target."""
    name = model.inputs[0].name
    return {
        file.target: next(iter(open_model(file.path).predict({name: x}).values()))
        for file in written(model, folder, **options)
    }


def keras_says(model, x):
    return keras.ops.convert_to_numpy(model(x))


def at_thresholds(estimator, x):
    """Return rows that stand exactly at float32 thresholds of ``estimator``, and one step either side of them."""
    forest, rng = read(estimator), np.random.default_rng(0)
    splits = {(int(f), t) for tree in forest.trees for f, t in
              zip(tree.features[tree.left >= 0], tree.thresholds[tree.left >= 0], strict=True)}  # fmt: skip
    rows = []
    for feature, threshold in sorted(splits):
        near = np.float32(threshold)
        for value in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
            row = x[rng.integers(len(x))].copy()
            row[feature] = value
            rows.append(row)
    chosen = rng.permutation(len(rows))[:MOST_ROWS]
    return np.array(rows, np.float32).reshape(-1, x.shape[1])[chosen]


# ---- parity


@pytest.mark.parametrize("kind", trees.KINDS)
@pytest.mark.parametrize("name", SETS)
def test_probabilities_are_those_of_scikit_learn(name, kind, tmp_path):
    x, y = of_set(name)
    estimator = trees.fit(kind, MIDDLE[kind], x[::2], y[::2], seed=1)
    model = trees.compiled(estimator, x.shape[1:])
    rows = np.concatenate([x[1:400:2], at_thresholds(estimator, x)])
    expected = estimator.predict_proba(rows)
    answers = {"keras": keras_says(model, rows), **files_say(model, tmp_path, rows)}
    for runtime, got in answers.items():
        assert np.abs(got - expected).max() <= TOLERANCE, runtime


@pytest.mark.parametrize("kind", trees.KINDS)
def test_every_kernel_and_every_optimisation_agrees(kind, tmp_path):
    x, y = noise()
    estimator = trees.fit(kind, MIDDLE[kind], x, y)
    expected = estimator.predict_proba(x)
    tflite, onnx = (file.path for file in written(trees.compiled(estimator, (6,)), tmp_path))
    reference = litert.open_model(tflite, reference_kernels=True).predict({"image": x})
    assert np.abs(reference["probabilities"] - expected).max() <= TOLERANCE
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        for rows in (x, x[:1]):
            got = session.run(None, {"image": rows})[0]
            assert np.abs(got - expected[: len(rows)]).max() <= TOLERANCE


@pytest.mark.parametrize("shape", [(12,), (6, 2), (2, 3, 2)])
def test_vectors_windows_and_images_are_flattened(shape, tmp_path):
    x, y = noise(features=12)
    estimator = trees.fit("random_forest", MIDDLE["random_forest"], x.reshape(-1, *shape), y)
    model = trees.compiled(estimator, shape, name="window")
    for got in files_say(model, tmp_path, x.reshape(-1, *shape), batch=4).values():
        assert np.abs(got - estimator.predict_proba(x)).max() <= TOLERANCE


@st.composite
def problems(draw):
    """A classifier, fitted: values repeated, tiny or huge, classes that need no split, one tree, odd forms of trees."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes, features = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    x = rng.normal(size=(60, features)) * 10.0 ** draw(st.sampled_from([-30, -3, 0, 6, 37]))
    if draw(st.booleans()):
        x = x[rng.integers(0, 5, size=60)]
    y = np.arange(60) % classes
    if draw(st.booleans()):
        y = np.where(np.arange(60) < classes, y, 0)
    leaves, depth = draw(st.sampled_from([None, 2, 7])), draw(st.sampled_from([None, 1, 3]))
    count, seed = draw(st.sampled_from([1, 4])), draw(st.integers(0, 100))
    shared = {"max_leaf_nodes": leaves, "max_depth": depth, "random_state": seed}
    if draw(st.booleans()):
        estimator = HistGradientBoostingClassifier(max_iter=count, min_samples_leaf=2, early_stopping=False, **shared)
    else:
        estimator = RandomForestClassifier(n_estimators=count, **shared)
    x = x.astype("float32")
    return estimator.fit(x, y), x


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems())
def test_whatever_was_fitted_computes_alike(problem):
    estimator, x = problem
    rows = np.concatenate([x, at_thresholds(estimator, x)])
    model = trees.compiled(estimator, x.shape[1:])
    assert np.abs(keras_says(model, rows) - estimator.predict_proba(rows)).max() <= TOLERANCE
    assert keras_operators(model)[1:] == trees.operators(estimator)[1:]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_files_decide_alike_at_thresholds_of_any_size(scale, tmp_path):
    x, y = noise(features=3)
    x = (x * scale).astype("float32")
    estimator = trees.fit("hist_gradient_boosting", MIDDLE["hist_gradient_boosting"], x, y)
    rows = at_thresholds(estimator, x)
    for runtime, got in files_say(trees.compiled(estimator, (3,)), tmp_path, rows).items():
        assert np.abs(got - estimator.predict_proba(rows)).max() <= TOLERANCE, runtime


@pytest.mark.parametrize(
    "estimator",
    [
        ExtraTreesClassifier(8, max_leaf_nodes=9, random_state=0),
        RandomForestClassifier(5, random_state=0),
        HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5, random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_trees_of_any_form_have_matrices_of_their_own(estimator, tmp_path):
    x, y = noise()
    model = trees.compiled(estimator.fit(x, y), (6,))
    assert not model.get_layer("trees").shape.shared
    for got in (keras_says(model, x), *files_say(model, tmp_path, x).values()):
        assert np.abs(got - estimator.predict_proba(x)).max() <= TOLERANCE


# ---- thresholds


@given(st.floats(-LARGEST, np.inf, allow_nan=False))
@example(0.1)
@example(-1e-46)
@example(np.inf)
def test_a_threshold_is_the_largest_float32_that_is_not_above_it(threshold):
    got = rounded_down(np.array([threshold]))[0]
    assert float(got) <= threshold
    if got < LARGEST:
        assert float(np.nextafter(got, np.float32(np.inf))) > threshold


def test_a_threshold_below_every_float32_is_refused():
    with pytest.raises(DataError, match=r"a threshold of -1e\+39; -3.40282e\+38 and more are allowed"):
        rounded_down(np.array([0.0, -1e39]))


# ---- forms


def test_the_form_that_takes_fewer_bytes_is_taken():
    x, y = noise(classes=2)
    bushy = tables_of(read(RandomForestClassifier(20, max_depth=3, random_state=0).fit(x, y)))
    slim = tables_of(read(RandomForestClassifier(3, max_leaf_nodes=12, random_state=0).fit(x, y)))
    assert (bushy.shape.shared, bushy.shape.splits, bushy.shape.leaves) == (True, 7, 8)
    assert (slim.shape.shared, slim.shape.splits, slim.shape.leaves) == (False, 11, 12)
    for made in (bushy, slim):
        assert sum(constant.size for constant in made.constants.values()) == made.shape.params


# ---- cost


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", trees.KINDS)
def test_no_fitted_size_costs_more_than_its_bound(kind, classes):
    x, y = noise(classes=classes)
    for size in trees.SIZES[kind]:
        most = costs.cost(trees.bound(kind, size, 6, classes), FLOATS)
        cost = costs.cost(trees.operators(trees.fit(kind, size, x, y)), FLOATS)
        for key in ("params", "macs", "peak_activation_bytes"):
            assert 0 < getattr(cost, key) <= getattr(most, key), (size, key)
        assert all(cost.file_bytes[t][p] <= most.file_bytes[t][p] for t, p, _ in FLOATS)
        assert cost.weight_bytes == {"float32": 4 * cost.params}
        assert cost.arena_bytes == {}  # there is no int8 file


def test_constants_and_products_are_counted_one_by_one():
    x, y = noise()
    cost = edgeml.cost(trees.compiled(trees.fit("random_forest", {"n_estimators": 5, "max_depth": 2}, x, y), (6,)))
    thresholds_and_indices, paths, lengths, values, floor = 2 * 5 * 3, 3 * 4, 4, 5 * 4 * 3, 1
    assert cost.params == thresholds_and_indices + paths + lengths + values + floor
    assert cost.macs == 5 * 3 * 4 + 5 * 4 * 3


@pytest.mark.parametrize("kind", trees.KINDS)
def test_files_hold_what_was_counted_and_no_more_bytes_than_predicted(kind, tmp_path):
    x, y = noise()
    model = trees.compiled(trees.fit(kind, MIDDLE[kind], x, y), (6,))
    cost = edgeml.cost(model)
    for file in written(model, tmp_path):
        found = READERS[file.target](file.path)
        assert not not_counted(found)
        in_file = costs.cost_of_file(found)
        assert (in_file.params, in_file.macs) == (cost.params, cost.macs)
        real = file.path.stat().st_size
        assert at_most(cost.file_bytes)[file.target]["float32"] >= real >= 0.8 * cost.file_bytes[file.target]["float32"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert", "vela", "cubeai"])
def test_no_profile_says_how_long_trees_take(runtime):
    with pytest.raises(NotMeasuredError, match=r"operator 'trees/features' \(gather\): "):
        features(trees.bound("random_forest", MIDDLE["random_forest"], 6, 3), runtime, "float32", 8)


# ---- members


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_trees_and_a_network_are_one_graph(mean, tmp_path):
    x = pictures(160, (8, 8, 3))
    y = (np.arange(160) + (x.mean(axis=(1, 2, 3)) > 0.5)) % 5
    members = [trees.compiled(trees.fit(kind, MIDDLE[kind], x, y), (8, 8, 3), "pixels") for kind in trees.KINDS]
    graph = ensemble.side_by_side([separable(shape=(8, 8, 3)), *members], [0.5, 0.3, 0.2], mean)
    folding = ensemble.fold_ensemble(graph)
    assert {"norm_1", "norm_2", "norm_3", "norm_4"} <= set(folding.folded)
    expected = keras_says(graph, x)
    for got in (keras_says(folding.model, x), *files_say(graph, tmp_path, x).values()):
        assert np.abs(got - expected).max() <= TOLERANCE
    cost, parts = edgeml.cost(graph), [edgeml.cost(member) for member in members]
    assert cost.macs > sum(part.macs for part in parts)
    assert cost.params > sum(part.params for part in parts)


@pytest.mark.parametrize("kind", trees.KINDS)
def test_a_saved_graph_is_loaded_as_it_was(kind, tmp_path):
    x, y = noise()
    model = trees.compiled(trees.fit(kind, MIDDLE[kind], x, y), (6,))
    model.save(tmp_path / "model.keras")
    loaded = keras_runtime.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras_says(loaded, x), keras_says(model, x))
    assert isinstance(loaded.get_layer("trees"), TreeEnsemble)
    assert not model.trainable_weights


@pytest.mark.parametrize("targets", [("tflite",), ("onnx",)])
def test_int8_is_refused_by_name(targets, tmp_path):
    x, y = noise(features=12)
    estimator = trees.fit("random_forest", MIDDLE["random_forest"], x, y)
    graph = edgeml.compile_ensemble([trees.compiled(estimator, (12,))] * 2, [0.5, 0.5])
    message = r"layer 'trees' \(TreeEnsemble\): .* int8 is asked for; float32 is allowed. Set export.precision"
    with pytest.raises(TargetError, match=message):
        export(graph, tmp_path / "out", to=targets, precision=("float32", "int8"), samples=x, calibration=x)
    with pytest.raises(TargetError, match=message):
        exporting.write(graph, tmp_path, targets, ("int8",), {"image": x}, lambda event: None)
    assert not list(tmp_path.iterdir())


def test_a_saved_graph_is_inspected(tmp_path):
    x, y = noise()
    model = trees.compiled(trees.fit("random_forest", MIDDLE["random_forest"], x, y), (6,))
    model.save(tmp_path / "model.keras")
    text, document = inspection.inspect(tmp_path / "model.keras")
    assert "arena  not counted: it holds trees, which have no int8 form" in text
    assert document["arena_bytes"] is None
    assert document["params"] == edgeml.cost(model).params
    assert "int8" not in text.replace("it holds trees, which have no int8 form", "")
    assert set(document["weight_bytes"]) == {"float32"}
    assert all(set(sizes) == {"float32"} for sizes in document["file_bytes"].values())


@pytest.mark.parametrize("kind", trees.KINDS)
def test_nothing_is_said_of_an_int8_form_of_a_file(kind, tmp_path):
    x, y = noise()
    for file in written(trees.compiled(trees.fit(kind, MIDDLE[kind], x, y), (6,)), tmp_path):
        text, document = inspection.inspect(file.path)
        assert "int8" not in text
        assert set(document["weight_bytes"]) == {"float32"}


@pytest.mark.parametrize("kind", trees.KINDS)
@pytest.mark.parametrize("classes", [2, 3])
def test_as_many_activations_are_alive_as_in_the_file(kind, classes, tmp_path):
    x, y = noise(classes=classes)
    for size in (trees.SIZES[kind][0], MIDDLE[kind]):
        model = trees.compiled(trees.fit(kind, size, x, y), (6,))
        path = next(file.path for file in written(model, tmp_path) if file.target == "tflite")
        assert 4 * edgeml.cost(model).peak_activation_bytes == most_alive(tflite_operators(path))
        assert 4 * inspection.inspect(path)[1]["peak_activation_bytes"] == most_alive(tflite_operators(path))


def most_alive(operators):
    """Return the bytes of the largest set of tensors that a file holds at once, in its own order."""
    last = {name: step for step, operator in enumerate(operators) for name in (operator.name, *operator.inputs)}
    sizes = [(math.prod(o.output_shape) * o.bytes_per_element, step, last[o.name]) for step, o in enumerate(operators)]
    return max(sum(size for size, first, end in sizes if first <= step <= end) for step in range(len(sizes)))


# ---- candidates


def test_only_sizes_within_budget_are_fitted_and_the_best_are_kept(monkeypatch):
    x, y = of_set("wine")
    fitted = []
    own = trees.fitting.fit
    monkeypatch.setattr(trees.fitting, "fit", lambda kind, size, *rest: fitted.append(size) or own(kind, size, *rest))
    budget = Budget(params=1_500)
    found = trees.candidates(trees.KINDS, (x[::2], y[::2]), (x[1::2], y[1::2]), budget, seed=3, files=FLOATS)
    within = [
        size
        for kind in trees.KINDS
        for size in trees.SIZES[kind]
        if costs.cost(trees.bound(kind, size, 13, 3)).params <= 1_500
    ]
    assert fitted == within
    assert 4 < len(within) < 12
    assert [one.kind for one, _ in found] == ["random_forest"] * 2 + ["hist_gradient_boosting"] * 2
    for one, estimator in found:
        assert trees.SIZES[one.kind][int(one.id.removeprefix(f"t_{one.kind}_")) - 1] == one.hyperparameters
        assert one.cost.params <= 1_500
        assert one.metrics["val_accuracy"] == pytest.approx(estimator.score(x[1::2], y[1::2]))
    assert found[0][0].metrics["val_loss"] <= found[1][0].metrics["val_loss"]


def test_nothing_comes_of_a_budget_below_every_size():
    x, y = noise()
    assert trees.candidates(trees.KINDS, (x, y), (x, y), Budget(params=50)) == []


def test_the_same_seed_grows_the_same_trees():
    x, y = noise()
    for kind in trees.KINDS:
        first, second = (trees.fit(kind, MIDDLE[kind], x, y, seed=5).predict_proba(x) for _ in range(2))
        np.testing.assert_array_equal(first, second)


# ---- refused


def fitted_on(labels):
    x, _ = noise(rows=len(labels))
    return RandomForestClassifier(2, random_state=0).fit(x, labels)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomForestRegressor(2).fit(*noise()), UsageError, "got RandomForestRegressor; .* are allowed"),
        (RandomForestClassifier, UsageError, "RandomForestClassifier is not fitted"),
        (lambda: fitted_on(np.zeros((9, 2), int)), UsageError, "has 2 outputs; one is allowed"),
        (lambda: fitted_on(np.array([1, 2] * 5)), DataError, "labels 1, 2; 0, 1, … up to K - 1 are due"),
        (lambda: fitted_on(np.array(["cat", "dog"] * 5)), DataError, "labels cat, dog; "),
        (lambda: fitted_on(np.zeros(9, int)), DataError, "labels 0; .* two or more"),
        (
            lambda: HistGradientBoostingClassifier(categorical_features=[0]).fit(np.ones((9, 8)), np.arange(9) % 2),
            UsageError,
            "splits by categories",
        ),
        (lambda: fitted_on(np.array([0, 1] * 5)), UsageError, "was fitted on 6 features; inputs of 8 are given"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_named(make, error, message):
    with pytest.raises(error, match=message):
        trees.compiled(make(), (4, 2))


def test_what_cannot_be_fitted_is_named():
    x, y = noise()
    with pytest.raises(UsageError, match="got 'forest'; random_forest and hist_gradient_boosting are allowed"):
        trees.fit("forest", {}, x, y)
    with pytest.raises(UsageError, match="random_forest: max_depth is None; a whole number of at least 1 is due"):
        trees.bound("random_forest", {"n_estimators": 3}, 4, 2)
    with pytest.raises(DataError, match="labels 1, 2; "):
        trees.fit("random_forest", MIDDLE["random_forest"], x, y % 2 + 1)
    with pytest.raises(DataError, match="inputs hold NaN or infinite values"):
        trees.fit("random_forest", MIDDLE["random_forest"], np.where(x > 2, np.nan, x), y)
