"""What TensorBoard reads back of a search is what the ledger says."""

import json

import keras
import numpy as np
import pytest
from foreign import SMALL_SPACE, install
from PIL import Image
from spies import Dies
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler
from tensorboard.util import tensor_util

import edgeml
from edgeml import pipeline, recipe_file, run_folder, tensorboards
from edgeml.errors import IntegrityError, TrialsError
from edgeml.records import Cost
from edgeml.runtimes.keras import load
from edgeml.search import runner, space, trial
from edgeml.search.engine import Job, Outcome

RECIPE = """
schema_version: 1
name: tiny
data: {source: digits}
search: {space: small, max_trials: 1, epochs: 2, batch_size: 512, tensorboard: true}
train: {epochs: 2, finalists: 1}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A trial and a finalist with logs, and the same ones without."""
    folder = tmp_path_factory.mktemp("boards")
    with pytest.MonkeyPatch.context() as patch:
        install(patch, folder / "package", "search_spaces", "small", SMALL_SPACE)
        (folder / "tiny.yaml").write_text(RECIPE)
        with_logs, without = (
            edgeml.run_search(folder / "tiny.yaml", folder / name, overrides=more, finalists=True, in_process=True)
            for name, more in (("run", []), ("plain", ["search.tensorboard=false"]))
        )
    return folder, with_logs[0], without[0]


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def values(found, tag):
    return [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in found.Tensors(tag)]


STATUSES = {api_pb2.STATUS_UNKNOWN: "unknown", api_pb2.STATUS_SUCCESS: "success", api_pb2.STATUS_FAILURE: "failure"}


