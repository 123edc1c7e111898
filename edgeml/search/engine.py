"""Where networks are trained: an engine takes jobs and reports epochs and ends. One interface, several places.

    submit(job) ──► engine ──► wait(on_epoch) = (job, outcome)

``InProcess`` trains in this process, one network after the other: for the Python API and for tests. ``processes`` has
the one that ``edgeml search`` uses. What a job does is the same everywhere: ``trial.carry_out``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgeml.records import Cost
from edgeml.run_folder import Arrays, RunFiles
from edgeml.search.space import Space


@dataclass(frozen=True)
class Job:
    """A network to train: for a ``trial`` of the search, or as a ``finalist``, to the end.

    ``id``: t0007; of a finalist trained from several seeds t0007, t0007-s2, …; ``cost``: what its hyper-parameters
    said; ``epochs`` and ``seed_number`` (from 1): of a finalist (a trial's epochs follow from recipe and oracle);
    ``time_limit_seconds``: from when its training begins; ``stop_after_seconds``: training ends with the epoch that is
    running then, and counts: the time of the search, or the finalist's share of ``train.time_limit_minutes``, is over;
    ``teacher``: a Keras file within the run, whose probabilities a finalist learns at this ``temperature``, with this
    share of ``hard_labels``.
    """

    id: str
    kind: str
    space: str
    hyperparameters: Mapping[str, Any]
    cost: Cost
    epochs: int | None = None
    time_limit_seconds: float | None = None
    seed_number: int = 1
    stop_after_seconds: float | None = None
    teacher: str | None = None
    temperature: float = 1.0
    hard_labels: float = 0.0

    @property
    def number(self) -> int:
        """The number of the trial whose network it is: 7 of t0007, of t0007-s2 and of t0007-d1."""
        return int(self.id[1:].partition("-")[0])

    @classmethod
    def from_json(cls, keys: Mapping[str, Any]) -> Job:
        """Return the job that ``records.to_json`` wrote."""
        return cls(**{**keys, "cost": Cost(**keys["cost"])})


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    ``status``: completed, failed (an exception), crashed (its process died), timed_out or diverged. ``metrics``: of the
    best epoch of a trial, of the last one of a finalist. ``seconds``: of training.
    """

    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    built_cost: Cost | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def is_lost(self) -> bool:
        """Whether its process was ended from outside, and so left unsaid how the network ended."""
        return self.status in ("crashed", "timed_out")

    @classmethod
    def from_json(cls, keys: Mapping[str, Any]) -> Outcome:
        """Return the outcome that ``records.to_json`` wrote."""
        built = keys["built_cost"]
        return cls(**{**keys, "built_cost": Cost(**built) if built else None})


OnEpoch = Callable[[Job, int, dict[str, float]], None]


class Engine(Protocol):
    """Trains up to ``workers`` networks at once."""

    workers: int

    def warm_up(self) -> None:
        """Get ready in the background, where that takes time."""

    def submit(self, job: Job) -> None:
        """Begin a job; at most ``workers`` of them may not have ended."""

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Outcome]:
        """Return the next job that has ended; until then ``on_epoch`` is called with every epoch of any job.

        Raises:
            EdgemlError: what a job says of the run, not of its network: IntegrityError, if a space lies.
        """

    def close(self) -> None:
        """Stop at once whatever still runs."""


class InProcess:
    """Trains in this process, in the order of submission; it has no limits of time or memory to enforce."""

    def __init__(
        self,
        files: RunFiles,
        space: Space,
        splits: Mapping[str, Arrays],
        workers: int = 1,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.workers = workers
        self._about = files, space, splits
        self._callbacks = callbacks
        self._jobs: list[Job] = []

    def warm_up(self) -> None:
        """Do nothing."""

    def submit(self, job: Job) -> None:
        """Take a job; it is trained in ``wait``."""
        self._jobs.append(job)

    def wait(self, on_epoch: OnEpoch) -> tuple[Job, Outcome]:
        """Train the first job."""
        from edgeml.search import trial

        job = self._jobs.pop(0)
        return job, trial.carry_out(
            *self._about, job, lambda number, metrics: on_epoch(job, number, metrics), self._callbacks
        )

    def close(self) -> None:
        """Forget what has not begun."""
        self._jobs.clear()
