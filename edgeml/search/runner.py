"""The runner: asks the oracle, has networks trained, tells the oracle; every step in the ledger before the next begins.

A search is resumed by replaying: a fresh oracle of the same seed is asked and told again in the ledger's order, so it
ends in the state it was left in, random numbers included. It is asked whenever fewer trials run than there are workers,
and told as trials end: their order in the ledger is all that a replay needs. Only trials that were running are lost,
and trained again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml import tensorboards, train
from edgeml.errors import IntegrityError, TrialsError
from edgeml.ledger import Ledger
from edgeml.records import Event
from edgeml.run_folder import RunFolder
from edgeml.search import oracles
from edgeml.search.candidates import ATTEMPTS, Candidate, candidate_of, ends, finished, is_final, last_epochs
from edgeml.search.engine import Engine, Job, Outcome
from edgeml.search.feasibility import Feasibility, Needs
from edgeml.search.space import Space

TUNER = Path("tuner", "oracle")  # KerasTuner's own files, below the run
FAILED_SHARE = 1 / 3  # a run with more failed trials than this has found something else than networks
NAMED_FAILURES = 5
# Of a trial during which the whole search ended: mostly somebody stopped it, so it is trained again, but not for ever.
LOST_STARTS = 20
OnEvent = Callable[[Event], None]


def search(
    run: RunFolder, space: Space, feasibility: Feasibility, engine: Engine, on_event: OnEvent
) -> list[Candidate]:
    """Train networks until the oracle stops, ``max_trials`` or the time limit is reached; return them by number.

    Raises:
        BudgetError: no network of the space fits the budget.
        IntegrityError: a network built costs something else than its hyper-parameters said.
        TrialsError: more than a third of the trials failed.
    """
    has_ended = bool(run.ledger.of("refused"))
    if has_ended and (run.root / TUNER / "oracle.json").is_file():
        candidates = finished(run.ledger, space)  # another machine's oracle might propose something else
        _check_failures(candidates)
        return candidates
    if not has_ended:
        engine.warm_up()  # while this process imports its own framework
    session = _Session(run, space, feasibility, engine, on_event)
    session.fill()
    while session.running:
        session.tell(session.replayed() or session.trained())
        session.fill()
    if session.ends:
        raise session.another_search(session.ends[0]["trial"])
    candidates = sorted(session.candidates, key=lambda candidate: candidate.number)
    if not candidates:
        raise feasibility.none_fits()
    session.save()
    if not has_ended:
        shares = Counter(str(candidate.share) for candidate in candidates)
        run.ledger.append("refused", counts=dict(feasibility.refused), candidates_per_share=dict(shares))
    _check_failures(candidates)
    return candidates


@dataclass
class _Asked:
    """A trial that the oracle proposed and that has not ended. ``attempt``: 0 before it is submitted."""

    trial: Any
    identity: Mapping[str, Any]
    needs: Needs
    attempt: int = 0
    epochs: list[Mapping[str, float]] = field(default_factory=list)


class _Clock:
    """Wall time of a search over all its sessions; what a killed one spent after its last entry is not known."""

    def __init__(self, ledger: Ledger) -> None:
        self._before = max((entry.get("elapsed_seconds", 0.0) for entry in ledger.entries), default=0.0)
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the time since the search began, without the pauses between its sessions."""
        return float(self._before + time.monotonic() - self._start)