def statuses(folder):
    """What TensorBoard's HParams page says of each session below a run's folder."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder / "tensorboard"))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    everything = api_pb2.ListSessionGroupsRequest(allowed_statuses=list(STATUSES), slice_size=100)
    listed = Handler(RequestContext(), Context(TBContext(data_provider=provider)), "", everything).run()
    return {s.name: STATUSES[s.status] for group in listed.session_groups for s in group.sessions}


def test_scalars_are_the_ledgers(searched):
    folder, trial, _ = searched
    found = events(folder / "run" / "tensorboard" / trial.id)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [step for step, _ in values(found, name)] == [0, 1]
        assert [value for _, value in values(found, name)] == pytest.approx([e[name] for e in trial.epochs], rel=1e-6)
    assert values(found, "score/val_accuracy")[-1][1] == pytest.approx(trial.metrics["val_accuracy"], rel=1e-6)


def test_hyperparameters_are_the_trials(searched):
    folder, trial, _ = searched
    metadata = events(folder / "run" / "tensorboard" / trial.id).summary_metadata
    parts = [
        plugin_data_pb2.HParamsPluginData.FromString(metadata[f"_hparams_/session_{part}_info"].plugin_data.content)
        for part in ("start", "end")
    ]
    known = parts[0].session_start_info.hparams
    assert {name: value.number_value for name, value in known.items()} == trial.hyperparameters
    assert parts[0].session_start_info.group_name == trial.id  # TensorBoard averages over a group
    assert parts[1].session_end_info.status == 1


def test_histograms_count_every_weight_and_activation(searched):
    folder, trial, _ = searched
    found = events(folder / "run" / "tensorboard" / trial.id)
    weights = [tag for tag in found.Tags()["tensors"] if tag.startswith("weights/")]
    (kernel,) = [tag for tag in weights if "dense" in tag and tag.endswith("kernel")]
    assert len(weights) == 1 + 4 + 2  # convolution, normalisation, classifier
    assert [values(found, kernel)[step][1][:, 2].sum() for step in (0, 1)] == 2 * [10 * trial.hyperparameters["width"]]
    activations = values(found, "activations/act_0")[1][1]
    assert activations[:, 0].min() >= 0  # a ReLU's
    assert activations[:, 2].sum() % (4 * 4 * trial.hyperparameters["width"]) == 0


def test_a_finalists_embedding_has_a_vector_a_class_and_an_image_per_sample(searched):
    folder, trial, _ = searched
    place = folder / "run" / "tensorboard" / f"finalist_{trial.id}"
    vectors, names = np.loadtxt(place / "tensors.tsv"), (place / "metadata.tsv").read_text().split()
    labels = np.load(folder / "run" / "data" / "y_validation.npy")[: len(vectors)]
    images = np.load(folder / "run" / "data" / "x_validation.npy")
    assert vectors.shape == (min(len(images), tensorboards.SAMPLES), trial.hyperparameters["width"])
    assert names == [str(label) for label in labels]
    side = int(np.ceil(np.sqrt(len(vectors))))
    with Image.open(place / "sprite.png") as sprite:
        assert sprite.size == (8 * side, 8 * side)
        second = np.asarray(sprite)[:8, 8:16]
    np.testing.assert_allclose(second, images[1, ..., 0] * 255 / 16, atol=1)
    assert not (folder / "run" / "tensorboard" / trial.id / "tensors.tsv").exists()


def test_a_finalists_score_and_embedding_are_of_the_network_that_is_kept(searched):
    folder, kept, _ = searched
    place = folder / "run" / "tensorboard" / f"finalist_{kept.id}"
    ledger = [json.loads(line) for line in (folder / "run" / "ledger.jsonl").read_text().splitlines()]
    (entry,) = [entry for entry in ledger if entry["event"] == "finalist_trained"]
    ((step, score),) = values(events(place), "score/val_accuracy")
    assert (step, score) == (1, pytest.approx(entry["metrics"]["val_accuracy"], rel=1e-6))
    model = load(folder / "run" / "finalists" / kept.id / "model.keras")
    images = np.load(folder / "run" / "data" / "x_validation.npy")[: tensorboards.SAMPLES]
    expected = tensorboards._Probe(model).embedding(images)
    np.testing.assert_allclose(np.loadtxt(place / "tensors.tsv"), expected, rtol=1e-3, atol=1e-4)


class Breaks(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise ValueError("broken")


class Diverges(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = float("nan")


@pytest.mark.parametrize(
    ("callbacks", "change", "status"),
    [([], {}, "completed"), ([Breaks()], {}, "failed"), ([Diverges()], {}, "diverged"), ([], {"macs": 1}, "refused"),
     ([], {"space": "gone"}, "failed")],
)  # fmt: skip
def test_every_session_ends_as_its_trial_does(searched, monkeypatch, callbacks, change, status):
    folder, kept, _ = searched
    monkeypatch.syspath_prepend(folder / "package")
    text = RECIPE.replace("max_trials: 1,", "max_trials: 1, objective: val_balanced_accuracy,")
    files = run_folder.RunFiles(folder / "run", recipe_file.parse(text, "r"))
    arrays = files.splits()
    networks = space.of_run(files, arrays)
    cost = kept.cost if "macs" not in change else Cost(**{**vars(kept.cost), **change})
    values_ = kept.hyperparameters if "space" not in change else {"width": "no number"}
    job = Job("t0099", "trial", "small", values_, cost)
    if status == "refused":
        with pytest.raises(IntegrityError):
            trial.carry_out(files, networks, arrays, job, lambda number, metrics: None, callbacks)
    else:
        outcome = trial.carry_out(files, networks, arrays, job, lambda number, metrics: None, callbacks)
        assert outcome.status == status
    found = events(folder / "run" / "tensorboard" / "t0099")
    content = found.summary_metadata["_hparams_/session_end_info"].plugin_data.content
    ended = plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info
    assert ended.status == (1 if status == "completed" else 2)  # hparams/api.proto: success, failure
    scores = [tag for tag in found.Tags()["tensors"] if tag.startswith("score/")]
    assert scores == (["score/val_balanced_accuracy"] if status == "completed" else [])
    if status == "completed":
        assert values(found, scores[0])[-1][1] == pytest.approx(outcome.metrics["val_balanced_accuracy"], rel=1e-6)


@pytest.mark.slow
def test_the_session_of_a_killed_process_ends_as_failed(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", SMALL_SPACE)
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("epochs: 2, b", "epochs: 1, b"))
    monkeypatch.setattr(pipeline, "ATTEMPTS", 1)
    with pytest.raises(TrialsError, match=r"none of 1 finalists .* crashed: its process was killed by SIGKILL"):
        edgeml.run_search(tmp_path / "tiny.yaml", tmp_path / "run", callbacks=[Dies(epoch=1)], finalists=True)
    assert statuses(tmp_path / "run") == {"t0000": "success", "finalist_t0000": "failure"}
    (step,) = {step for step, _ in values(events(tmp_path / "run" / "tensorboard" / "finalist_t0000"), "val_loss")}
    assert step == 0  # what was written before is there


class Killed:
    """An engine whose processes are killed as soon as they have begun to train, in the midst of a record."""

    workers = 1

    def __init__(self, run, status):
        self.run, self.status, self.seen = run, status, []

    def warm_up(self):
        pass

    def submit(self, job):
        self.job = job

    def wait(self, on_epoch):
        board = trial._board(self.run, self.run.splits(), self.job)
        board.begin()
        board._events._file.close()
        (file,) = (self.run.root / "tensorboard" / self.job.id).iterdir()
        with file.open("ab") as torn:
            torn.write(b"\x10\x00\x00")
        self.seen.append(statuses(self.run.root))
        return self.job, Outcome(self.status)


@pytest.mark.parametrize(("status", "attempts"), [("crashed", 2), ("timed_out", 1)])
def test_a_session_has_no_end_while_its_trial_is_tried_again(searched, monkeypatch, tmp_path, status, attempts):
    folder, _, _ = searched
    monkeypatch.syspath_prepend(folder / "package")
    recipe = recipe_file.parse(RECIPE, "r")
    run = run_folder.begin(tmp_path / "run", recipe, keep_finished=False)
    files = run_folder.RunFiles(folder / "run", recipe)
    run.save_data(files.splits(), files.partition(), files.dataset())
    engine, networks = Killed(run, status), space.of_run(run, run.splits())
    with pytest.raises(TrialsError):
        runner.search(run, networks, space.feasibility_of(recipe, networks), engine, lambda event: None)
    run.close()
    assert engine.seen == attempts * [{"t0000": "unknown"}]
    assert statuses(tmp_path / "run") == {"t0000": "failure"}


def test_a_network_without_a_session_gets_none(tmp_path):
    tensorboards.end_lost(tensorboards.folder_of(tmp_path, "t0000"))
    assert not list(tmp_path.iterdir())


def test_logs_change_nothing(searched):
    folder, trial, plain = searched
    assert (trial.epochs, trial.metrics) == (plain.epochs, plain.metrics)
    assert not (folder / "plain" / "tensorboard").exists()
    finalists = [(folder / run / "finalists" / trial.id / "model.keras").exists() for run in ("run", "plain")]
    assert finalists == [True, True]
