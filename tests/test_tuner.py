"""KerasTuner's own tuners under a budget, in-process, with the build function of somebody else."""

import json

import keras
import keras_tuner as kt
import numpy as np
import pytest
from spies import Notes

import edgeml
from edgeml.errors import BudgetError, TargetError, UsageError
from edgeml.keras_operators import as_if_trained

# KerasTuner 1.4.8 loads weights into a compiled model whose optimizer is not built yet: Keras says so each time
pytestmark = [
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
    pytest.mark.filterwarnings("ignore:200 networks in a row"),
]
L = keras.layers
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 150)
X = (RNG.normal(0, 0.3, (150, 6, 6, 1)) + Y[:, None, None, None]).astype("float32")


def build(hp):
    width = hp.Int("width", 4, 32, step=4)
    kernel = hp.Choice("kernel", [3, 5, 7])  # 7 x 7 does not fit into 6 x 6
    x = inputs = keras.Input((6, 6, 1))
    x = L.ReLU()(L.BatchNormalization(momentum=0.9)(L.Conv2D(width, kernel, use_bias=False)(x)))
    outputs = L.Softmax()(L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    model = keras.Model(inputs, outputs)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"], jit_compile=False)
    return model


def params(hp):
    return hp["width"] * hp["kernel"] ** 2 + hp["width"] + 3 * hp["width"] + 3


def tuner_of(tuner_class, folder, limit, build=build, **options):
    return edgeml.budgeted(tuner_class, edgeml.Budget(params=limit))(
        build, objective="val_accuracy", directory=folder, project_name="p", seed=1, **options
    )


def search(tuner, epochs=1, **options):
    tuner.search(
        X[:100], Y[:100], validation_data=(X[100:], Y[100:]), epochs=epochs, batch_size=50, verbose=0, **options
    )
    return tuner


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    return search(tuner_of(kt.RandomSearch, tmp_path_factory.mktemp("t"), 300, max_trials=4), epochs=3)


def test_no_trial_over_budget_none_that_cannot_be_built_none_failed(searched):
    trials = list(searched.oracle.trials.values())
    assert [trial.status for trial in trials] == 4 * ["COMPLETED"]
    assert all(params(trial.hyperparameters) <= 300 for trial in trials)
    assert searched.feasibility.refused["params"] > 0
    assert searched.feasibility.refused["build"] > 0
    assert type(searched).__name__ == "BudgetedRandomSearch"


def test_callbacks_work_as_in_keras_tuner(tmp_path):
    tuner = tuner_of(kt.RandomSearch, tmp_path / "t", 300, max_trials=2)
    callbacks = [
        Notes(tmp_path / "notes"),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, min_delta=1e9, patience=1),
        keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=2),  # nothing is better: three epochs
        keras.callbacks.TensorBoard(str(tmp_path / "logs")),
    ]
    search(tuner, epochs=5, callbacks=callbacks)
    assert len(tuner.oracle.trials) == 2
    assert (tmp_path / "notes").read_text().splitlines() == 2 * ["1 0 0.01", "2 1 0.01", "3 2 0.005"]
    assert len(list((tmp_path / "logs").glob("*/execution0/train/events*"))) == 2


@pytest.mark.parametrize("tuner_class", [kt.BayesianOptimization, kt.Hyperband, edgeml.tuners.TPE, edgeml.tuners.NSGA2])
def test_other_tuners_keep_it_too(tuner_class, tmp_path):
    size = {"max_epochs": 3} if tuner_class is kt.Hyperband else {"max_trials": 4}
    if tuner_class is kt.BayesianOptimization:
        size["num_initial_points"] = 2
    trials = search(tuner_of(tuner_class, tmp_path, 300, **size)).oracle.trials.values()
    assert len(trials) >= 4
    assert all(params(t.hyperparameters) <= 300 and t.status == "COMPLETED" for t in trials)