class _Session:
    """One session of a search: what the oracle was asked, what runs, what has ended, in this session or before."""

    def __init__(
        self, run: RunFolder, space: Space, feasibility: Feasibility, engine: Engine, on_event: OnEvent
    ) -> None:
        self.run, self.space, self.feasibility, self.engine, self.on_event = run, space, feasibility, engine, on_event
        self.config = config = run.recipe.search
        self.clock = _Clock(run.ledger)
        self.oracle = oracles.create(
            config.oracle, accepts=feasibility.accepts, hyperparameters=space.hyperparameters(),
            max_trials=config.max_trials, epochs=config.epochs, seed=config.seed, needs=feasibility.needs,
            share_of=feasibility.share if len(feasibility.shares) > 1 else None, objective=config.objective,
            objectives=config.objectives or (config.objective, *oracles.OBJECTIVES[1:]),
        )  # fmt: skip
        self.oracle._set_project_dir(run.path(*TUNER.parts).parent, TUNER.name)
        feasibility.keep_shares_for(oracles.defaults(space.hyperparameters().space))
        self.started = {entry["trial"]: entry for entry in run.ledger.of("trial_started")}
        self.ends, self.attempts, self.lost = ends(run.ledger)
        self.epochs = last_epochs(run.ledger)
        self.running: dict[str, _Asked] = {}
        self.candidates: list[Candidate] = []
        self.is_dry = False

    def fill(self) -> None:
        """Ask the oracle until every worker has a trial, or it has none."""
        while not self.is_dry and len(self.running) < self.engine.workers:
            number = len(self.oracle.trials)
            name = f"t{number:04d}"
            if number and name not in self.started and self._time_is_up():
                return
            trial = self.oracle.create_trial(name)  # the name of whoever asks: one that has ended, as each trains once
            while trial.status != "RUNNING" and self._is_dry_at(number) and self.feasibility.drop_share_of(number):
                trial = self.oracle.create_trial(name)
            if trial.status != "RUNNING":
                self.is_dry = trial.status == "STOPPED"  # else it waits for a trial to end
                return
            asked = self._asked(name, trial)
            if name in self.started and self.started[name]["hyperparameters"] != asked.identity["hyperparameters"]:
                raise self.another_search(name)
            self.running[name] = asked

    def replayed(self) -> Candidate | None:
        """Return the next trial that has ended in an earlier session."""
        if not self.ends:
            return None
        entry = self.ends.pop(0)
        if entry["trial"] not in self.running:
            raise self.another_search(entry["trial"])
        asked = self.running[entry["trial"]]
        return candidate_of(asked.identity, asked.needs.cost, entry, self.epochs.get(entry["trial"], []))

    def trained(self) -> Candidate:
        """Return the next trial that ends now."""
        for name, asked in self.running.items():
            if self.lost.get(name, 0) >= LOST_STARTS:
                asked.attempt = ATTEMPTS
                return self._end(asked, Outcome("crashed", error=f"the search ended {LOST_STARTS} times during it"))
            if not asked.attempt:
                self._start(name, asked)
        while True:
            job, outcome = self.engine.wait(self._on_epoch)
            asked = self.running[job.id]
            candidate = self._end(asked, outcome)
            if is_final(outcome.status, asked.attempt):
                return candidate
            self._start(job.id, asked)

    def tell(self, candidate: Candidate) -> None:
        """Report a trial; one that failed as accuracy 0: the Bayesian oracle learns from it, Hyperband counts it."""
        trial = self.running.pop(candidate.id).trial
        steps = candidate.epochs if candidate.status == "completed" else ({self.config.objective: 0.0},)
        for step, metrics in enumerate(steps):
            self.oracle.update_trial(trial.trial_id, dict(metrics), step=step)
        trial.status = "COMPLETED"
        trial.message = None if candidate.status == "completed" else candidate.error or candidate.status
        self.oracle.end_trial(trial)
        self.candidates.append(candidate)

    def save(self) -> None:
        """Write the oracle's state as it is in the end."""
        self.oracle.seldom = False
        self.oracle.save()

    def another_search(self, name: str) -> IntegrityError:
        """Return the error for a ledger that this search has not written."""
        return IntegrityError(
            f"{self.run.ledger.path}: trial {name} is not what this search proposes; the ledger is of another"
            " version or seed. Start again with --overwrite."
        )

    def _is_dry_at(self, number: int) -> bool:
        return getattr(self.oracle, "dry_at", None) == number

    def _asked(self, name: str, trial: Any) -> _Asked:
        values = dict(trial.hyperparameters.values)
        share = self.feasibility.share(values)
        needs = self.feasibility.needs(values)
        identity = {
            "id": name, "space": self.space.name_of(values), "share": share, "hyperparameters": values,
            "predicted_ms": {limit.where: prediction.ms for limit, prediction in needs.predicted.items()},
        }  # fmt: skip
        return _Asked(trial, identity, needs)

    def _start(self, name: str, asked: _Asked) -> None:
        self.attempts[name] = asked.attempt = self.attempts.get(name, 0) + 1
        asked.epochs.clear()
        values, cost = asked.identity["hyperparameters"], asked.needs.cost
        self.run.ledger.append(
            "trial_started", name, hyperparameters=values, cost=cost, share=asked.identity["share"],
            predicted_ms=asked.identity["predicted_ms"],
            attempt=asked.attempt, seed=train.network_seed(self.config.seed, int(name[1:])),
            elapsed_seconds=self.clock.seconds(),
        )  # fmt: skip
        self.on_event(Event("search", "trial started", {**asked.identity, "cost": cost, **self._standing()}))
        self._warn_if_outside(name, asked.needs)
        minutes = self.config.trial_time_limit_minutes
        limit = None if minutes is None else 60 * minutes
        self.engine.submit(
            Job(
                name, "trial", asked.identity["space"], values, cost, time_limit_seconds=limit,
                stop_after_seconds=self._seconds_left(),
            )
        )  # fmt: skip

    def _warn_if_outside(self, name: str, needs: Needs) -> None:
        for limit, prediction in needs.predicted.items():
            if prediction.outside:
                text = f"{name}: its latency on {limit.where} is less sure, it lies outside what was calibrated"
                self.on_event(Event("search", f"warning: {text} ({prediction.outside[0]})"))

    def _end(self, asked: _Asked, outcome: Outcome) -> Candidate:
        name, seconds = asked.identity["id"], self.clock.seconds()
        self.run.ledger.append(
            "trial_ended", name, status=outcome.status, metrics=outcome.metrics, seconds=outcome.seconds,
            error=outcome.error, built_cost=outcome.built_cost, attempt=asked.attempt, elapsed_seconds=seconds,
        )  # fmt: skip
        candidate = Candidate(
            **asked.identity, cost=asked.needs.cost, status=outcome.status, built_cost=outcome.built_cost,
            metrics=outcome.metrics, epochs=tuple(asked.epochs), seconds=outcome.seconds, error=outcome.error,
        )  # fmt: skip
        is_last = is_final(outcome.status, asked.attempt)
        if is_last and outcome.is_lost:
            tensorboards.end_lost(tensorboards.folder_of(self.run.root, name))
        message = "trial ended" if is_last else "trial tried again"
        self.on_event(Event("search", message, {"id": name, "candidate": candidate}))
        return candidate

    def _on_epoch(self, job: Job, number: int, metrics: dict[str, float]) -> None:
        self.running[job.id].epochs.append(metrics)
        seconds = self.clock.seconds()
        self.run.ledger.append("epoch", job.id, epoch=number, metrics=metrics, elapsed_seconds=seconds)
        self.on_event(Event("search", "epoch", {"id": job.id, "epoch": number, "metrics": metrics}))

    def _standing(self) -> dict[str, Any]:
        """Return what a reader of a live line asks: how many trials at most, the best so far, the time that is left."""
        objective = self.config.objective
        best = max((c.metrics[objective] for c in self.candidates if c.status == "completed"), default=None)
        about = {"of": self.config.max_trials, "objective": objective, "workers": self.engine.workers}
        return {**about, "best": best, "seconds_left": self._seconds_left()}

    def _seconds_left(self) -> float | None:
        """Return how long the search may still take, None where it has no limit."""
        limit = self.config.time_limit_minutes
        return None if limit is None else max(0.0, 60 * limit - self.clock.seconds())

    def _time_is_up(self) -> bool:
        return self._seconds_left() == 0


def _check_failures(candidates: list[Candidate]) -> None:
    failed = [c for c in candidates if c.status != "completed"]
    if len(failed) > FAILED_SHARE * len(candidates):
        first = (failed[0].error or failed[0].status).splitlines()[0]
        others = ", ".join(f"{c.id} {c.status}" for c in failed[1:NAMED_FAILURES])
        more = f"; others: {others}{', …' if len(failed) > NAMED_FAILURES else ''}" if others else ""
        raise TrialsError(
            f"search: {len(failed)} of {len(candidates)} trials failed; at most a third may."
            f" The first, {failed[0].id}, {failed[0].status}: {first}{more}. The ledger holds every traceback."
        )
