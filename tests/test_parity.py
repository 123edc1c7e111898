"""Parity must catch what a wrong file looks like, and say with which figure."""

import keras
import numpy as np
import pytest
from networks import nudge, pictures, separable

from edgeml import exporting, parity, recipe, same_integers, verification
from edgeml.ensemble import compile_ensemble, fold_ensemble, side_by_side
from edgeml.errors import ParityError
from edgeml.folding import fold_batch_norm
from edgeml.parity import MIXTURE, SOFTMAX, VALUES, measure
from edgeml.runtimes import Signature, Tensor, open_model
from edgeml.runtimes.keras import Reference

GATES = recipe.Verify()
GENEROUS = recipe.Verify(dynamic_min_cosine=0.5, int8_min_cosine=0.5, int16x8_min_cosine=0.5)


class Table:
    """A ``Loaded`` that answers from an array: what a broken file would return."""

    runtime = "table 1.0"

    def __init__(self, values, inputs=("x", (None, 2), "float32"), outputs=("y", (None, 3), "float32")):
        self.signature = Signature((Tensor(*inputs),), (Tensor(*outputs),))
        self.values = values

    def predict(self, inputs):
        return {self.signature.outputs[0].name: self.values}

    def single(self, inputs):
        raise NotImplementedError


def logits(rows=40, classes=3, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (rows, classes))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def compared(first, second, precision="float32", kind=SOFTMAX, gates=GATES):
    first, second = (t if isinstance(t, Table) else Table(t) for t in (first, second))
    inputs = {"x": np.zeros((len(first.values), 2), "float32")}
    return parity.compare(first, second, inputs, gates, file="f", what="w", inputs_name="test", precision=precision,
                          kinds=[kind] * len(first.signature.outputs))  # fmt: skip


def test_equal_outputs_pass_with_finite_figures():
    p = softmax(logits())
    row = compared(p, p)
    assert row.passed
    assert (row.error, row.max_abs, row.top1_agreement, row.sqnr_db) == (0, 0, 1, parity.MOST_DB)
    assert row.cosine == pytest.approx(1)


@pytest.mark.parametrize(("share", "passes"), [(1.5e-5, True), (2.5e-5, False)])
def test_softmax_is_judged_by_its_logits(share, passes):
    z = logits()
    z -= z.mean(axis=1, keepdims=True)
    other = z.copy()
    other[7, 1] += 1.5 * share * np.ptp(z)  # centring leaves 2/3 of it
    row = compared(softmax(z), softmax(other))
    assert row.error == pytest.approx(share, rel=1e-3)
    assert row.passed is passes
    assert row.limit == GATES.float32_max_range_error
    assert passes or row.failures[0] == "share of the output range 2.50e-05 > 2e-05"


def test_softmax_errors_that_probabilities_hide_are_seen():
    z = np.array([[20.0, 0.0, 1.0], [0.0, 19.0, 2.0]])
    other = z + np.array([[0, 0.01, 0], [0, 0, 0]])
    row = compared(softmax(z), softmax(other))
    assert row.max_abs < 1e-9
    assert not row.passed


@pytest.mark.parametrize(("error", "passes"), [(0.9e-6, True), (1.1e-6, False)])
def test_mixture_is_judged_by_probabilities(error, passes):
    p = softmax(logits())
    other = p.copy()
    other[3, 0] += error
    row = compared(p, other, kind=MIXTURE)
    assert row.error == pytest.approx(error, rel=1e-6)
    assert row.passed is passes
    assert passes or row.failures == ("largest difference 1.10e-06 > 1e-06",)


def test_values_are_judged_by_their_range_not_one_by_one():
    v = 1e3 * logits()
    v[0, 0] = 1e-9  # element-wise relative error would explode here
    assert compared(v, v + 0.001, kind=VALUES).passed
    assert not compared(v, v * (1 + 1e-4), kind=VALUES).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("kind", [SOFTMAX, MIXTURE, VALUES])
def test_one_number_that_is_none_fails(bad, precision, kind):
    p = softmax(logits())
    broken = p.copy()
    broken[5, 2] = bad
    assert not compared(p, broken, precision, kind).passed
    assert not compared(broken, p, precision, kind).passed
    assert not compared(broken, broken, precision, kind).passed


def test_nan_in_the_second_output_of_the_reference_is_not_lost():
    p = softmax(logits())
    nan = np.full_like(p, np.nan)
    row = parity._judged([(p, p), (nan, p)], GATES, "f", "r", "w", "test", "float32", [VALUES] * 2)
    assert not row.passed


def test_int8_garbage_fails_and_says_each_figure():
    p = softmax(logits(200))
    row = compared(p, np.random.default_rng(9).permutation(p), "int8")
    assert not row.passed
    assert row.failures[0].startswith("SQNR ")
    assert "< 15 dB" in row.failures[0]
    assert row.failures[1].startswith("cosine 0.")


