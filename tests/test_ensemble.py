"""Ensembles: weights against planted truths, graphs against NumPy, choices against budgets."""

from collections import Counter

import keras
import numpy as np
import pytest

import edgeml
from edgeml import arena, costs, ensemble, exporting, recipe
from edgeml.ensemble import choice as choice_module
from edgeml.ensemble import sets, weights
from edgeml.ensemble.charge import total
from edgeml.ensemble.means import blend
from edgeml.errors import BudgetError
from edgeml.file_bytes import at_most, file_bytes
from edgeml.keras_operators import keras_operators
from edgeml.records import Budget, Cost, Limit
from edgeml.tflite_operators import tflite_operators

L = keras.layers
MEANS = ("arithmetic", "geometric")
ALL_MEANS = tuple(ensemble.MEANS)


def members(count, samples=400, classes=4, skill=(2.0, 2.0, 0.0), seed=0):
    """Members whose logits hold the truth with ``skill``, and noise of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = np.stack([s * np.eye(classes)[labels] + rng.normal(0, 1, (samples, classes)) for s in skill[:count]])
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), labels


def planted(seed, skill=1.0):
    """Six good candidates that err together, and a weak one whose mistakes are its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 1500)
    truth, shared = np.eye(4)[labels], rng.normal(0, 1.3, (1500, 4))
    logits = [2.2 * truth + shared + rng.normal(0, 0.05, (1500, 4)) for _ in range(6)]
    logits.append(skill * truth + rng.normal(0, 0.9, (1500, 4)))
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), labels


# --- weights


@pytest.mark.parametrize("mean", ALL_MEANS)
def test_useless_members_get_little_and_equal_ones_alike(mean):
    probs, labels = members(3)
    found = ensemble.fit_weights(probs, labels, mean=mean)
    assert found.sum() == pytest.approx(1)
    assert found[2] < 0.06
    assert abs(found[0] - found[1]) < 0.25
    plain = ensemble.log_loss(ensemble.blend(probs, np.full(3, 1 / 3), mean), labels)
    assert ensemble.log_loss(ensemble.blend(probs, found, mean), labels) < plain


def test_uniform_and_single_members():
    probs, labels = members(3)
    np.testing.assert_allclose(ensemble.fit_weights(probs, labels, "uniform"), 1 / 3)
    np.testing.assert_array_equal(ensemble.fit_weights(probs[:1], labels), [1])


