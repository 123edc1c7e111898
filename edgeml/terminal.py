"""What a verb shows: our lines on the terminal, everything that libraries print in a log.

TensorFlow, the TFLite converter and tf2onnx write to the file descriptors themselves, so descriptors 1 and 2 are led
into a log file while a verb runs; our own lines go to copies of the terminal's. ``--debug`` leaves them alone.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from edgeml.bundled.finite import written
from edgeml.records import Event

MIN_REDRAW_SECONDS = 0.1


class Terminal:
    """The two streams of a verb: results on stdout, progress and errors on stderr."""

    def __init__(self, *, as_json: bool, quiet: bool, debug: bool) -> None:
        self.as_json, self.quiet, self.debug = as_json, quiet, debug
        self._saved: list[int] = []
        self._live = ""
        self._drawn = 0.0
        descriptor, log = tempfile.mkstemp(prefix="edgeml-", suffix=".log")
        os.close(descriptor)
        self._log = Path(log)

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = [os.dup(1), os.dup(2)]
        self.out: TextIO = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
        self.err: TextIO = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        self.is_live = self.err.isatty() and not self.quiet
        if not self.debug:
            self._lead_to(self._log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.clear()
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        self.out.close()
        self.err.close()
        if self._log.parent == Path(tempfile.gettempdir()):
            self._log.unlink(missing_ok=True)

    def log_into(self, path: Path) -> None:
        """Lead what libraries print into ``path`` from now on, what was printed so far first."""
        if self.debug:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        with path.open("ab") as log:
            log.write(self._log.read_bytes())
        self._log.unlink()
        self._log = path
        self._lead_to(path)

    def _lead_to(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def result(self, text: str, document: Any) -> None:
        """Print the result: the document if JSON is asked for, else the text."""
        self.clear()
        print(json.dumps(written(document), indent=1) if self.as_json else text, file=self.out)

    def out_is_closed(self) -> None:
        """Lead what is still buffered for a closed stdout nowhere, so that closing it does not fail again."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.out.fileno())
        os.dup2(nowhere, self._saved[0])
        os.close(nowhere)

    def line(self, text: str) -> None:
        """Print a line of progress."""
        if self.quiet:
            return
        self.clear()
        print(text, file=self.err)

    def live(self, text: str) -> None:
        """Show ``text`` in the live line of a terminal; nothing elsewhere."""
        now = time.monotonic()
        if not self.is_live or now - self._drawn < MIN_REDRAW_SECONDS:
            return
        self._drawn = now
        columns = os.get_terminal_size(self.err.fileno()).columns  # shutil would ask descriptor 1, which is the log
        self._live = text[: (columns or 80) - 1]
        self.err.write(f"\r\x1b[2K{self._live}")
        self.err.flush()

    def clear(self) -> None:
        """Remove the live line."""
        if self._live:
            self.err.write("\r\x1b[2K")
            self.err.flush()
            self._live = ""


class Progress:
    """Turns the events of a run into lines: one per trial and stage, and a live one in between.

    A trial's line fits into 80 columns; the live one is cut where the terminal ends, so figures that change come first.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.best: float | None = None
        self.trials: dict[str, dict[str, Any]] = {}  # those that run, or finalists
        self.latest: dict[str, Any] = {}
        self.objective = "val_accuracy"
        self.seconds: list[float] = []  # of the trials of this session; a resumed run has others before them
        self.search_ends = math.inf  # by its time limit, on the clock of time.monotonic

    def __call__(self, event: Event) -> None:
        """Show one event."""
        show = getattr(self, f"_{event.stage}", None)
        if show is not None:
            show(event)
        else:
            self.terminal.line(f"{event.stage:<10}{event.message}")

    def _search(self, event: Event) -> None:
        data = event.data
        if event.message == "trial started":
            self.trials[data["id"]] = self.latest = dict(data)
            self.best = data["best"]
            if data["seconds_left"] is not None:
                self.search_ends = time.monotonic() + data["seconds_left"]
            self.objective = data.get("objective", self.objective)
            self._live(data["id"], "starting")
        elif event.message == "epoch":
            self._live(data["id"], self._scored(data["metrics"]), f"epoch {data['epoch'] + 1}")
        elif event.message == "trial tried again":
            error = (data["candidate"].error or "").partition("\n")[0]
            self.terminal.line(f"search    {self._number(data['id']):>5}  tried again: {error}"[:79])
        else:
            self._trial_ended(data["id"], data["candidate"])

    def _live(self, name: str, state: str, epoch: str = "") -> None:
        parts = [f"search    {self._number(name):>5}", state, self._best(), self._left(), self._network(name), epoch]
        self.terminal.live("  ".join(part for part in parts if part))

    def _trial_ended(self, name: str, candidate: Any) -> None:
        self.seconds.append(candidate.seconds)
        completed = candidate.status == "completed"
        accuracy = candidate.metrics[self.objective] if completed else None
        if accuracy is not None and (self.best is None or accuracy > self.best):
            self.best = accuracy
        shown = candidate.status if accuracy is None else self._scored(candidate.metrics)
        line = f"search    {self._number(name):>5}  {shown:<9}  {self._best():<10}  {self._network(name)}"
        del self.trials[name]
        left = "" if self.terminal.is_live else self._left()  # a terminal shows it in the live line
        self.terminal.line(f"{line}  {left}".rstrip())

    def _scored(self, metrics: Mapping[str, float]) -> str:
        """Return what the search maximises: ``val`` accuracy, or ``bal``, the balanced one."""
        kind = "val" if self.objective == "val_accuracy" else "bal"
        return f"{kind} {metrics.get(self.objective, float('nan')):.3f}"

    def _number(self, name: str) -> str:
        return f"{int(name[1:]) + 1}/{self.latest['of']}"

    def _network(self, name: str) -> str:
        trial = self.trials[name]
        return f"{trial['space']:<13} {trial['cost'].params:>6,} params {compact(trial['cost'].macs):>6} MACs"

    def _best(self) -> str:
        return "" if self.best is None else f"best {self.best:.3f}"

    def _left(self) -> str:
        if not self.seconds:
            return ""
        trials = self.latest["of"] - int(self.latest["id"][1:]) - 1 + len(self.trials)
        left = sum(self.seconds) / len(self.seconds) * trials / self.latest["workers"]
        return f"{minutes(max(0.0, min(left, self.search_ends - time.monotonic())))} left"

    def _train(self, event: Event) -> None:
        data = event.data
        if event.message == "finalist":
            self.trials[data["id"]] = dict(data)
            self.objective = data.get("objective", self.objective)
        trial = self.trials[data["id"]]
        about = f"train     {trial['number']:>3}/{trial['of']:<3} {trial['id']}"
        if event.message == "finalist" and not self.terminal.is_live:  # the next line may be half an hour away
            self.terminal.line(f"{about} begins, {trial['epochs']} epochs")
        elif event.message == "epoch":
            shown = self._scored(data["metrics"])
            self.terminal.live(f"{about} epoch {data['epoch'] + 1}/{trial['epochs']} {shown}")
        elif event.message == "finalist trained":
            self.terminal.line(f"{about} {data['epochs']} epochs, {self._scored(data['metrics'])}")
        elif event.message == "finalist failed":
            self.terminal.line(f"{about} {data['status']}: {(data['error'] or '').partition(chr(10))[0]}")


def compact(count: int) -> str:
    """Write a count in short: 940, 186.2k, 1.2M."""
    for unit, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{suffix}"
    return str(count)


def minutes(seconds: float) -> str:
    """Write a time as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(header), *(line(row) for row in rows)])