def test_int8_steps_pass():
    p = softmax(logits(200))
    row = compared(p, np.round(p * 256) / 256, "int8")
    assert row.passed
    assert 40 < row.sqnr_db < 80
    assert row.error == row.sqnr_db


@pytest.mark.parametrize("kind", [SOFTMAX, MIXTURE])
@pytest.mark.parametrize(("share", "passes"), [(1.9e-3, True), (2.1e-3, False)])
def test_float16_is_judged_as_float32_with_a_limit_of_its_own(share, passes, kind):
    z = logits()
    z -= z.mean(axis=1, keepdims=True)
    p, other = softmax(z), z.copy()
    other[7, 1] += 1.5 * share * np.ptp(z)  # centring leaves 2/3 of it
    moved = softmax(other) if kind == SOFTMAX else p + share * np.eye(*p.shape)
    row = compared(p, moved, "float16", kind)
    assert row.error == pytest.approx(share, rel=1e-3)
    assert (row.limit, row.passed) == (GATES.float16_max_range_error, passes)
    assert not compared(p, moved, kind=kind).passed


@pytest.mark.parametrize(("precision", "least"), [("dynamic", 15), ("int8", 15), ("int16x8", 30)])
def test_integers_are_judged_by_limits_of_their_own(precision, least):
    v = logits(500)
    v -= v.mean(axis=0)  # what all rows share is no signal
    noise = np.random.default_rng(5).normal(size=v.shape)
    noise *= np.sqrt(np.sum(v**2) / np.sum(noise**2))
    for decibels, passes in ((least - 0.5, False), (least + 0.5, True)):
        row = compared(v, v + 10 ** (-decibels / 20) * noise, precision, VALUES, gates=GENEROUS)
        assert row.sqnr_db == pytest.approx(decibels, abs=1e-6)
        assert (row.limit, row.passed) == (least, passes)


@pytest.mark.parametrize(("decibels", "warns"), [(14.0, False), (19.5, True), (20.5, False)])
def test_int8_below_what_is_usual_is_a_warning(decibels, warns):
    """A failure says so itself; no other precision warns."""
    v = logits(500)
    noise = np.random.default_rng(5).normal(size=v.shape)
    noise *= 10 ** (-decibels / 20) * np.sqrt(np.sum(v**2) / np.sum(noise**2))
    row = compared(v, v + noise, "int8", VALUES, gates=GENEROUS)
    assert row.warnings == ((f"SQNR {decibels:.1f} dB < 20 dB; look at its accuracy",) if warns else ())
    assert row.passed is (decibels > 15)
    assert compared(v, v + noise, "dynamic", VALUES, gates=GENEROUS).warnings == ()


def test_int8_of_an_output_that_is_all_zero():
    zero = np.zeros((4, 3))
    assert compared(zero, zero, "int8", VALUES).passed
    assert not compared(zero, zero + 1, "int8", VALUES).passed


def test_top1_agreement_counts_decisions_that_flip():
    p = np.tile([0.6, 0.3, 0.1], (10, 1))
    flipped = p.copy()
    flipped[:3] = [0.3, 0.6, 0.1]
    assert compared(p, flipped, "int8").top1_agreement == 0.7
    row = compared(p, flipped)
    assert row.failures[1] == "top-1 agreement 0.7000 < 1 outside ties"


def test_ties_are_no_decisions():
    p = np.array([[0.4, 0.4, 0.2], [0.5, 0.3, 0.2]])
    swapped = np.array([[0.4 - 1e-7, 0.4 + 1e-7, 0.2], [0.5, 0.3, 0.2]])
    row = compared(p, swapped)
    assert row.passed
    assert row.top1_agreement == 1.0
    assert measure(p, swapped, VALUES, tie=0.0).top1_agreement == 1.0  # an exact tie has no decision even at 0
    near = np.array([[0.40001, 0.4, 0.19999]])
    assert measure(near, near[:, [1, 0, 2]], VALUES, tie=0.0).top1_agreement == 0.0
    assert measure(near, near[:, [1, 0, 2]], VALUES, tie=1e-3).top1_agreement == 1.0


def test_a_single_output_has_no_decision():
    v = np.linspace(0, 1, 9)[:, None]
    table = ("y", (None, 1), "float32")
    row = compared(Table(v, outputs=table), Table(v + 1e-7, outputs=table), kind=VALUES)
    assert row.passed
    assert row.top1_agreement == 1.0