def test_fitting_is_reproducible():
    probs, labels = members(3)
    np.testing.assert_array_equal(ensemble.fit_weights(probs, labels), ensemble.fit_weights(probs, labels))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, y: (p[0], y, "uniform"), r"got shape \(400, 4\)"),
        (lambda p, y: (p, y[:-1], "uniform"), r"labels of shape \(399,\)"),
        (lambda p, y: (p, y[:, None], "nelder-mead"), r"labels of shape \(400, 1\).*class indices"),
        (lambda p, y: (p, y, "nelder"), "method: got 'nelder'; nelder-mead, greedy, random, uniform are allowed"),
        (lambda p, y: (p[:1], y, "nelder"), "method: got 'nelder'"),
        (lambda p, y: (p * np.nan, y, "nelder-mead"), "NaN"),
        (lambda p, y: (p - 0.5, y, "nelder-mead"), "probabilities are due, from 0 to 1"),
        (lambda p, y: (3 * p, y, "uniform"), "got rows that sum to 3 to 3"),
        (lambda p, y: (p, y - 1, "uniform"), "labels: got -1 to 2; class indices are due, 0 to 3"),
        (lambda p, y: (p, y + 1, "uniform"), "labels: got 1 to 4"),
        (lambda p, y: (p, y.astype(float), "uniform"), "labels: got float64"),
        (lambda p, y: (p[:, :0], y[:0], "uniform"), r"got shape \(3, 0, 4\)"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        ensemble.fit_weights(*change(*members(3)))


def test_blend_is_the_textbook_mean():
    probs, _ = members(3, samples=5)
    w = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(ensemble.blend(probs, w), sum(a * p for a, p in zip(w, probs, strict=True)))
    product = np.prod([p**a for a, p in zip(w, probs, strict=True)], axis=0)
    np.testing.assert_allclose(ensemble.blend(probs, w, "geometric"), product / product.sum(axis=1, keepdims=True))
    powers = sum(a * np.exp(p) for a, p in zip(w, probs, strict=True))
    np.testing.assert_allclose(ensemble.blend(probs, w, "exponential"), powers / powers.sum(axis=1, keepdims=True))


def as_several(probs, shares, mean):
    """The mean as it is fitted: of one member that has all the weight, too."""
    one = ensemble.MEANS[mean]
    return one.finish(np.tensordot(shares, one.term(probs), axes=1))


@pytest.mark.parametrize("mean", ALL_MEANS)
@pytest.mark.parametrize("method", ["greedy", "random"])
def test_other_methods_come_near_the_least_loss(method, mean):
    for seed, skill in enumerate([(2.0, 2.0, 0.0), (1.0, 0.2, 1.5), (3.0, 1.0, 1.0)]):
        probs, labels = members(3, skill=skill, seed=seed)
        least, found, even = (
            ensemble.log_loss(as_several(probs, ensemble.fit_weights(probs, labels, one, mean=mean), mean), labels)
            for one in ("nelder-mead", method, "uniform")
        )
        assert least - 1e-6 <= found <= min(even, least + 0.005)


def test_greedy_weights_are_shares_of_a_bag_and_drop_the_useless():
    probs, labels = members(3, skill=(3.0, 2.9, 0.0))
    found = ensemble.fit_weights(probs, labels, "greedy")
    assert found[2] == 0
    size = next(n for n in range(1, weights.BAG + 1) if np.allclose(n * found, np.round(n * found)))
    assert size <= weights.BAG
    probs, labels = members(2, skill=(6.0, 0.0), samples=50)
    np.testing.assert_array_equal(ensemble.fit_weights(probs, labels, "greedy"), [1, 0])


def test_random_search_follows_its_seed():
    probs, labels = members(3)
    first, again, other = (ensemble.fit_weights(probs, labels, "random", seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_flat_start_does_not_end_the_search_for_weights():
    """SciPy's own first simplex around zero is 0.00025 wide: all its corners are alike, and it ended there."""
    probs, labels = planted(0)
    probs = np.concatenate([probs[:2], probs[-1:]])
    found = ensemble.fit_weights(probs, labels, mean="geometric")
    assert abs(found - 1 / 3).max() > 0.05


def test_folds_are_alike_in_size_and_classes():
    labels = np.repeat([0, 1, 2], [50, 30, 10])
    for seed in (0, 1):
        fold = weights.folds(labels, seed)
        assert [np.bincount(labels[fold == number]).tolist() for number in range(5)] == [[10, 6, 2]] * 5
    assert (weights.folds(labels, 0) != weights.folds(labels, 1)).any()


@pytest.mark.parametrize("mean", ALL_MEANS)
def test_one_fit_finds_the_best_of_many(mean):
    from scipy.optimize import minimize

    for seed, skill in enumerate([(2.0, 2.0, 0.0), (1.0, 0.2, 1.5), (3.0, 1.0, 1.0), (0.5, 0.4, 0.3)]):
        probs, labels = members(3, skill=skill, seed=seed)

        def loss(t, probs=probs, labels=labels):
            w = np.exp(np.append(t, 0.0))
            return ensemble.log_loss(ensemble.blend(probs, w / w.sum(), mean), labels)

        starts = np.random.default_rng(seed).normal(0, 2, (8, 2))
        best = min(minimize(loss, start, method="BFGS").fun for start in starts)
        found = ensemble.log_loss(ensemble.blend(probs, ensemble.fit_weights(probs, labels, mean=mean), mean), labels)
        assert found <= best + 1e-5


# --- differences and sets


def test_differences_by_hand():
    labels = np.array([0, 0, 1, 1])
    votes = np.array([[0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    found = ensemble.pairwise(np.eye(2)[votes], labels)
    np.testing.assert_allclose(found.disagreement, [[0, 0.25, 0.25], [0.25, 0, 0.5], [0.25, 0.5, 0]])
    np.testing.assert_allclose(found.double_fault, [[0.25, 0.25, 0], [0.25, 0.5, 0], [0, 0, 0]])
    a, b = np.array([0, 0, 0, 1.0]), np.array([0, 1, 0, 1.0])
    assert found.error_correlation[0, 1] == pytest.approx(np.corrcoef(a, b)[0, 1])
    np.testing.assert_allclose(np.diag(found.error_correlation), 1)
    assert found.error_correlation[0, 2] == 0  # the third never errs


@pytest.mark.parametrize("seed", range(6))
def test_growth_finds_the_best_of_all_sets(seed):
    """Of ten candidates with costs, whose sets can all be tried."""
    from itertools import combinations

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    logits = rng.uniform(0, 2, (10, 1, 1)) * np.eye(3)[labels] + rng.normal(0, 1, (10, 300, 3))
    powers = np.exp(logits)
    true = (powers / powers.sum(axis=2, keepdims=True))[:, np.arange(300), labels]
    cost = rng.integers(1, 10, 10)
    fits = lambda one: cost[list(one)].sum() <= 14  # noqa: E731
    grown = sets.grow(true, fits, 3)
    for size in (2, 3):
        every = [one for one in combinations(range(10), size) if fits(one)]
        worth = {one: -np.log(sets._settled(true[list(one)])).mean() for one in every}
        best = min(worth, key=worth.get)
        assert worth[grown.by_size[size][0]] <= worth[best] + 1e-9
        assert all(fits(one) for one in grown.by_size[size])
    assert sets.grow(true, lambda one: False, 3) == sets.Grown({}, {}, 0)
    assert list(sets.grow(true[:1], fits, 3).by_size) == [1]


# --- the graph


def network(seed, classes=5, width=8, head="layer", name="net"):
    keras.utils.set_random_seed(seed)
    x = keras.Input((6, 6, 2), name="image")
    y = L.BatchNormalization(name="norm")(L.Conv2D(width, 3, use_bias=False, name="conv")(x))
    y = L.Dense(classes, kernel_initializer="glorot_normal", name="logits")(L.Flatten()(L.ReLU()(y)))
    y = {"layer": L.Softmax(name="soft"), "activation": L.Activation("softmax", name="soft")}[head](y)
    model = keras.Model(x, y, name=name)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.random.default_rng(seed).normal(0, 0.3, width))
    return model


IMAGES = np.random.default_rng(1).normal(0, 2, (32, 6, 6, 2)).astype("float32")


@pytest.mark.parametrize("mean", ALL_MEANS)
def test_the_charge_is_that_of_the_graph_or_a_little_more(mean):
    models = [network(s, width=8 * (s + 1)) for s in range(3)]
    alone = [edgeml.cost(model) for model in models]
    real = edgeml.cost(edgeml.compile_ensemble(models, [0.5, 0.2, 0.3], mean))
    charged = total(alone, 6 * 6 * 2, 5, mean)
    assert real.params == charged.params - (3 if mean == "geometric" else 0)
    assert real.macs == charged.macs
    assert max(c.peak_activation_bytes for c in alone) <= real.peak_activation_bytes <= charged.peak_activation_bytes
    spared = 3 * (180 + 260) if mean == "geometric" else 0  # the members' softmax; a weight, which joins a dense layer
    assert real.arena_bytes["int8"] <= charged.arena_bytes["int8"] <= 1.1 * real.arena_bytes["int8"] + spared
    extra = {"float32": 12, "int8": 3} if mean == "geometric" else {"float32": 0, "int8": 0}
    assert all(real.weight_bytes[p] + more == charged.weight_bytes[p] for p, more in extra.items())
    assert all(real.weight_bytes[p] <= size for p, size in charged.weight_bytes.items())
    for target, by_precision in real.file_bytes.items():
        for precision, size in by_precision.items():
            assert 0.98 * size <= charged.file_bytes[target][precision] <= 1.1 * size + 3_000


@pytest.mark.parametrize("mean", ALL_MEANS)
def test_a_graph_of_three_is_predicted_as_its_file_is(mean, tmp_path):
    graph = edgeml.compile_ensemble([network(s, width=8 * (s + 1)) for s in range(3)], [0.5, 0.2, 0.3], mean)
    samples = {graph.inputs[0].name: IMAGES}
    files = exporting.write(graph, tmp_path, ["tflite", "onnx"], ["float32", "int8"], samples, lambda event: None)
    operators = keras_operators(graph)
    written = tflite_operators(tmp_path / exporting.file_name("tflite", "int8"))
    assert Counter(o.kind for o in arena.as_converted(operators)) == Counter(o.kind for o in written)
    assert arena.arena_bytes(operators) == pytest.approx(arena.file_arena_bytes(written), rel=0.001)
    most = at_most(file_bytes(operators))
    charged = total([costs.charged(edgeml.cost(network(s, width=8 * (s + 1)))) for s in range(3)], 72, 5, mean)
    for file in files:
        size = file.path.stat().st_size
        assert 0.7 * most[file.target][file.precision] <= size <= most[file.target][file.precision]
        assert size <= charged.file_bytes[file.target][file.precision]
    assert arena.file_arena_bytes(written) <= charged.arena_bytes["int8"]


def test_a_mean_that_is_over_budget_is_not_taken():
    probs, labels = planted(0)
    cost = edgeml.cost(network(0))
    two = [total([cost, cost], 72, 4, mean).arena_bytes["int8"] for mean in ("arithmetic", "exponential")]
    assert two[0] < two[1]
    for most, fits in ((two[1], True), (two[1] - 1, False)):
        budget, config = Budget(arena_bytes=most), recipe.Ensemble(mean="exponential", max_members=2, keep="always")
        found = ensemble.choose(probs, labels, [cost] * len(probs), budget, config, input_elements=72)
        assert (found.mean == "exponential") == fits
    auto = recipe.Ensemble(max_members=2, keep="always")
    found = ensemble.choose(probs, labels, [cost] * len(probs), Budget(arena_bytes=two[0]), auto, input_elements=72)
    assert len(found.members) == 2
    assert found.mean != "exponential"


def test_a_mean_that_a_target_cannot_take_is_not_chosen():
    probs, labels = planted(0)
    given = probs, labels, [cost_of(100)] * len(probs), Budget(), recipe.Ensemble(max_members=2, keep="always")
    assert ensemble.choose(*given).mean == "geometric"
    others = [mean for mean in ensemble.MEANS if mean != "geometric"]
    assert ensemble.choose(*given, means=others).mean in others


# --- the choice


def cost_of(params, peak=10):
    return Cost(params, 10 * params, {}, peak)


def chosen(probs, labels, costs, budget=None, **options):
    measured = options.pop("latency_ms", ())
    return ensemble.choose(
        probs, labels, costs, budget or Budget(), recipe.Ensemble(**options), latency_ms=measured, input_elements=4
    )


def test_good_members_join_the_useless_one_does_not():
    probs, labels = members(3)
    choice = chosen(probs, labels, [cost_of(100)] * 3)
    assert set(choice.members) == {0, 1}
    assert choice.loss < choice.single_loss
    assert choice.gain_95[0] > 0
    assert list(choice.weights) == sorted(choice.weights, reverse=True)
    assert sum(choice.weights) == pytest.approx(1)


def test_the_budget_is_that_of_the_whole_graph():
    probs, labels = members(3, skill=(2.0, 1.9, 1.8))
    costs = [cost_of(100), cost_of(100), cost_of(50)]
    assert set(chosen(probs, labels, costs, Budget(params=10_000)).members) == {0, 1, 2}
    assert len(chosen(probs, labels, costs, Budget(params=202)).members) == 2  # two weights come with two members
    assert 2 in chosen(probs, labels, costs, Budget(params=201)).members
    assert chosen(probs, labels, costs, Budget(params=140)).members == (0,)
    assert "no set of two or more" in chosen(probs, labels, costs, Budget(params=140)).reason
    assert chosen(probs, labels, costs, Budget(peak_activation_bytes=15)).members == (0,)
    with pytest.raises(BudgetError, match="no trained network fits the budget"):
        chosen(probs, labels, costs, Budget(params=10))


def test_a_set_whose_graph_was_refused_gives_way_to_another():
    probs, labels = members(3, skill=(2.0, 1.9, 1.8))
    refused = []
    for _ in range(4):
        choice = ensemble.choose(probs, labels, [cost_of(1)] * 3, Budget(), recipe.Ensemble(), refused=refused)
        assert len(choice.members) > 1
        assert frozenset(choice.members) not in refused
        refused.append(frozenset(choice.members))
    choice = ensemble.choose(probs, labels, [cost_of(1)] * 3, Budget(), recipe.Ensemble(), refused=refused)
    assert choice.members == (0,)


@pytest.mark.parametrize("seed", range(3))
def test_a_weak_candidate_whose_mistakes_are_its_own_is_found(seed):
    probs, labels = planted(seed)
    accuracy = (probs.argmax(axis=2) == labels).mean(axis=1)
    assert accuracy[6] < accuracy[:6].min() - 0.1
    choice = chosen(probs, labels, [cost_of(100)] * 7)
    assert 6 in choice.members
    weight = choice.weights[choice.members.index(6)]
    assert 0.05 < weight < 0.4
    assert choice.gain_95[0] > 0


def test_a_member_that_brings_no_more_than_noise_is_left_out():
    probs, labels = planted(0)
    choice = chosen(probs[[0, 1, 6]], labels, [cost_of(100)] * 3, mean="arithmetic")
    assert len(choice.members) == 2  # the third is a copy of the good one
    assert 2 in choice.members
    two, three = choice.steps
    assert (two.size, two.against, two.taken) == (2, 1, True)
    assert (three.size, three.against, three.taken) == (3, 2, False)
    assert three.gain_95[0] <= 0
    assert choice.loss == two.loss


def test_a_member_that_greedy_selection_never_drew_is_none():
    probs, labels = members(2, skill=(6.0, 0.0), samples=100)
    choice = chosen(probs, labels, [cost_of(1)] * 2, keep="always", weights="greedy")
    assert (choice.members, choice.weights) == ((0,), (1.0,))


def test_the_best_of_several_is_known_though_the_single_one_ships():
    probs, labels = members(2, samples=40, skill=(2.0, 1.5))
    choice = chosen(probs, labels, [cost_of(100)] * 2)
    assert choice.members == (0,)
    assert choice.gain_95[0] < 0 < choice.gain_95[1]
    assert set(choice.ensemble.members) == {0, 1}
    assert choice.ensemble_loss == choice.steps[0].loss
    alone = chosen(probs, labels, [cost_of(100)] * 2, max_members=1)
    assert (alone.ensemble, alone.reason) == (None, "one network was asked for (ensemble.max_members)")
    assert "there is one candidate" in chosen(probs[:1], labels, [cost_of(100)]).reason


def test_a_member_of_no_weight_is_not_told_as_one():
    probs, labels = members(2, samples=2000, skill=(6.0, 0.0))
    choice = chosen(probs, labels, [cost_of(100)] * 2, keep="always", mean="exponential")
    assert (choice.members, choice.weights, choice.mean, choice.ensemble) == ((0,), (1.0,), "arithmetic", None)
    assert choice.reason == "no second network is worth any weight"


def test_always_keeps_a_second_member_of_little_weight():
    probs, labels = members(3, samples=2000, skill=(5.0, 0.5, 0.5))
    choice = chosen(probs, labels, [cost_of(100)] * 3, keep="always", mean="arithmetic", weights="nelder-mead")
    kept = ensemble.Blend((4, 5, 6), "arithmetic", np.array([0.006, 0.99, 0.004])).tidied()
    assert (kept.members, kept.weights.tolist()) == ((5, 4), pytest.approx([0.99 / 0.996, 0.006 / 0.996]))
    assert len(choice.members) <= 2


def test_latency_adds_up():
    probs, labels = members(2)
    limit = Limit("host", "onnxruntime", "float32", 1.0)
    budget = Budget(latency=(limit,))
    for ms, count in ((0.4, 2), (0.6, 1)):
        measured = [{limit: ms}] * 2
        assert len(chosen(probs, labels, [cost_of(1)] * 2, budget, latency_ms=measured).members) == count


def test_copies_of_one_network_ship_as_one_unless_asked_for():
    probs, labels = members(1)
    copies = np.concatenate([probs, probs])
    alone = chosen(copies, labels, [cost_of(100)] * 2, keep="when_better")
    assert len(alone.members) == 1
    assert alone.weights == (1.0,)
    assert "does not beat the best single network beyond noise" in alone.reason
    assert len(chosen(copies, labels, [cost_of(100)] * 2, keep="always").members) == 2


def test_what_was_compared_is_counted():
    probs, labels = members(3, skill=(2.0, 1.9, 1.8))
    costs = [cost_of(100), cost_of(100), cost_of(50)]
    counts = [
        (choice.compared, choice.scored)
        for options in ({"max_members": 3}, {"max_members": 2}, {"max_members": 1}, {"budget": Budget(params=160)})
        for choice in [chosen(probs, labels, costs, **options)]
    ]
    assert counts == [(7, 4), (6, 3), (3, 0), (5, 2)]


def test_what_is_said_of_a_row_was_decided_without_it(monkeypatch):
    """The labels of one fold are turned over: what is said of that fold stays, of the others it changes."""
    probs, labels = members(3, skill=(1.0, 0.9, 0.3))
    fold = weights.folds(labels)
    monkeypatch.setattr(choice_module, "folds", lambda labels, seed: fold)
    held = fold == 2
    before = chosen(probs, labels, [cost_of(1)] * 3, keep="always")
    after = chosen(probs, np.where(held, labels[::-1], labels), [cost_of(1)] * 3, keep="always")
    assert before.loss == pytest.approx(ensemble.log_loss(before.predicted, labels))
    np.testing.assert_array_equal(after.predicted[held], before.predicted[held])
    assert (after.predicted[~held] != before.predicted[~held]).any()


def test_the_best_of_many_alike_does_not_flatter_itself():
    """Twelve networks without any skill: the luckiest seems good on the rows that chose it, and only there."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 200)
    probs = rng.dirichlet(np.ones(4), (12, 200))
    choice = chosen(probs, labels, [cost_of(1)] * 12, max_members=1)
    assert choice.single_loss == pytest.approx(ensemble.log_loss(probs[choice.single], labels))
    assert choice.loss > choice.single_loss


def test_an_ensemble_that_loses_to_the_single_network_as_it_is_does_not_ship():
    """Choosing a single network anew per fold is noisy on few rows; the one that would ship is not."""
    for seed in range(8):
        probs, labels = members(3, samples=27, skill=(2.0, 1.9, 1.8), seed=seed)
        choice = chosen(probs, labels, [cost_of(1)] * 3)
        assert choice.single_loss == pytest.approx(ensemble.log_loss(probs[choice.single], labels))
        if len(choice.members) > 1:
            assert choice.loss < choice.single_loss


def test_no_more_members_than_asked():
    probs, labels = members(3, skill=(2.0, 1.9, 1.8))
    assert len(chosen(probs, labels, [cost_of(1)] * 3, max_members=2).members) == 2
    assert len(chosen(probs, labels, [cost_of(1)] * 3, max_members=1).members) == 1


def test_a_member_of_no_weight_is_left_out() -> None:
    """A copy of noise beside two good members would cost a whole network for a weight near zero."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 400)
    truth = np.eye(3)[labels]
    good = [0.7 * truth + 0.3 * rng.dirichlet(np.ones(3), 400) for _ in range(2)]
    probs = np.stack([*good, rng.dirichlet(np.ones(3), 400)])
    found = ensemble.choose(
        probs, labels, [Cost(100, 100)] * 3, Budget(), recipe.Ensemble(max_members=3, keep="always")
    )
    assert set(found.members) == {0, 1}
    assert min(found.weights) >= 0.01


def test_a_recipe_knows_the_words_that_ensembles_know():
    from edgeml import recipe_rules, trees

    words = {name: field.words for name, field in recipe_rules.fields(recipe.Ensemble).items()}
    assert words["weights"] == list(ensemble.METHODS)
    assert words["mean"] == ["auto", *ensemble.MEANS]
    assert words["trees"] == list(trees.KINDS)


# ---- what a newcomer found: what is fitted is what the graph computes


def test_one_member_with_all_the_weight_is_the_mean_whatever_its_kind():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), (2, 50))
    for mean in ALL_MEANS:
        np.testing.assert_array_equal(blend(probs, np.array([0.0, 1.0]), mean), probs[1])


def test_a_geometric_mean_sees_small_probabilities_as_the_logits_that_made_them():
    logits = np.array([[[0.0, -40.0, -60.0]], [[-50.0, 0.0, -20.0]]])
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    shares = np.array([0.6, 0.4])
    mixed = np.exp(np.tensordot(shares, logits, axes=1))
    np.testing.assert_allclose(blend(probs, shares, "geometric"), mixed / mixed.sum(axis=-1, keepdims=True), rtol=1e-9)


@pytest.mark.parametrize("mean", ALL_MEANS)
@pytest.mark.parametrize("method", ["nelder-mead", "random", "greedy"])
def test_a_member_that_adds_nothing_has_no_weight(method, mean):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    good = 0.9 * np.eye(3)[labels] + 0.1 / 3
    wrong = 0.9 * np.eye(3)[(labels + 1) % 3] + 0.1 / 3
    fitted = edgeml.fit_weights(np.stack([good, wrong]), labels, method, mean=mean)
    assert fitted.tolist() == [1.0, 0.0]