def test_a_reopened_grid_goes_on_where_it_was(tmp_path):
    search(tuner_of(kt.GridSearch, tmp_path, 300, max_trials=2))
    trials = search(tuner_of(kt.GridSearch, tmp_path, 300, max_trials=4, overwrite=False)).oracle.trials.values()
    assert len({params(trial.hyperparameters) for trial in trials}) == 4


def test_nothing_fits(tmp_path):
    def build_one(hp):
        hp.Fixed("kernel", 3)
        return build(hp)

    with pytest.raises(BudgetError, match=r"no network of the space fits; the smallest seen needs 55 params"):
        search(tuner_of(kt.RandomSearch, tmp_path, 10, build_one, max_trials=2))


def test_nothing_can_be_built_names_the_cause(tmp_path):
    def broken(hp):
        if hp.Int("n", 0, 3) or hp.values.get("n") == 0:
            raise RuntimeError("no such layer")
        return build(kt.HyperParameters())

    def broken_later(hp):
        if broken_later.started:
            return broken(hp)
        hp.Int("n", 0, 3)
        return build(kt.HyperParameters())

    broken_later.started = False
    tuner = tuner_of(kt.RandomSearch, tmp_path, 300, broken_later, max_trials=2)
    broken_later.started = True
    with pytest.raises(BudgetError, match="no network of the space could be built") as caught:
        search(tuner)
    assert str(caught.value.__cause__) == "no such layer"


def test_the_two_best_become_one_proven_bundle(searched, tmp_path):
    bundle = edgeml.export_best(
        searched, tmp_path / "mine", top_k=2, blend=(X[100:], Y[100:]), samples=X[:64], to=("onnx",)
    )
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (bundle / "model.onnx").exists()
    assert all(row["passed"] for row in manifest["parity"])
    members = [params(trial.hyperparameters) for trial in searched.oracle.get_best_trials(2)]
    assert manifest["cost"]["params"] in (sum(members) + 2, *members)  # a member of weight zero is dropped


