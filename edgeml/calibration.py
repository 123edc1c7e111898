"""Calibration of this machine: random networks of one's own search space, timed, and a latency model fitted to them.

networks ─► 50 + 10, by MACs ─► files (random weights) ─► quiet latency, interleaved ─► fit on 50 ─► judged by the 10

A profile that errs by more than ``WORST_P90`` on the ten networks that it has not seen is refused. It holds for one
processor, runtime version, number of threads, space, input shape and budget, which its key names.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import calibration_draw, exporting, interleaving, plugins
from edgeml.calibration_draw import Network, draw, features_of, held_out
from edgeml.devices import catalogue, profile
from edgeml.devices.features import VERSION
from edgeml.devices.fit import fit, trimmed_ratios
from edgeml.devices.profile import Profile
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import DataError, GateError, TargetError
from edgeml.machine import processor
from edgeml.records import Budget, Event
from edgeml.runtimes import open_model

LEAST_NETWORKS = 30  # to fit on, where a slow machine does not export more in time
ROUNDS = 8
SESSIONS = {"onnxruntime": 3, "litert": 5}  # a file opened again differs by 4-8 % (AVX-512; where its buffers lie)
TELLING = 10  # networks from one word of progress to the next
WORST_P90 = 0.10
FURTHEST = 3  # networks that a refusal names
SECONDS, SECONDS_ONNX_INT8 = 60.0, 180.0  # of a calibration; ONNX int8 files are made from TFLite int8 files
EXPORT_SHARE = 0.8  # of them; the rest is for timing
FINALIST_SAMPLES = 64  # that give a trained network its int8 ranges where only its time is asked
CALIBRATION_SAMPLES = 8  # random pixels: what an int8 file holds does not change how fast it is
TARGETS = {"onnxruntime": "onnx", "litert": "tflite"}
OnEvent = Callable[[Event], None]


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
        BudgetError: fewer than ``NETWORKS + HELD_OUT`` (``calibration_draw``) networks are within the budget's counts.
        GateError: the profile errs by more than a tenth on one in ten networks that it has not seen.
        UsageError: TensorFlow, which writes the files, is not installed.
    """
    started = time.monotonic()
    exporting.check_request([TARGETS[runtime]], [precision], calibrated=True)
    drawn = draw(networks, budget, calibration_draw.NETWORKS + calibration_draw.HELD_OUT, runtime, precision, seed)
    drawn, ms = measure(drawn, runtime, precision, on_event, threads=threads)
    on_event(Event("calibrate", f"{runtime} {precision}: fitting"))
    return fitted(
        drawn, ms, f"devices calibrate {runtime} {precision}", name=catalogue.HOST, description=processor()["cpu"],
        runtime=runtime, runtime_version=version(runtime), precision=precision, key=about,
        source=f"{len(drawn)} random networks, {SESSIONS[runtime]} x {ROUNDS} rounds,"
        f" {time.monotonic() - started:.0f} seconds",
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
    held, rest = held_out([features_of(network, runtime, precision) for network in networks])
    if not held:
        raise GateError(
            f"{where}: each of {len(networks)} networks alone shows some operator, so that none can judge the others;"
            f" {calibration_draw.HELD_OUT} should. Measure more networks."
        )
    found = fit([networks[i] for i in rest], ms[rest], runtime, precision)
    made = profile.of_fit(found, runtime=runtime, precision=precision, **about)
    predicted, measured = np.array([made.predict(networks[i]).ms for i in held]), ms[held]
    p50, p90 = np.percentile(np.abs(predicted / measured - 1), [50, 90]).tolist()
    if p90 > WORST_P90:
        off = trimmed_ratios(networks, ms, runtime, precision, found)
        if np.abs(np.log(np.maximum(off, 1e-9))).max() < WORST_P90:  # no figure stands out: those that were not met
            off = np.ones(len(ms))
            off[held] = predicted / measured
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


def measure(
    networks: Sequence[Network], runtime: str, precision: str, on_event: OnEvent, *, threads: int = 1
) -> tuple[list[Network], NDArray[np.float64]]:
    """Return the networks that could be exported in time, and their quiet latency (N,) in ms on this machine.

    Of each it is the median over ``SESSIONS``. Weights are random. A network that the target refuses is left out.
    """
    deadline = time.monotonic() + EXPORT_SHARE * seconds(runtime, precision)
    done: list[Network] = []
    with tempfile.TemporaryDirectory() as place:
        calls = dict[tuple[int, int], Callable[[], None]]()
        for number, operators in enumerate(networks):
            if time.monotonic() > deadline and len(done) >= LEAST_NETWORKS + calibration_draw.HELD_OUT:
                break
            if number % TELLING == 0:
                on_event(Event("calibrate", f"{runtime} {precision}: network {number + 1} of {len(networks)}"))
            try:
                path = exported(operators, Path(place) / str(number), runtime, precision)
                opened = [open_model(path, threads).single(_samples(operators)) for _ in range(SESSIONS[runtime])]
            except (DataError, TargetError):  # XNNPACK refuses some ratios of int8 scales that random weights give
                continue
            calls |= {(len(done), session): call for session, call in enumerate(opened)}
            done.append(operators)
        if len(done) < (least := LEAST_NETWORKS + calibration_draw.HELD_OUT):
            raise GateError(
                f"devices calibrate {runtime} {precision}: {len(done)} of {len(networks)} networks became files that"
                f" {runtime} opens; at least {least} are needed. Take a larger space or budget."
            )
        on_event(Event("calibrate", f"{runtime} {precision}: timing {len(done)} networks in {ROUNDS} rounds"))
        ms = interleaving.quiet_together(interleaving.interleaved(calls, ROUNDS))
    return done, np.median(np.reshape(list(ms.values()), (len(done), SESSIONS[runtime])), axis=1)


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
