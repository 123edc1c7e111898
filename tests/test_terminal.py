"""Tests of what a verb shows, on real pseudo-terminals, pipes and descriptors."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeml.records import Cost, Event
from edgeml.terminal import Progress, compact, minutes, table

# A program that draws two trials, an epoch between them, a finalist and a stage, with noise of libraries around.
PROGRAM = """
import os, sys, time
from fractions import Fraction
from types import SimpleNamespace
from edgeml.records import Cost, Event
from edgeml.terminal import Progress, Terminal

def trial(number):
    standing = {"of": 14, "best": 0.944 if number == 13 else None, "seconds_left": None, "workers": 1}
    return {"id": f"t{number:04d}", "space": "separable_cnn", "cost": Cost(9_931, 1_186_240), **standing}

with Terminal(as_json="--json" in sys.argv, quiet="--quiet" in sys.argv, debug="--debug" in sys.argv) as terminal:
    show = Progress(terminal)
    os.write(1, b"NOISE on stdout\\n")
    os.write(2, b"NOISE on stderr\\n")
    for number, accuracy in ((12, 0.944), (13, 0.5)):
        show(Event("search", "trial started", trial(number)))
        time.sleep(0.15)
        show(Event("search", "epoch", {"id": trial(number)["id"], "epoch": 2, "metrics": {"val_accuracy": accuracy}}))
        ended = SimpleNamespace(status="completed", metrics={"val_accuracy": accuracy}, seconds=4.0)
        show(Event("search", "trial ended", {"id": trial(number)["id"], "candidate": ended}))
        time.sleep(0.15)
    show(Event("search", "trial started", trial(13)))
    failed = SimpleNamespace(status="failed", metrics={}, seconds=4.0)
    show(Event("search", "trial ended", {"id": "t0013", "candidate": failed}))
    show(Event("train", "finalist", {"id": "t0012", "number": 1, "of": 2, "epochs": 5}))
    show(Event("train", "epoch", {"id": "t0012", "epoch": 0, "metrics": {"val_accuracy": 0.9}}))
    show(Event("train", "finalist trained", {"id": "t0012", "epochs": 5, "metrics": {"val_accuracy": 0.95}}))
    show(Event("export", "model.tflite"))
    terminal.result("the result", {"result": 1})
"""
CLEARED = "\r\x1b[2K"


def piped(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *flags], capture_output=True, text=True, check=True)


def on_terminal(columns: int, *flags: str) -> str:
    """Run the program on a terminal of this width and return every character that it was sent."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *flags], stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    sent = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux says so when the last process has closed its end
            break
        if not part:
            break
        sent += part
    os.close(leader)
    assert program.wait() == 0
    return sent.decode().replace("\r\n", "\n")


def test_piped_progress_is_plain_lines_on_stderr() -> None:
    found = piped()
    assert found.stdout == "the result\n"
    assert found.stderr.splitlines() == [
        "search    13/14  val 0.944  best 0.944  separable_cnn  9,931 params   1.2M MACs  0:04 left",
        "search    14/14  val 0.500  best 0.944  separable_cnn  9,931 params   1.2M MACs  0:00 left",
        "search    14/14  failed     best 0.944  separable_cnn  9,931 params   1.2M MACs  0:00 left",
        "train       1/2   t0012 begins, 5 epochs",
        "train       1/2   t0012 5 epochs, val 0.950",
        "export    model.tflite",
    ]


def test_a_terminal_has_a_live_line_with_everything_in_it() -> None:
    sent = on_terminal(120)
    network = "separable_cnn  9,931 params   1.2M MACs"
    assert f"{CLEARED}search    13/14  starting  {network}" in sent
    assert f"{CLEARED}search    13/14  val 0.944  {network}  epoch 3{CLEARED}" in sent
    assert f"{CLEARED}search    14/14  val 0.500  best 0.944  0:04 left  {network}  epoch 3{CLEARED}" in sent
    assert sent.endswith("export    model.tflite\nthe result\n")
    assert "NOISE" not in sent


@pytest.mark.parametrize("columns", [40, 80])
def test_the_live_line_never_wraps(columns: int) -> None:
    sent = on_terminal(columns)
    live = re.findall(rf"{re.escape(CLEARED)}([^\r\n]+)(?=\r)", sent)
    assert any(len(line) == columns - 1 for line in live)  # cut, but not shorter than the room there is
    assert max(map(len, live)) < columns


def test_the_lines_that_stay_fit_into_80_columns() -> None:
    lines = on_terminal(80).replace(CLEARED, "\r").splitlines()
    stay = [line.rpartition("\r")[2] for line in lines]
    assert "search    13/14  val 0.944  best 0.944  separable_cnn  9,931 params   1.2M MACs" in stay
    assert max(map(len, stay)) <= 79


