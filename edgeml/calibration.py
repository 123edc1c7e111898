"""Calibration of this machine: random networks of one's own search space, timed, and a latency model fitted to them.

space ─► 50 + 10 networks ─► files (random weights) ─► quiet latency, interleaved ─► fit on 50 ─► judged by the 10

A profile that errs by more than ``WORST_P90`` on the ten networks that it has not seen is refused. It holds for one
processor, runtime version, number of threads, space and input shape, which its key names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import bundle, costs, exporting, plugins, timing
from edgeml.devices import profile
from edgeml.devices.fit import fit
from edgeml.devices.profile import Profile
from edgeml.devices.stand_in import INPUT, StandIn
from edgeml.errors import BudgetError, GateError
from edgeml.operators import Operator
from edgeml.records import Budget, Event
from edgeml.runtimes import open_model
from edgeml.search.space import Space

NETWORKS, HELD_OUT = 50, 10
DRAWS = 40  # per network that is wanted; the feasible ones are thinned out evenly, by MACs
ROUNDS = 20
WORST_P90 = 0.10
CALIBRATION_SAMPLES = 8  # random pixels: what an int8 file holds does not change how fast it is
TARGETS = {"onnxruntime": "onnx", "litert": "tflite"}
OnEvent = Callable[[Event], None]
Network = tuple[Operator, ...]


def calibrate(
    space: Space, budget: Budget, runtime: str, precision: str, on_event: OnEvent, *, threads: int = 1, seed: int = 0
) -> Profile:
    """Measure networks of ``space`` on this machine and fit a profile.

    Raises:
        BudgetError: fewer than ``NETWORKS + HELD_OUT`` networks of the space are within the budget's counts.
        GateError: the profile errs by more than a tenth on one in ten networks that it has not seen.
    """
    drawn = draw(space, budget, NETWORKS + HELD_OUT, seed)
    ms = measure(drawn, runtime, precision, on_event, threads=threads)
    order = np.random.default_rng(seed).permutation(len(drawn))
    fitted, held = order[HELD_OUT:], order[:HELD_OUT]
    found = fit([drawn[i] for i in fitted], ms[fitted], runtime, precision)
    made = profile.of_fit(
        found, name="host", description=bundle.machine()["cpu"], runtime=runtime, runtime_version=version(runtime),
        precision=precision, source=f"edgeml devices calibrate: {NETWORKS} random networks, {ROUNDS} rounds",
        key=key(space, runtime, threads),
    )  # fmt: skip
    errors = [abs(made.predict(drawn[i]).ms / ms[i] - 1) for i in held]
    p50, p90 = np.percentile(errors, [50, 90]).tolist()
    if p90 > WORST_P90:
        raise GateError(
            f"devices calibrate {runtime} {precision}: on {HELD_OUT} networks that it has not seen the model errs by"
            f" {p90:.1%} (90th percentile), {WORST_P90:.0%} are allowed. Stop other programs and calibrate again."
        )
    return replace(made, held_out={"p50": p50, "p90": p90, "networks": HELD_OUT})


def draw(space: Space, budget: Budget, count: int, seed: int) -> list[Network]:
    """Return ``count`` networks within the budget's counts, evenly spaced by MACs among many random ones."""
    judge = replace(budget, latency=())
    found: dict[Network, int] = {}
    for values in space.drawn(DRAWS * count, seed):
        operators = space.operators(values)
        cost = costs.cost(operators)
        if not judge.violations(cost):
            found[operators] = cost.macs
    if len(found) < count:
        raise BudgetError(
            f"devices calibrate: {len(found)} of {DRAWS * count:,} networks drawn are within the budget; {count} are"
            " needed. Raise the budget, or take a larger space."
        )
    ranked = sorted(found, key=lambda operators: found[operators])
    return [ranked[i] for i in np.linspace(0, len(ranked) - 1, count).round().astype(int)]


def measure(
    networks: Sequence[Network], runtime: str, precision: str, on_event: OnEvent, *, threads: int = 1
) -> NDArray[np.float64]:
    """Return the quiet latency (N,) in ms of each network, with random weights, on this machine."""
    rng = np.random.default_rng(0)
    samples = {INPUT: rng.uniform(0, 1, (CALIBRATION_SAMPLES, *networks[0][0].output_shape)).astype("float32")}
    with tempfile.TemporaryDirectory() as place:
        calls = {}
        for number, operators in enumerate(networks):
            on_event(Event("calibrate", f"{runtime} {precision}: network {number + 1} of {len(networks)}"))
            folder = Path(place) / str(number)
            folder.mkdir()
            target = TARGETS[runtime]
            file = exporting.write(StandIn(operators), folder, [target], [precision], samples, _silent)[0]
            calls[number, 0] = open_model(file.path, threads).single(samples)
        on_event(Event("calibrate", f"{runtime} {precision}: timing {len(networks)} networks in {ROUNDS} rounds"))
        blocks = timing.interleaved(calls, ROUNDS)
    return np.array([timing.quiet_ms(blocks[number, 0]) for number in range(len(networks))])


def key(space: Space, runtime: str, threads: int) -> dict[str, Any]:
    """Return what must be the same for a profile of this machine to hold."""
    about = bundle.machine()
    shape, classes = space.arguments
    return {
        "cpu": about["cpu"], "flags": about["flags"], "runtime_version": version(runtime), "threads": threads,
        "space": sorted(space.names), "only": sorted(space.only), "input_shape": list(shape), "classes": classes,
    }  # fmt: skip


def version(runtime: str) -> str:
    """Return the version of a runtime that is installed here."""
    found: str = plugins.get("runtimes", runtime).version()
    return found


def _silent(event: Event) -> None:
    del event