def test_nearly_uniform_probabilities_are_within_what_float32_can_say():
    """A softmax of an untrained network: its logits differ in the digits that a probability no longer carries."""
    z = 3e-4 * logits(200, 10)
    p = softmax(z)
    rounded = p.astype(np.float32)
    ulps = np.random.default_rng(2).integers(-2, 3, p.shape) * np.spacing(rounded)
    row = compared(p, rounded.astype(float) + ulps)
    assert row.passed
    assert row.error > 1e-6
    assert not compared(p, softmax(1.01 * z)).passed


def test_values_far_from_zero_are_within_what_float32_can_say():
    v = 1000 + 1e-3 * logits()
    assert compared(v, v.astype(np.float32), kind=VALUES).passed
    assert not compared(v, v * (1 + 1e-5), kind=VALUES).passed


def test_signature_mismatches_come_in_order_and_nothing_is_run():
    p = softmax(logits())
    named, shaped = ("z", (None, 3), "float32"), ("y", (None, 4), "float32")
    row = compared(p, Table(None, outputs=named))
    assert row.failures == ("outputs: named ['z']; ['y'] in the reference",)
    assert (row.measure, row.passed) == ("signature", False)
    row = compared(p, Table(None, outputs=shaped))
    assert row.failures == ("outputs 'y': shape (None, 4); (None, 3) in the reference",)
    row = compared(p, Table(None, outputs=("y", (1, 4), "float64")))
    assert [f.split(": ")[1].split()[0] for f in row.failures] == ["shape", "type"]
    row = compared(p, Table(None, inputs=("q", (None, 2), "float32"), outputs=("z", (9, 9), "int64")))
    assert row.failures == ("inputs: named ['q']; ['x'] in the reference",
                            "outputs: named ['z']; ['y'] in the reference")  # fmt: skip


def test_a_fixed_batch_and_quantized_types_are_no_mismatch():
    first = Signature((Tensor("x", (None, 2), "float32"),), (Tensor("y", (None, 3), "float32"),))
    other = Signature((Tensor("x", (1, 2), "int8", 0.1, 3),), (Tensor("y", (1, 3), "float32"),))
    assert parity.mismatches(first, other) == []
    raw = Signature((Tensor("x", (1, 2), "int8"),), other.outputs)
    assert parity.mismatches(first, raw) == ["inputs 'x': type int8; float32 in the reference"]


def test_kind_of_output():
    assert parity.output_kinds(separable()) == [SOFTMAX]
    assert parity.output_kinds(separable(head="softmax_activation")) == [SOFTMAX]
    assert parity.output_kinds(separable(head="sigmoid")) == [VALUES]
    pair = [separable(seed=1), separable(seed=2)]
    assert parity.output_kinds(compile_ensemble(pair, (0.6, 0.4))) == [MIXTURE]
    assert parity.output_kinds(compile_ensemble(pair, (0.6, 0.4), "geometric")) == [SOFTMAX]
    assert parity.output_kinds(fold_batch_norm(compile_ensemble(pair, (0.6, 0.4))).model) == [MIXTURE]


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.6, 0.4)])
def test_a_compiled_ensemble_is_a_mixture_whatever_it_is_called(weights, tmp_path):
    graph = side_by_side([separable(seed=1), separable(seed=2)], weights)
    whole = keras.Model(graph.inputs, keras.layers.Identity(name="named")(graph(graph.inputs)), name="mine")
    for model in (graph, whole, fold_ensemble(graph).model, fold_batch_norm(whole).model):
        assert parity.output_kinds(model) == [MIXTURE]
        model.save(tmp_path / "model.keras")
        assert parity.output_kinds(keras.models.load_model(tmp_path / "model.keras")) == [MIXTURE]
    both = side_by_side([graph, separable(seed=3)], (0.7, 0.3))
    assert parity.output_kinds(both) == [MIXTURE]


def ending(end):
    """A model that is called as compiled ensembles are."""
    x = keras.Input((3,))
    return keras.Model(x, end(*(keras.layers.Dense(4)(x) for _ in range(2))), name="ensemble")


def softmaxes(*tensors):
    return [keras.layers.Softmax()(tensor) for tensor in tensors]


@pytest.mark.parametrize(
    ("end", "kinds"),
    [
        (lambda a, b: a, [VALUES]),
        (lambda a, b: [a, b], [VALUES, VALUES]),
        (lambda a, b: keras.layers.Rescaling(0.5)(keras.layers.Add()([a, b])), [VALUES]),
        (lambda a, b: keras.layers.Add()(softmaxes(a, b)), [VALUES]),  # rows sum to two
        (lambda a, b: keras.layers.Rescaling(0.5, offset=0.1)(keras.layers.Add()(softmaxes(a, b))), [VALUES]),
        (lambda a, b: keras.layers.Rescaling([0.5] * 4)(keras.layers.Add()(softmaxes(a, b))), [VALUES]),
        (lambda a, b: [keras.layers.Rescaling(0.5)(keras.layers.Add()(softmaxes(a, b))), a], [VALUES, VALUES]),
        (lambda a, b: [*softmaxes(a), b], [SOFTMAX, VALUES]),
    ],
)
def test_a_name_makes_no_ensemble(end, kinds):
    assert parity.output_kinds(ending(end)) == kinds


