"""Latency limits of a recipe: which profile speaks for each, and how a graph stands against them.

    before training   predicted by a device profile, its error on top            (``profiles_of``; judged by the search)
    finalists, graph  measured here (host), compiled by Vela, or still predicted (a device that is not at hand)

What was predicted and what was measured stand beside each other and never in one column.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml import calibration, calibration_draw, exporting, timing
from edgeml.devices import catalogue, profile, vela
from edgeml.devices.catalogue import HOST
from edgeml.devices.profile import Profile
from edgeml.errors import NotMeasuredError, TargetError, UsageError
from edgeml.operators import Operator
from edgeml.recipe import Recipe
from edgeml.records import Budget, Event, Limit
from edgeml.run_folder import RunFiles
from edgeml.runtimes import Arrays
from edgeml.search.feasibility import Profiles
from edgeml.search.space import Space

OnEvent = Callable[[Event], None]
TARGETS = {**calibration.TARGETS, "vela": "tflite"}
Key = tuple[str, str]  # of a file: target and precision


@dataclass(frozen=True)
class Standing:
    """How a graph stands against one limit. ``judged_by``: who found ``judged_ms``, which is what counts."""

    limit: Limit
    predicted_ms: float | None
    measured_ms: float | None
    judged_ms: float
    judged_by: str


def check(recipe: Recipe) -> None:
    """Refuse limits that nothing could be held against, before anything is loaded.

    Raises:
        UsageError: an unknown device, another runtime or precision than its profile's, a missing extra.
    """
    for place, limit in enumerate(recipe.budget.latency):
        try:
            catalogue.check(limit)
        except UsageError as error:
            raise UsageError(f"budget.latency[{place}]: {error}") from error


def profiles_of(run: RunFiles, networks: Space, on_event: OnEvent) -> dict[Limit, Profile]:
    """Return the profile of each latency limit; this machine is calibrated where its profile is not in the cache.

    The run keeps copies: a search that goes on is judged by what it began with.
    """
    found = {}
    for limit in run.recipe.budget.latency:
        kept = _kept(run, limit)
        if not kept.exists():
            profile.write(_profile(run.recipe, limit, networks, on_event), kept)
        found[limit] = profile.read(kept)
        if limit.device == HOST:
            catalogue.check_is_here(found[limit], calibration.of_machine(limit.runtime, run.recipe.benchmark.threads))
    return found


def profiles_of_search(run: RunFiles) -> dict[Limit, Profile]:
    """Return what judged a search that has ended; a host profile only if this machine is the one that it is of."""
    found = {}
    for limit in run.recipe.budget.latency:
        kept = _kept(run, limit)
        if limit.device != HOST:
            found[limit] = profile.read(kept) if kept.exists() else catalogue.get(limit.device)
        elif kept.exists():
            one = profile.read(kept)
            with suppress(UsageError):
                catalogue.check_is_here(one, calibration.of_machine(limit.runtime, run.recipe.benchmark.threads))
                found[limit] = one
    return found


def _kept(run: RunFiles, limit: Limit) -> Path:
    return run.path("devices", f"{limit.where.replace('/', '_')}.toml")


def known_profiles(recipe: Recipe, networks: Space) -> dict[Limit, Profile]:
    """Return the profiles that are there without measuring anything."""
    found = {}
    for limit in recipe.budget.latency:
        is_host = limit.device == HOST
        threads = recipe.benchmark.threads
        one = cached(networks, recipe.budget, limit, threads) if is_host else catalogue.get(limit.device)
        if one is not None:
            found[limit] = one
    return found


def host_profile(
    space: Space, budget: Budget, limit: Limit, threads: int, on_event: OnEvent, *, again: bool = False
) -> Profile:
    """Return the profile of this machine for a recipe's search space, from the cache or measured now.

    Raises: see ``calibration.calibrate``.
    """
    found = None if again else cached(space, budget, limit, threads)
    if found is not None:
        return found
    drawn = (
        space.operators(values)
        for values in space.drawn(calibration_draw.DRAWS * (calibration_draw.NETWORKS + calibration_draw.HELD_OUT), 0)
    )
    about = host_key(space, budget, limit, threads)
    made = calibration.calibrate(drawn, budget, limit.runtime, limit.precision, on_event, about=about, threads=threads)
    profile.write(made, catalogue.of_host(limit.runtime, limit.precision, about))
    return made


def cached(space: Space, budget: Budget, limit: Limit, threads: int) -> Profile | None:
    """Return the profile of this machine that a search would use, None where it would have to be measured."""
    path = catalogue.of_host(limit.runtime, limit.precision, host_key(space, budget, limit, threads))
    return profile.read(path) if path.exists() else None


def host_key(space: Space, budget: Budget, limit: Limit, threads: int) -> dict[str, Any]:
    """Return what must be the same for a profile of this machine to hold."""
    return {**calibration.of_machine(limit.runtime, threads), **space_key(space, budget)}


def space_key(space: Space, budget: Budget) -> dict[str, Any]:
    """Return what networks of a calibration are drawn from."""
    shape, classes = space.arguments
    within = {name: getattr(budget, name) for name in budget.keys}
    if budget.latency:
        within["most_macs"] = round(calibration_draw.most_macs(budget))
    return {
        "space": sorted(space.names), "only": sorted(space.only), "input_shape": list(shape), "classes": classes,
        "within": within,
    }  # fmt: skip


def _profile(recipe: Recipe, limit: Limit, networks: Space, on_event: OnEvent) -> Profile:
    if limit.device != HOST:
        return catalogue.get(limit.device)
    return host_profile(networks, recipe.budget, limit, recipe.benchmark.threads, on_event)


def standings(
    recipe: Recipe,
    profiles: Profiles,
    model: Any,
    operators: Sequence[Operator],
    samples: Arrays,
    on_event: OnEvent,
    *,
    have: Mapping[Key, Path] | None = None,
    timed_ms: Mapping[Key, float] | None = None,
) -> tuple[Standing, ...]:
    """Say how a folded ``model`` stands against every latency limit.

    Args:
        recipe: holds the limits.
        profiles: of the limits, as far as there are any.
        model: what is exported where a file is missing.
        operators: of it.
        samples: the first is what is timed; the first 64 calibrate int8.
        on_event: called as files are written.
        have: files that were written already.
        timed_ms: quiet latencies that were measured already.
    """
    limits, have, timed_ms = recipe.budget.latency, have or {}, timed_ms or {}
    here = [limit for limit in limits if _is_judged_here(limit, profiles)]
    missing = {_file(limit) for limit in here} - have.keys()  # one file may speak for several limits
    to_time = {_file(limit) for limit in here if limit.device == HOST} - timed_ms.keys()
    with tempfile.TemporaryDirectory() as place:
        files = {**have, **_written(recipe, model, sorted(missing), place, samples, on_event)}
        times = {**timed_ms, **_timed(recipe, {file: files[file] for file in sorted(to_time)}, samples)}
        return tuple(_standing(limit, profiles.get(limit), operators, files, times) for limit in limits)


def _file(limit: Limit) -> Key:
    return TARGETS[limit.runtime], limit.precision


def _is_judged_here(limit: Limit, profiles: Profiles) -> bool:
    return limit.device == HOST or profiles[limit].judge == "vela"


def _written(
    recipe: Recipe, model: Any, missing: Sequence[Key], place: str, samples: Arrays, on_event: OnEvent
) -> dict[Key, Path]:
    few = {name: values[: calibration.FINALIST_SAMPLES] for name, values in samples.items()}
    found = {}
    for target, precision in missing:
        folder = Path(place) / f"{target}_{precision}"
        folder.mkdir()
        found[target, precision] = exporting.write(
            model, folder, [target], [precision], few, on_event, io=recipe.export.io
        )[0].path
    return found


def _timed(recipe: Recipe, files: Mapping[Key, Path], samples: Arrays) -> dict[Key, float]:
    if not files:
        return {}
    names = {f"{target} {precision}": (target, precision) for target, precision in files}
    records = timing.measure(
        {name: files[file] for name, file in names.items()}, samples,
        precision={name: precision for name, (_, precision) in names.items()}, threads=recipe.benchmark.threads,
    )  # fmt: skip
    return {names[record.file]: record.quiet_ms for record in records}


def _standing(
    limit: Limit,
    known: Profile | None,
    operators: Sequence[Operator],
    files: Mapping[Key, Path],
    times: Mapping[Key, float],
) -> Standing:
    try:
        predicted = None if known is None else known.predict(operators)
    except NotMeasuredError:  # of an ensemble: what averages the members is in no network of the space
        predicted = None
    expected = None if predicted is None else predicted.ms
    if limit.device == HOST:
        return Standing(limit, expected, times[_file(limit)], times[_file(limit)], "measured on this machine")
    assert known is not None  # noqa: S101  (``profiles_of`` has one for every device)
    if known.judge == "vela":
        found = vela.compiled(files[_file(limit)], known.accelerator)
        if found.cpu_operators:
            raise TargetError(
                f"device {limit.device}: {', '.join(found.cpu_operators[:3])} would run on the CPU, which Vela's figure"
                " leaves out; none may. Search without such operators."
            )
        return Standing(limit, expected, None, found.ms, f"Vela {found.version}, a model of cycles")
    if predicted is None:
        raise TargetError(f"device {limit.device}: this graph cannot be predicted; nothing else judges it.")
    return Standing(limit, expected, None, predicted.safe_ms, f"prediction with its error ({known.source})")


def judged(found: Sequence[Standing]) -> dict[Limit, float]:
    """Return what a budget is held against."""
    return {one.limit: one.judged_ms for one in found}
