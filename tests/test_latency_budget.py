"""Latency limits: who judges which, what is refused before anything is loaded, and a calibration of this machine."""

from dataclasses import replace

import numpy as np
import pytest

from edgeml import calibration, calibration_draw, interleaving, latency_budget, recipe_file, scaling
from edgeml.devices import catalogue, profile
from edgeml.devices.features import features
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import BudgetError, DataError, NotMeasuredError, UsageError
from edgeml.operators import Operator
from edgeml.records import Budget, Limit
from edgeml.run_folder import RunFiles
from edgeml.search.space import Space

RECIPE = """
schema_version: 1
name: limits
data: {source: digits}
search: {space: ds_cnn, only: [activation=relu, "*_kernel=3", stages=1, head_units=0]}
budget: {macs: 300_000, latency: [%s]}
"""
HOST = "{device: host, runtime: litert, precision: float32, max_ms: 1}"
SPACE = Space(("ds_cnn",), (8, 8, 1), 10, scaling.rescale((0, 16)))
SAMPLES = {INPUT: np.random.default_rng(0).uniform(0, 16, (8, 8, 8, 1)).astype("float32")}


def recipe(*limits):
    return recipe_file.parse(RECIPE % ", ".join(limits), "r.yaml")


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("{device: hots, runtime: litert, precision: int8, max_ms: 1}", "not known; there are host, .*mean 'host'"),
        ("{device: ethos-u55-12, runtime: vela, precision: int8, max_ms: 1}", "Did you mean 'ethos-u55-128'"),
        ("{device: host, runtime: cubeai, precision: int8, max_ms: 1}", "device host: runs onnxruntime and litert"),
        ("{device: stm32h747-cubeai, runtime: litert, precision: int8, max_ms: 1}", "is of cubeai int8; .* litert"),
        ("{device: ethos-u55-128, runtime: vela, precision: float32, max_ms: 1}", "is of vela int8; .* vela float32"),
    ],
)
def test_a_limit_that_nothing_could_be_held_against_is_refused(limit, message):
    with pytest.raises(UsageError, match=rf"budget.latency\[1\]: .*{message}"):
        latency_budget.check(recipe(HOST, limit))


def test_only_float32_and_int8_are_predicted():
    """A recipe says so itself; a budget in Python may say anything."""
    said = r"^latency limit on host/litert/float16: precision 'float16'; float32 and int8 are predicted and judged"
    with pytest.raises(UsageError, match=said):
        catalogue.check(Limit("host", "litert", "float16", 1))


def test_a_device_whose_extra_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ethosu.vela", None)
    with pytest.raises(UsageError, match=r"pip install 'edgeml-export\[ethos\]'"):
        latency_budget.check(recipe("{device: ethos-u55-128, runtime: vela, precision: int8, max_ms: 1}"))


def test_a_profile_of_another_machine_says_what_to_run():
    here = calibration.of_machine("litert", 1)
    made = replace(catalogue.get("stm32h747-cubeai"), name="host", key=here)
    catalogue.check_is_here(made, here)
    for change in ({"cpu": "another"}, {"runtime_version": "LiteRT 1.0"}, {"flags": ["sve"]}):
        with pytest.raises(UsageError, match="edgeml devices calibrate"):
            catalogue.check_is_here(replace(made, key={**here, **change}), here)


def test_a_users_own_profile_is_found_and_a_damaged_one_is_named(tmp_path):
    folder = catalogue.own_folder()
    folder.mkdir(parents=True)
    profile.write(replace(catalogue.get("stm32h747-cubeai"), name="mine"), folder / "mine.toml")
    assert catalogue.get("mine").name == "mine"
    assert catalogue.names()[0] == "host"
    (folder / "mine.toml").write_text("name = 1")
    with pytest.raises(DataError, match=r"mine\.toml: no device profile"):
        catalogue.get("mine")


def test_calibration_networks_are_within_the_budget_spread_and_show_what_is_rare():
    budget = Budget(macs=200_000, latency=(Limit("host", "litert", "float32", 1.0),))
    networks = [SPACE.operators(values) for values in SPACE.drawn(1500, 0)]
    drawn = calibration_draw.draw(networks, budget, 40, "litert", "float32")
    macs = np.array([sum(o.macs for o in operators) for operators in drawn])
    assert 40 <= len(drawn) <= 80
    assert len(set(drawn)) == len(drawn)
    assert macs.max() <= 200_000
    assert macs.max() > 10 * macs.min()
    kinds = [{o.kind + str(o.kernel) for o in operators} for operators in drawn]
    for kind in ("depthwise(5, 5)", "add()"):
        assert sum(kind in one for one in kinds) >= calibration_draw.SELDOM
    with pytest.raises(BudgetError, match="60 are needed"):
        calibration_draw.draw(networks, Budget(params=200), 60, "litert", "float32")