def test_a_model_called_ensemble_is_proven_by_what_it_ends_in(tmp_path):
    model, inputs = ending(lambda a, b: [a, b]), {}
    inputs[model.inputs[0].name] = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    files = exporting.write(model, tmp_path, ["onnx"], ["float32"], None, lambda event: None)
    rows = verification.prove(model, model, files, inputs, "samples", GATES)
    assert {row.measure for row in rows} == {"share of the output range"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = separable("relu")
    folded = fold_batch_norm(model).model
    folder = tmp_path_factory.mktemp("parity")
    return model, folded, exporting.write(folded, folder, ["onnx"], ["float32"], None, lambda event: None)


def test_prove_states_what_was_compared(exported):
    model, folded, artifacts = exported
    rows = verification.prove(folded, model, artifacts, {"pixels": pictures(40)}, "test (40)", GATES)
    assert all(r.passed for r in rows)
    assert [(r.file, r.what, r.inputs) for r in rows][:4] == [
        ("model.keras", "trained = folded", "test (40)"), ("model.keras", "trained = folded", "probes"),
        ("model.onnx", "file = folded", "test (40)"), ("model.onnx", "file = folded", "probes")]  # fmt: skip


def test_one_percent_in_one_weight_of_a_middle_convolution_is_caught(exported):
    model, folded, artifacts = exported
    path = artifacts[0].path
    whole = path.read_bytes()
    nudge(path)
    said = (
        r"model\.onnx \(file = folded\): share of the output range .* > 2e-05.*"
        r"and in \d+ more comparisons; first diverging layer 'middle' \(Conv Conv_5\): .* limit 2e-05"
    )
    try:
        with pytest.raises(ParityError, match=said):
            verification.prove(folded, model, artifacts, {"pixels": pictures(40)}, "test", GATES)
    finally:
        path.write_bytes(whole)


def test_a_fold_that_went_wrong_is_caught(exported):
    model, folded, artifacts = exported
    bias = next(layer for layer in folded._flatten_layers() if layer.name == "stem").bias
    right = bias.numpy()
    bias.assign(right + 0.01)
    try:
        with pytest.raises(ParityError, match=r"trained = folded.*first diverging layer 'stem'.*file = folded"):
            verification.prove(folded, model, artifacts, {"pixels": pictures(40)}, "test", GATES)
    finally:
        bias.assign(right)


def test_the_reference_runs_in_batches(exported):
    _, folded, artifacts = exported
    many = pictures(300)
    reference, file = Reference(folded), open_model(artifacts[0].path)
    assert reference.predict({"pixels": many})["scores"].shape == (300, 5)
    alone = reference.predict({"pixels": many[299:]})["scores"]
    np.testing.assert_allclose(reference.predict({"pixels": many})["scores"][299:], alone, atol=1e-6)
    np.testing.assert_allclose(file.predict({"pixels": many})["scores"][299:], alone, atol=1e-6)


@pytest.mark.parametrize(("rows", "wrong", "warns"), [(60, 1, False), (60, 2, True), (512, 12, True)])
def test_equal_rows_are_counted_and_few_are_a_warning(rows, wrong, warns):
    values = np.random.default_rng(0).integers(-128, 128, (rows, 3)).astype(float)
    other = values.copy()
    other[:wrong, 1] += 1e-3  # no decision changes
    row = same_integers.compare_integers(Table(values), Table(other), {}, GATES, file="f", inputs_name="test")
    assert (row.gate, row.error, row.top1_agreement, row.passed) == ("tflm", 1 - wrong / rows, 1.0, True)
    assert row.warnings == ((f"equal rows {row.error:.4f} < 0.98",) if warns else ())


@pytest.mark.parametrize(("rows", "wrong", "passes"), [(60, 1, True), (512, 2, True), (512, 6, False), (60, 3, False)])
def test_other_decisions_fail_and_chance_takes_some_of_few(rows, wrong, passes):
    values = np.zeros((rows, 3))
    values[:, 0] = 5.0
    other = values.copy()
    other[:wrong] = other[:wrong, ::-1]
    row = same_integers.compare_integers(Table(values), Table(other), {}, GATES, file="f", inputs_name="test")
    assert row.passed is passes
    assert passes or row.failures == (f"equal decisions {1 - wrong / rows:.4f} < 0.999",)