def test_several_without_blend_and_a_tuner_that_has_not_searched_are_refused(searched, tmp_path):
    with pytest.raises(UsageError, match="top_k > 1 needs blend"):
        edgeml.export_best(searched, tmp_path / "x", top_k=2)
    with pytest.raises(UsageError, match="no trial of this tuner completed"):
        edgeml.export_best(tuner_of(kt.RandomSearch, tmp_path / "t", 300, max_trials=1), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def growing(hp):
    """Hyper-parameters are discovered while building: no condition says that a layer may be missing."""
    x = inputs = keras.Input((6, 6, 1))
    for number in range(hp.Int("layers", 1, 3)):
        x = L.Conv2D(hp.Int(f"width_{number}", 4, 32, step=4), 3, padding="same", activation="relu")(x)
    outputs = L.Softmax()(L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    model = keras.Model(inputs, outputs)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"], jit_compile=False)
    return model


def fake(tuner_class):
    """Return the tuner without training: a trial is told a number at once."""

    class Fake(tuner_class):
        def run_trial(self, trial, *args, **kwargs):
            self.hypermodel.build(trial.hyperparameters)
            return {"val_accuracy": 1 - sum(v for v in trial.hyperparameters.values.values()) / 1_000}

    return Fake


@pytest.mark.parametrize("name", ["TPE", "NSGA2"])
def test_a_space_that_is_discovered_while_building(name, tmp_path):
    tuner_class = fake(getattr(edgeml.tuners, name))
    tuner = tuner_of(tuner_class, tmp_path, 4_000, growing, max_trials=16)
    tuner.search()
    trials = tuner.oracle.trials.values()
    assert [trial.status for trial in trials] == 16 * ["COMPLETED"]
    assert {entry.name for entry in tuner.oracle.get_space().space} >= {"layers", "width_0", "width_1"}
    assert all(edgeml.cost(growing(trial.hyperparameters)).params <= 4_000 for trial in trials)
    assert len({tuple(sorted(trial.hyperparameters.values.items())) for trial in trials}) == 16


@pytest.mark.parametrize("name", ["TPE", "NSGA2"])
def test_a_reopened_search_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    class Cut(fake(getattr(edgeml.tuners, name))):
        last = 10_000

        def run_trial(self, trial, *args, **kwargs):
            if int(trial.trial_id) == self.last:
                raise KeyboardInterrupt
            return super().run_trial(trial)

    def opened(folder):
        return tuner_of(Cut, folder, 10_000, max_trials=12, overwrite=False)

    whole = opened(tmp_path / "whole")
    whole.search()
    first = opened(tmp_path / "cut")
    first.last = 7
    with pytest.raises(KeyboardInterrupt):
        first.search()
    second = opened(tmp_path / "cut")
    second.search()
    values = [{n: t.hyperparameters.values for n, t in tuner.oracle.trials.items()} for tuner in (whole, second)]
    assert len(values[0]) == 12
    assert values[0] == values[1]


def test_nsga2_without_a_budget_counts_what_a_network_costs(tmp_path):
    tuner = fake(edgeml.tuners.NSGA2)(
        build, objective="val_accuracy", max_trials=3, seed=1, minimised=("params",), directory=tmp_path
    )
    tuner.search()
    for trial in tuner.oracle.trials.values():
        assert tuner.oracle._losses(trial) == [-trial.score, params(trial.hyperparameters)]


@pytest.mark.parametrize("budget", [None, edgeml.Budget(params=10_000)])
def test_nsga2_counts_bytes_where_they_are_minimised(budget, tmp_path):
    base = fake(edgeml.tuners.NSGA2)
    tuner = (edgeml.budgeted(base, budget) if budget else base)(
        build, objective="val_accuracy", max_trials=2, seed=1, minimised=("weight_bytes", "file_bytes", "arena_bytes"),
        directory=tmp_path,
    )  # fmt: skip
    tuner.search()
    for trial in tuner.oracle.trials.values():
        model = build(trial.hyperparameters)
        with as_if_trained(model):
            cost = edgeml.cost(model)
        bytes_ = cost.weight_bytes["int8"], cost.file_bytes["tflite"]["float32"], cost.arena_bytes["int8"]
        assert tuner.oracle._losses(trial) == [-trial.score, *bytes_]


class Stubborn(kt.Oracle):
    """Somebody's own oracle, with no idea of a budget: widths in turn, or always the same."""

    widths = (32, 4, 8, 28, 12)

    def populate_space(self, trial_id):
        self.asked = getattr(self, "asked", -1) + 1
        if self.asked >= 3 * len(self.widths):
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": {"width": self.widths[self.asked % len(self.widths)], "kernel": 3}}


class Endless(Stubborn):
    def populate_space(self, trial_id):
        return {"status": "RUNNING", "values": {"width": 4 if not self.trials else 32, "kernel": 3}}


class Hopeless(Stubborn):
    def populate_space(self, trial_id):
        return {"status": "RUNNING", "values": {"width": 32, "kernel": 3}}


class Hidden(kt.oracles.RandomSearchOracle):
    """A subclass of KerasTuner's that draws in its own way: KerasTuner's way of refusing does not reach it."""

    def populate_space(self, trial_id):
        return Stubborn.populate_space(self, trial_id)

    widths = Stubborn.widths


def own(oracle_class, folder, trials):
    oracle = oracle_class(objective=kt.Objective("val_accuracy", "max"), max_trials=trials)
    return edgeml.budgeted(fake(kt.Tuner), edgeml.Budget(params=200))(
        oracle=oracle, hypermodel=build, directory=folder, project_name="p"
    )


@pytest.mark.parametrize("oracle_class", [Stubborn, Hidden])
def test_somebody_elses_oracle_is_asked_again(oracle_class, tmp_path):
    tuner = own(oracle_class, tmp_path, 5)
    tuner.search()
    found = [trial.hyperparameters["width"] for trial in tuner.oracle.trials.values()]
    assert found == [4, 8, 12, 4, 8]


def test_somebody_elses_oracle_that_proposes_nothing_that_fits_is_stopped_with_the_reason(tmp_path):
    tuner = own(Endless, tmp_path / "1", 5)
    with pytest.warns(UserWarning, match=r"BudgetedEndless: 1,000 proposals in a row for trial 1 were over budget"):
        tuner.search()
    assert len(tuner.oracle.trials) == 1
    tuner = own(Hopeless, tmp_path / "2", 5)
    with pytest.raises(BudgetError, match="no network of the space fits") as caught:
        tuner.search()
    assert "1,000 proposals in a row" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "tuner_class", [kt.RandomSearch, kt.BayesianOptimization, edgeml.tuners.TPE, edgeml.tuners.NSGA2]
)
def test_seed_0_is_a_seed(tuner_class, tmp_path):
    def proposed(name):
        options = {"max_trials": 5, "directory": tmp_path, "project_name": name, "seed": 0, "objective": "val_accuracy"}
        tuner = edgeml.budgeted(tuner_class, edgeml.Budget(params=10_000))(build, **options)
        found = []
        for _ in range(5):
            trial = tuner.oracle.create_trial("one")
            found.append(dict(trial.hyperparameters.values))
            tuner.oracle.update_trial(trial.trial_id, {"val_accuracy": len(found) / 7})
            trial.status = "COMPLETED"
            tuner.oracle.end_trial(trial)
        return found

    assert proposed("1") == proposed("2")


def test_an_order_to_stop_is_obeyed(tmp_path):
    def fatal(hp):
        build(hp)
        raise kt.errors.FatalError("stop everything")

    with pytest.raises(kt.errors.FatalError, match="stop everything"):
        search(tuner_of(kt.RandomSearch, tmp_path, 300, fatal, max_trials=3))


def deferred(hp):
    model = keras.Sequential([L.Flatten(), L.Dense(hp.Int("units", 4, 64, step=4)), L.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Subclassed(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.flat, self.inner, self.last = L.Flatten(), L.Dense(units), L.Dense(3, activation="softmax")

    def call(self, x):
        return self.last(self.inner(self.flat(x)))


def subclassed(hp):
    model = Subclassed(hp.Int("units", 4, 64, step=4))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def unusual(hp):
    x = inputs = keras.Input((6, 6, 1))
    x = L.GRU(hp.Int("units", 4, 64, step=4))(L.LayerNormalization()(L.Reshape((6, 6))(x)))
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("build", [deferred, subclassed, unusual])
def test_a_network_that_is_not_read_layer_by_layer_is_charged_its_weights(build, tmp_path):
    tuner = search(tuner_of(kt.RandomSearch, tmp_path, 1_000, build, max_trials=2))
    trials = tuner.oracle.trials.values()
    assert [trial.status for trial in trials] == 2 * ["COMPLETED"]
    for trial in trials:
        model = build(trial.hyperparameters)
        model(keras.Input((6, 6, 1)))
        assert tuner.feasibility.cost(trial.hyperparameters.values).params == model.count_params() <= 1_000
    assert tuner.feasibility.refused["params"] > 0


def test_what_such_a_network_needs_beyond_weights_is_not_guessed(tmp_path):
    for kind, limits in ((kt.RandomSearch, {"macs": 10_000}), (edgeml.tuners.NSGA2, {})):  # which minimises MACs
        budget = edgeml.Budget(params=1_000, **limits)
        options = {"objective": "val_accuracy", "directory": tmp_path / kind.__name__, "max_trials": 2}
        with pytest.raises(TargetError, match="its cost is not known"):
            search(edgeml.budgeted(kind, budget)(unusual, **options))


def test_a_tuner_without_a_hypermodel_has_nothing_to_count(tmp_path):
    class Own(kt.RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            return {"val_accuracy": trial.hyperparameters.Int("units", 1, 9) / 10}

    with pytest.raises(UsageError, match="got no hypermodel; a build function or HyperModel is required"):
        edgeml.budgeted(Own, edgeml.Budget(params=9))(objective="val_accuracy", max_trials=2, directory=tmp_path)


@pytest.mark.parametrize("tuner_class", [kt.RandomSearch, kt.GridSearch])
def test_a_space_of_one_network_is_searched_once(tuner_class, tmp_path):
    def only(hp):
        fixed = kt.HyperParameters()
        fixed.Fixed("width", 4)
        fixed.Fixed("kernel", 3)
        return build(fixed)

    assert len(search(tuner_of(tuner_class, tmp_path, 10_000, only, max_trials=3)).oracle.trials) == 1


def test_a_search_that_finds_nothing_for_long_gives_a_sign(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml.search.tuner.TELLING", 4)
    monkeypatch.setattr("edgeml.search.oracles._refusing.TRIES", 8)
    tuner = tuner_of(kt.RandomSearch, tmp_path, 9, max_trials=2)
    with (
        pytest.warns(UserWarning, match="4 networks in a row were refused; the smallest that was built has"),
        pytest.raises(BudgetError),
    ):
        search(tuner)


def test_a_cost_that_nobody_counts_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match=r"minimised: got 'mac'; .*Did you mean 'macs'"):
        edgeml.tuners.NSGA2(build, objective="val_accuracy", directory=tmp_path, minimised=("mac",))


def test_the_first_step_is_traced_once(tmp_path):
    calls = []

    class Counted(L.Layer):
        def call(self, x, training=None):
            calls.extend([1] if training else [])
            return x

    def counted(hp):
        hp.Int("width", 4, 8)
        inputs = keras.Input((6, 6, 1))
        model = keras.Model(inputs, L.Dense(3, "softmax")(L.Flatten()(Counted()(inputs))))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        return model

    found = {}
    ours = edgeml.budgeted(kt.RandomSearch, edgeml.Budget(params=10_000))
    for name, tuner_class in (("KerasTuner", kt.RandomSearch), ("ours", ours)):
        tuner = tuner_class(
            counted, objective="val_accuracy", directory=tmp_path / name, project_name="p", seed=1, max_trials=1
        )
        calls.clear()
        search(tuner)
        found[name] = len(calls)
    assert found == {"KerasTuner": 2, "ours": 1}


def test_a_latency_limit_is_kept_by_prediction(tmp_path, monkeypatch):
    from edgeml import calibration, calibration_draw
    from edgeml.search import tuner as module

    for name, value in {"NETWORKS": 8, "HELD_OUT": 2, "LEAST_NETWORKS": 8, "ROUNDS": 3, "WORST_P90": 100.0}.items():
        monkeypatch.setattr(calibration_draw if hasattr(calibration_draw, name) else calibration, name, value)
    monkeypatch.setattr(module, "CALIBRATION_DRAWS", 60)
    limit = edgeml.Limit("host", "litert", "float32", max_ms=1.0)
    options = {"objective": "val_accuracy", "directory": tmp_path, "seed": 1, "max_trials": 2}
    loose = edgeml.budgeted(kt.RandomSearch, edgeml.Budget(latency=[limit]))(build, project_name="loose", **options)
    search(loose)
    assert len(loose.oracle.trials) == 2
    predicted = [
        loose.feasibility.needs(t.hyperparameters.values).predicted[limit] for t in loose.oracle.trials.values()
    ]
    assert all(0 < one.safe_ms <= 1.0 for one in predicted)
    assert (tmp_path / "loose" / "devices" / "litert_float32.toml").is_file()

    tight = edgeml.Limit("host", "litert", "float32", max_ms=1e-9)
    none = edgeml.budgeted(kt.RandomSearch, edgeml.Budget(latency=[tight]))(build, project_name="tight", **options)
    (tmp_path / "tight").mkdir(exist_ok=True)
    (tmp_path / "loose" / "devices").rename(tmp_path / "tight" / "devices")  # as a search that goes on finds it
    with pytest.raises(BudgetError, match="latency on host/litert/float32"):
        search(none)
    assert not none.oracle.trials