def test_calibration_networks_reach_far_and_those_that_judge_do_not():
    budget = Budget(macs=200_000)
    networks = [SPACE.operators(values) for values in SPACE.drawn(1500, 0)]
    drawn = calibration_draw.draw(networks, budget, 40, "litert", "float32")
    rows = [features(operators, "litert", "float32", 1) for operators in drawn]
    few, _ = calibration_draw.evenly_spaced(networks, budget, 40)
    most = [features(operators, "litert", "float32", 1) for operators in few[:: len(few) // 200]]
    beyond = [row for row in most if any(v > 1.1 * max(r.get(k, 0) for r in rows) for k, v in row.items())]
    assert len(beyond) <= len(most) // 10
    held, rest = calibration_draw.held_out(rows)
    assert len(held) == calibration_draw.HELD_OUT
    assert sorted([*held, *rest]) == list(range(len(rows)))
    for index in held:
        for name, value in rows[index].items():
            assert value <= 1.1 * max(rows[other].get(name, 0.0) for other in rest)


def test_networks_whose_operators_have_no_model_are_drawn_and_then_named():
    networks = [
        (*SPACE.operators(values), Operator("up", "resize", ("input",), (8, 8, 1))) for values in SPACE.drawn(200, 0)
    ]
    drawn = calibration_draw.draw(networks, Budget(), 20, "litert", "float32")
    assert len(drawn) == 20
    with pytest.raises(NotMeasuredError, match=r"operator 'up' .resize.: no latency model"):
        calibration.fitted(drawn, np.ones(20), "here", runtime="litert", precision="float32")


def test_each_network_is_opened_several_times_and_the_median_counts(monkeypatch):
    """Where the buffers of a session come to lie made the same file up to 15 % slower (AVX-512)."""
    monkeypatch.setattr(calibration, "LEAST_NETWORKS", 1)
    monkeypatch.setattr(calibration_draw, "HELD_OUT", 1)
    monkeypatch.setattr(interleaving, "interleaved", lambda calls, rounds: calls)
    monkeypatch.setattr(
        interleaving, "quiet_together", lambda blocks: {key: 10 * key[0] + (1, 9, 2, 9, 1)[key[1]] for key in blocks}
    )
    networks = [SPACE.operators(values) for values in SPACE.drawn(3, 0)]
    refused = (*networks[0], Operator("up", "resize", (networks[0][-1].name,), networks[0][-1].output_shape))
    done, ms = calibration.measure([refused, *networks], "litert", "float32", calibration.silent)
    assert done == networks
    assert ms.tolist() == [2, 12, 22]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A run whose host profile was really measured, with few networks and rounds, and no word on its quality."""
    patched = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("calibrated")
    patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name, value in {"NETWORKS": 30, "HELD_OUT": 5, "ROUNDS": 5, "WORST_P90": 10.0}.items():
        patched.setattr(calibration_draw if hasattr(calibration_draw, name) else calibration, name, value)
    run = RunFiles(folder / "run", recipe(HOST))
    events = []
    profiles = latency_budget.profiles_of(run, SPACE, events.append)
    yield run, profiles, events, folder / "cache"
    patched.undo()


def test_a_calibration_is_kept_in_the_cache_and_in_the_run(calibrated):
    run, profiles, events, cache = calibrated
    (found,) = profiles.values()
    assert found.key["space"] == ["ds_cnn"]
    assert found.key["within"]["macs"] == 300_000
    assert len(found.held_out_measured_ms) == found.held_out["networks"] == 5
    assert len(list((cache / "edgeml" / "devices").glob("host-litert-float32-*.toml"))) == 1
    assert latency_budget.profiles_of_search(run) == profiles
    count = len(events)
    latency_budget.profiles_of(run, SPACE, events.append)
    assert len(events) == count  # nothing was measured again
    assert found.predict(SPACE.operators(SPACE.drawn(1, 5)[0])).ms > 0


def test_a_finalist_is_measured_on_the_host_and_the_prediction_stands_beside_it(calibrated):
    run, profiles, _, _ = calibrated
    operators = SPACE.operators(SPACE.drawn(1, 5)[0])
    (one,) = latency_budget.standings(run.recipe, profiles, StandIn(operators), operators, SAMPLES, lambda event: None)
    assert one.judged_ms == one.measured_ms > 0
    assert one.predicted_ms == profiles[one.limit].predict(operators).ms
    assert one.judged_by == "measured on this machine"


def test_vela_judges_an_ethos_and_a_prediction_with_its_error_an_stm32():
    wanted = recipe(
        "{device: ethos-u55-128, runtime: vela, precision: int8, max_ms: 9}",
        "{device: stm32h747-cubeai, runtime: cubeai, precision: int8, max_ms: 9}",
    )
    profiles = latency_budget.known_profiles(wanted, SPACE)
    operators = SPACE.operators(SPACE.drawn(1, 5)[0])
    ethos, stm = latency_budget.standings(wanted, profiles, StandIn(operators), operators, SAMPLES, lambda event: None)
    assert ethos.judged_by.startswith("Vela ")
    assert ethos.measured_ms is None
    assert ethos.judged_ms == pytest.approx(ethos.predicted_ms, rel=0.3)
    assert stm.judged_ms == pytest.approx(1.2 * stm.predicted_ms)
    assert "ST model zoo" in stm.judged_by


def test_one_file_may_be_timed_and_compiled():
    wanted = recipe(
        "{device: host, runtime: litert, precision: int8, max_ms: 9}",
        "{device: ethos-u55-128, runtime: vela, precision: int8, max_ms: 9}",
    )
    operators = SPACE.operators(SPACE.drawn(1, 5)[0])
    profiles = latency_budget.known_profiles(wanted, SPACE)
    host, ethos = latency_budget.standings(wanted, profiles, StandIn(operators), operators, SAMPLES, lambda event: None)
    assert host.measured_ms == host.judged_ms > 0
    assert host.predicted_ms is None  # not calibrated
    assert ethos.judged_by.startswith("Vela ")