def test_what_the_search_maximises_is_what_is_shown() -> None:
    lines: list[str] = []
    show = Progress(SimpleNamespace(line=lines.append, live=lambda text: None, is_live=True))  # type: ignore[arg-type]
    cost, metrics = Cost(9_931, 1_186_240), {"val_accuracy": 0.9, "val_balanced_accuracy": 0.6}
    about = {
        "id": "t0000",
        "of": 2,
        "best": None,
        "seconds_left": None,
        "workers": 1,
        "objective": "val_balanced_accuracy",
    }
    show(Event("search", "trial started", {**about, "space": "ds_cnn", "cost": cost}))
    ended = SimpleNamespace(status="completed", metrics=metrics, seconds=4.0)
    show(Event("search", "trial ended", {"id": "t0000", "candidate": ended}))
    finalist = {"id": "t0000-s2", "number": 2, "of": 2, "epochs": 5, "objective": "val_balanced_accuracy"}
    show(Event("train", "finalist", finalist))
    show(Event("train", "finalist trained", {**finalist, "metrics": metrics}))
    assert lines[0].startswith("search      1/2  bal 0.600  best 0.600  ds_cnn")
    assert lines[1] == "train       2/2   t0000-s2 5 epochs, bal 0.600"


def test_the_time_that_is_left_runs_on_while_a_trial_trains(monkeypatch) -> None:
    lines: list[str] = []
    now = 100.0
    monkeypatch.setattr("edgeml.terminal.time.monotonic", lambda: now)
    show = Progress(SimpleNamespace(line=lines.append, live=lambda text: None, is_live=False))  # type: ignore[arg-type]
    standing = {"of": 90, "best": None, "seconds_left": 70.0, "workers": 1}
    cost, ended = Cost(9, 9), SimpleNamespace(status="completed", metrics={"val_accuracy": 0.9}, seconds=40.0)
    for name in ("t0000", "t0001"):
        show(Event("search", "trial started", {"id": name, "space": "ds_cnn", "cost": cost, **standing}))
        now += 40
        show(Event("search", "trial ended", {"id": name, "candidate": ended}))
        standing["seconds_left"] = 30.0
    assert [line[-9:] for line in lines] == ["0:30 left", "0:00 left"]


def test_only_erasing_is_sent_never_colour() -> None:
    assert set(re.findall(r"\x1b\[[0-9;]*[A-Za-z]", on_terminal(120))) == {"\x1b[2K"}


def test_quiet_shows_the_result_alone() -> None:
    assert on_terminal(120, "--quiet") == "the result\n"
    assert piped("--quiet").stderr == ""


def test_json_is_the_only_thing_on_stdout() -> None:
    assert json.loads(piped("--json").stdout) == {"result": 1}


def test_debug_shows_what_libraries_print() -> None:
    found = piped("--debug")
    assert "NOISE on stdout" in found.stdout
    assert "NOISE on stderr" in found.stderr


def test_what_libraries_print_goes_into_the_log_and_no_other_file_stays(tmp_path: Path) -> None:
    program = """
import os, pathlib
from edgeml.terminal import Terminal
with Terminal(as_json=False, quiet=False, debug=False) as terminal:
    os.write(1, b"before\\n")
    terminal.log_into(pathlib.Path("log.txt"))
    os.write(2, b"after\\n")
    terminal.line("a line")
print("restored")
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert (tmp_path / "log.txt").read_text() == "before\nafter\n"
    assert (found.stdout, found.stderr) == ("restored\n", "a line\n")
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_no_descriptor_is_left_open() -> None:
    program = """
import os
from edgeml.terminal import Terminal
before = os.listdir("/proc/self/fd")
for _ in range(3):
    with Terminal(as_json=False, quiet=False, debug=False):
        pass
print(len(os.listdir("/proc/self/fd")) - len(before))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "0\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (186_240, "186.2k"), (1_186_240, "1.2M"), (3 * 10**9, "3.0G")],
)
def test_counts_are_short(count: int, text: str) -> None:
    assert compact(count) == text


def test_times_are_minutes_and_seconds() -> None:
    assert [minutes(s) for s in (0, 59.9, 60, 3725)] == ["0:00", "0:59", "1:00", "62:05"]


def test_a_table_is_aligned_and_has_no_trailing_blanks() -> None:
    assert table(["file", "bytes"], [["a", "1"], ["longer", "22,000"]]).splitlines() == [
        "file     bytes", "a            1", "longer  22,000",
    ]  # fmt: skip
    assert table(["file", "bytes"], []) == "file  bytes"
