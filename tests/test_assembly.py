"""From finalists to files: a graph that turns out too large gives way, a file that does is refused."""

from dataclasses import replace

import keras
import networks
import numpy as np
import pytest

from edgeml import assembly, delivery, descriptions, exporting, recipe_file
from edgeml.assembly import Field
from edgeml.errors import BudgetError
from edgeml.folding import fold_batch_norm
from edgeml.runtimes.keras import output_names
from edgeml.search.candidates import Candidate

L = keras.layers
SAMPLES, CLASSES = 400, 4


def recipe(budget):
    return recipe_file.parse(f"schema_version: 1\nname: x\ndata: {{source: digits}}\nbudget: {{{budget}}}\n", "r.yaml")


@pytest.fixture(scope="module")
def field():
    """Three networks of one cost that err independently, so that more of them are better."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SAMPLES)
    logits = 2 * np.eye(CLASSES)[labels] + rng.normal(0, 1, (3, SAMPLES, CLASSES))
    blend = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    models = tuple(
        keras.Sequential([keras.Input((6,), name="image"), L.Dense(CLASSES), L.Softmax()], name=f"m{i}")
        for i in range(3)
    )
    finalists = tuple(
        Candidate(f"t000{i}", "dense", 1, {}, assembly.fold(model).cost, "completed") for i, model in enumerate(models)
    )
    return Field(finalists, models, blend, labels, ((), (), ()), 6)


def test_a_set_whose_graph_is_over_budget_gives_way_to_a_smaller_one(field, monkeypatch):
    fold, seen = assembly.fold, []

    def larger(trained, files, **options):
        graph = fold(trained, files, **options)
        seen.append(graph.cost.params)
        extra = 1_000 if graph.cost.params > 60 else 0  # 28 a network: what the sum of three did not foresee
        return replace(graph, cost=replace(graph.cost, params=graph.cost.params + extra))

    monkeypatch.setattr(assembly, "fold", larger)
    choice, graph = assembly._within_budget(recipe("params: 500"), field)
    assert len(choice.members) == 2
    assert graph.cost.params == seen[-1] < 60
    assert seen[0] > 60


def test_a_network_that_is_over_budget_by_itself_ends_the_run(field, monkeypatch):
    fold = assembly.fold
    monkeypatch.setattr(
        assembly,
        "fold",
        lambda *given, **options: replace(graph := fold(*given, **options), cost=replace(graph.cost, macs=10**6)),
    )
    with pytest.raises(BudgetError, match="the compiled graph is over it: macs 1,000,000 > 500"):
        assembly._within_budget(recipe("macs: 500"), field)


def picture_field():
    """Two networks on pictures whose first convolutions could run as one."""
    models = tuple(networks.separable("relu", classes=CLASSES, seed=seed) for seed in range(2))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, SAMPLES)
    logits = 2 * np.eye(CLASSES)[labels] + rng.normal(0, 1, (2, SAMPLES, CLASSES))
    blend = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    finalists = tuple(
        Candidate(f"t000{i}", "x", 1, {}, assembly.fold(model).cost, "completed") for i, model in enumerate(models)
    )
    return Field(finalists, models, blend, labels, ((), ()), 12 * 12 * 3)


def test_first_convolutions_merge_where_all_files_are_int8_and_the_budget_allows_it():
    field = picture_field()

    def assembled(precision, budget=""):
        base = recipe(budget)
        own = replace(base, export=replace(base.export, precision=precision))
        choice, graph = assembly._within_budget(own, field)
        assert len(choice.members) == 2
        assert any(isinstance(layer, L.BatchNormalization) for layer in graph.trained._flatten_layers())
        return graph

    def is_merged(graph):
        return "split" in [operator.kind for operator in graph.operators]

    merged, plain = assembled(("int8",)), assembled(("float32", "int8"))
    assert is_merged(merged)
    assert not is_merged(plain)
    most = plain.cost.peak_activation_bytes
    assert merged.cost.peak_activation_bytes > most
    assert not is_merged(assembled(("int8",), f"peak_activation_bytes: {merged.cost.peak_activation_bytes - 1}"))


def test_a_network_that_is_called_ensemble_is_folded_as_any_other():
    x = keras.Input((4, 4, 1))
    ends = [L.Conv2D(3, 2)(L.ZeroPadding2D(1)(x)) for _ in range(2)]
    model = keras.Model(x, {"sums": L.Add()(ends)}, name="ensemble")
    assert output_names(assembly.fold(model).folding.model) == ["sums"]


@pytest.fixture(scope="module")
def graph():
    return assembly.fold(fold_batch_norm(networks.separable("relu")).model)


def test_what_was_written_is_counted_and_held_against_the_budget(graph, tmp_path):
    samples = {graph.folding.model.inputs[0].name: networks.pictures(8)}
    known = descriptions.of_model(graph.folding.model, samples, "NHWC", list("abcde"))

    def written_within(budget):
        return delivery._written(recipe(budget), graph, known, tmp_path, samples, {}, lambda event: None)

    written, artifacts = written_within("")
    sizes = {(a.target, a.precision): a.path.stat().st_size for a in artifacts}
    assert {(t, p): size for t, by in written.cost.file_bytes.items() for p, size in by.items()} == sizes
    assert written.cost.arena_bytes["int8"] == pytest.approx(graph.cost.arena_bytes["int8"], rel=0.01)
    assert exporting.as_written(graph.cost, artifacts) == written.cost
    asked = recipe("").export
    bare = exporting.write(graph.folding.model, tmp_path, asked.targets, asked.precision, samples, lambda event: None)
    largest = max(a.path.stat().st_size for a in bare)
    assert largest < max(sizes.values()), "what tells of itself gives way first"
    written_within(f"file_bytes: {largest}")
    with pytest.raises(BudgetError, match=f"what was exported is over it: file_bytes {largest:,} > {largest - 1:,}"):
        written_within(f"file_bytes: {largest - 1}")
