"""Calibration of this machine: random networks of one's own search space, timed, and a latency model fitted to them.

networks ─► 50 + 10, by MACs ─► files (random weights) ─► quiet latency, interleaved ─► fit on 50 ─► judged by the 10

A profile that errs by more than ``WORST_P90`` on the ten networks that it has not seen is refused. It holds for one
processor, runtime version, number of threads, space, input shape and budget, which its key names.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import costs, exporting, plugins, timing
from edgeml.devices import catalogue, profile
from edgeml.devices.features import BLOCKS, VERSION, features
from edgeml.devices.fit import fit, trimmed_ratios
from edgeml.devices.profile import Profile
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import BudgetError, DataError, GateError, NotMeasuredError, TargetError
from edgeml.machine import processor
from edgeml.operators import Operator
from edgeml.records import Budget, Event
from edgeml.runtimes import open_model

NETWORKS, HELD_OUT = 50, 10
LEAST_NETWORKS = 30  # to fit on, where a slow machine does not export more in time
DRAWS = 40  # per network that is wanted; the feasible ones are thinned out evenly, by MACs
LOOKED_AT = 400  # networks, for features that are rare
SELDOM = 6  # networks that show each feature of the space, at least
FAR = 6  # networks that have the most of something, at most
ROUNDS = 20
TELLING = 10  # networks from one word of progress to the next
WORST_P90 = 0.10
FURTHEST = 3  # networks that a refusal names
SECONDS, SECONDS_ONNX_INT8 = 60.0, 180.0  # of a calibration; ONNX int8 files are made from TFLite int8 files
EXPORT_SHARE = 0.8  # of them; the rest is for timing
MACS_PER_MS = 5e7  # more than one core does: what needs longer than the limit even so is not measured
FINALIST_SAMPLES = 64  # that give a trained network its int8 ranges where only its time is asked
CALIBRATION_SAMPLES = 8  # random pixels: what an int8 file holds does not change how fast it is
TARGETS = {"onnxruntime": "onnx", "litert": "tflite"}
OnEvent = Callable[[Event], None]
Network = tuple[Operator, ...]


def calibrate(
    networks: Iterable[Network],
    budget: Budget,
    runtime: str,
    precision: str,
    on_event: OnEvent,
    *,
    about: dict[str, Any],
    threads: int = 1,
    seed: int = 0,
) -> Profile:
    """Measure some of ``networks`` on this machine and fit a profile, whose key is ``about``.

    Raises:
        BudgetError: fewer than ``NETWORKS + HELD_OUT`` networks are within the budget's counts.
        GateError: the profile errs by more than a tenth on one in ten networks that it has not seen.
        UsageError: TensorFlow, which writes the files, is not installed.
    """
    started = time.monotonic()
    exporting.check_request([TARGETS[runtime]], [precision], calibrated=True)
    drawn = draw(networks, budget, NETWORKS + HELD_OUT, runtime, precision, seed)
    drawn, ms = measure(drawn, runtime, precision, on_event, threads=threads)
    on_event(Event("calibrate", f"{runtime} {precision}: fitting"))
    return fitted(
        drawn, ms, f"devices calibrate {runtime} {precision}", name=catalogue.HOST, description=processor()["cpu"],
        runtime=runtime, runtime_version=version(runtime), precision=precision, key=about,
        source=f"{len(drawn)} random networks, {ROUNDS} rounds, {time.monotonic() - started:.0f} seconds",
    )  # fmt: skip


def fitted(
    networks: Sequence[Network],
    ms: NDArray[np.float64],
    where: str,
    *,
    runtime: str,
    precision: str,
    labels: Sequence[str] = (),
    **about: Any,
) -> Profile:
    """Fit a profile to latencies (N,) in ms; ``about``: what else a profile says of itself.

    ``labels``: what a user calls the networks; a refusal names those that are furthest off.

    Raises:
        GateError: it errs by more than a tenth on one in ten networks that it has not seen.
    """
    held, rest = held_out([_shown(network, runtime, precision) for network in networks])
    if not held:
        raise GateError(
            f"{where}: each of {len(networks)} networks alone shows some operator, so that none can judge the others;"
            f" {HELD_OUT} should. Measure more networks."
        )
    found = fit([networks[i] for i in rest], ms[rest], runtime, precision)
    made = profile.of_fit(found, runtime=runtime, precision=precision, **about)
    predicted, measured = np.array([made.predict(networks[i]).ms for i in held]), ms[held]
    p50, p90 = np.percentile(np.abs(predicted / measured - 1), [50, 90]).tolist()
    if p90 > WORST_P90:
        off = trimmed_ratios(networks, ms, runtime, precision, found)
        raise GateError(
            f"{where}: on {len(held)} networks that it has not seen the model errs by {p90:.1%} (90th percentile),"
            f" {WORST_P90:.0%} are allowed. Stop other programs and measure again{_furthest(off, ms, labels)}."
        )
    return replace(
        made, held_out={"p50": p50, "p90": p90, "networks": len(held)}, held_out_predicted_ms=predicted.tolist(),
        held_out_measured_ms=measured.tolist(),
    )  # fmt: skip


def _furthest(ratios: NDArray[np.float64], ms: NDArray[np.float64], labels: Sequence[str]) -> str:
    """Name the networks whose predicted / measured is furthest from 1."""
    if not labels:
        return ""
    worst = np.argsort(-np.abs(np.log(np.maximum(ratios, 1e-9))))[:FURTHEST]
    said = [f"{labels[i]} ({ms[i]:.3g} ms, {ratios[i] * ms[i]:.3g} predicted)" for i in worst]
    return f", first {', '.join(said)}"


def held_out(shown: Sequence[frozenset[str]]) -> tuple[list[int], list[int]]:
    """Return the indices of ``HELD_OUT`` networks and of the others, which show every feature of the former, too."""
    counts, held = Counter(itertools.chain.from_iterable(shown)), list[int]()
    for index, features_ in enumerate(shown):
        if len(held) < HELD_OUT and all(counts[name] > 2 for name in features_):
            held.append(index)
            counts.subtract(features_)
    return held, [index for index in range(len(shown)) if index not in held]


def draw(
    networks: Iterable[Network], budget: Budget, count: int, runtime: str, precision: str, seed: int = 0
) -> list[Network]:
    """Return about ``count`` networks within the budget's counts, in random order, evenly spaced by MACs.

    Those that show a feature which few have are added, and some that have the most of one: what was never measured
    cannot be predicted, and what is beyond that only badly.
    """
    ranked, chosen = evenly_spaced(networks, budget, count)
    few = ranked[:: max(1, len(ranked) // LOOKED_AT)]
    chosen += _showing_what_is_rare(few, chosen, runtime, precision)
    chosen += _reaching_far(few, chosen, runtime, precision)
    return [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))]


def evenly_spaced(networks: Iterable[Network], budget: Budget, count: int) -> tuple[list[Network], list[Network]]:
    """Return the different networks within the budget's counts by MACs, and ``count`` of them, evenly spaced.

    Raises:
        BudgetError: there are not so many.
    """
    judge, most = replace(budget, latency=()), most_macs(budget)
    found: dict[Network, int] = {}
    for operators in networks:
        cost = costs.cost(operators, keys=judge.keys)
        if cost.macs <= most and not judge.violations(costs.charged(cost)):
            found[operators] = cost.macs
    if len(found) < count:
        raise BudgetError(
            f"search.space: {len(found)} different networks of those drawn are within the budget; {count} are"
            " needed. Raise the budget, or take a larger space."
        )
    ranked = sorted(found, key=lambda operators: found[operators])
    return ranked, [ranked[i] for i in np.linspace(0, len(ranked) - 1, count).round().astype(int)]


def most_macs(budget: Budget) -> float:
    """Return MACs above which no network meets the latency limits, however fast the machine is.

    A power of four, so that a limit that is changed a little finds the same profile.
    """
    most = min((limit.max_ms * MACS_PER_MS for limit in budget.latency), default=math.inf)
    return most if math.isinf(most) else 4.0 ** math.ceil(math.log(most, 4))


def _showing_what_is_rare(
    few: Sequence[Network], chosen: Sequence[Network], runtime: str, precision: str
) -> list[Network]:
    shown = {operators: _shown(operators, runtime, precision) for operators in {*few, *chosen}}
    counts = Counter(itertools.chain.from_iterable(shown[operators] for operators in chosen))
    taken, found = set(chosen), list[Network]()
    left = [operators for operators in few if operators not in taken]
    for name in sorted(set().union(*shown.values())):
        having = [operators for operators in left if name in shown[operators] and operators not in found]
        for operators in having[: max(0, SELDOM - counts[name])]:
            found.append(operators)
            counts.update(shown[operators])
    return found


def _reaching_far(few: Sequence[Network], chosen: Sequence[Network], runtime: str, precision: str) -> list[Network]:
    rows = {
        operators: features(operators, runtime, precision, BLOCKS[0])
        for operators in {*few, *chosen}
        if _shown(operators, runtime, precision)
    }
    reach: Counter[str] = Counter()
    for operators in chosen:
        reach |= Counter(rows[operators])
    found = list[Network]()
    while len(found) < FAR:
        beyond = {o: sum(value > profile.BEYOND * reach[name] for name, value in rows[o].items()) for o in rows}
        farthest = max(beyond, key=beyond.__getitem__)
        if not beyond[farthest]:
            break
        found.append(farthest)
        reach |= Counter(rows[farthest])
    return found


@lru_cache(maxsize=1_000)
def _shown(operators: Network, runtime: str, precision: str) -> frozenset[str]:
    """Return the features of a network, whatever the block of channels will turn out to be."""
    try:
        return frozenset().union(*(features(operators, runtime, precision, block) for block in BLOCKS))
    except NotMeasuredError:
        return frozenset()


def measure(
    networks: Sequence[Network], runtime: str, precision: str, on_event: OnEvent, *, threads: int = 1
) -> tuple[list[Network], NDArray[np.float64]]:
    """Return the networks that could be exported in time, and their quiet latency (N,) in ms on this machine.

    Weights are random. A network that the target refuses is left out.
    """
    deadline = time.monotonic() + EXPORT_SHARE * seconds(runtime, precision)
    done: list[Network] = []
    with tempfile.TemporaryDirectory() as place:
        calls = {}
        for number, operators in enumerate(networks):
            if time.monotonic() > deadline and len(done) >= LEAST_NETWORKS + HELD_OUT:
                break
            if number % TELLING == 0:
                on_event(Event("calibrate", f"{runtime} {precision}: network {number + 1} of {len(networks)}"))
            try:
                path = exported(operators, Path(place) / str(number), runtime, precision)
                calls[number] = open_model(path, threads).single(_samples(operators))
            except (DataError, TargetError):  # XNNPACK refuses some ratios of int8 scales that random weights give
                continue
            done.append(operators)
        if len(done) < LEAST_NETWORKS + HELD_OUT:
            raise GateError(
                f"devices calibrate {runtime} {precision}: {len(done)} of {len(networks)} networks became files that"
                f" {runtime} opens; at least {LEAST_NETWORKS + HELD_OUT} are needed. Take a larger space or budget."
            )
        on_event(Event("calibrate", f"{runtime} {precision}: timing {len(done)} networks in {ROUNDS} rounds"))
        ms = timing.quiet_together(timing.interleaved(calls, ROUNDS))
    return done, np.array(list(ms.values()))


def exported(operators: Network, folder: Path, runtime: str, precision: str) -> Path:
    """Write the file of a network with random weights into a new folder; return its path."""
    folder.mkdir(parents=True)
    samples = _samples(operators)
    return exporting.write(StandIn(operators), folder, [TARGETS[runtime]], [precision], samples, silent)[0].path


def _samples(operators: Network) -> dict[str, NDArray[np.float32]]:
    shape = CALIBRATION_SAMPLES, *operators[0].output_shape
    return {INPUT: np.random.default_rng(0).uniform(0, 1, shape).astype("float32")}


def seconds(runtime: str, precision: str) -> float:
    """Return how long a calibration may take."""
    return SECONDS_ONNX_INT8 if (runtime, precision) == ("onnxruntime", "int8") else SECONDS


def of_machine(runtime: str, threads: int) -> dict[str, Any]:
    """Return the part of a key that is about this machine."""
    about = processor()
    return {
        "cpu": about["cpu"], "flags": about["flags"], "runtime_version": version(runtime), "threads": threads,
        "features": VERSION,
    }  # fmt: skip


def version(runtime: str) -> str:
    """Return the version of a runtime that is installed here."""
    found: str = plugins.get("runtimes", runtime).version()
    return found


def silent(event: Event) -> None:
    """Tell nobody."""
