"""The real command, killed at random moments and resumed: it ends as if nothing had happened, and leaves no process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from foreign import SMALL_SPACE, install

EDGEML = Path(sys.executable).with_name("edgeml")
RECIPE = """schema_version: 1
name: tiny
data: {source: digits, splits: {validation: 0.1, blend: 0.1, test: 0.2}}
search: {space: %s, max_trials: %d, epochs: 1, batch_size: 200, seed: 2}
budget: {params: 4_000}
"""


def command(*words):
    return [EDGEML, "search", "tiny.yaml", "--json", *words]


def essence(folder):
    """(id, hyper-parameters, metrics) of every trial in the order of their ends."""
    ledger = [json.loads(line) for line in (folder / "runs" / "tiny" / "ledger.jsonl").read_text().splitlines()]
    values = {e["trial"]: e["hyperparameters"] for e in ledger if e["event"] == "trial_started"}
    return [(e["trial"], values[e["trial"]], e["metrics"]) for e in ledger if e["event"] == "trial_ended"]


def workers_of(pid):
    """The processes that train for this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"edgeml.search.worker" in words and str(pid).encode() in words:
            found.append(place.name)
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_search_that_is_killed_again_and_again_ends_as_if_it_was_not(tmp_path, kills):
    rng = random.Random(kills)
    places = [tmp_path / name for name in ("whole", "killed")]
    for place in places:
        place.mkdir()
        (place / "tiny.yaml").write_text(RECIPE % ("ds_cnn", 2 + kills // 5))
    start = time.monotonic()
    subprocess.run(command(), cwd=places[0], capture_output=True, check=True)
    longest = time.monotonic() - start
    for _ in range(kills):
        process = subprocess.Popen(
            command("--resume"), cwd=places[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(rng.uniform(0, min(longest, 30)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        end = time.monotonic() + 10
        while workers_of(process.pid):
            assert time.monotonic() < end, "orphans"
            time.sleep(0.05)
    last = subprocess.run(command("--resume"), cwd=places[1], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert essence(places[1]) == essence(places[0])
    assert len(essence(places[0])) == 2 + kills // 5


@pytest.mark.slow
def test_two_workers_and_a_network_that_kills_its_process(monkeypatch, tmp_path):
    source = SMALL_SPACE.replace("[8, 16]", "[8, 16, 24, 32, 40]").replace(
        "    return network(hp, input_shape, num_classes).keras()",
        "    import os, signal\n    if hp.values['width'] == 24:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return network(hp, input_shape, num_classes).keras()",
    )
    install(monkeypatch, tmp_path / "package", "search_spaces", "small", source)
    (tmp_path / "tiny.yaml").write_text(RECIPE % ("small", 5))
    places = [str(tmp_path / "package"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    found = subprocess.run(command("--workers", "2"), cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["trials"] == {"completed": 4, "crashed": 1}
    (failed,) = document["failed"]
    assert failed["error"].startswith("its process was killed by SIGKILL")
    ledger = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "ledger.jsonl").read_text().splitlines()]
    starts = {e["trial"]: e["hyperparameters"]["width"] for e in ledger if e["event"] == "trial_started"}
    assert sorted(starts.values()) == [8, 16, 24, 32, 40]
    assert starts[failed["id"]] == 24
    assert [e["attempt"] for e in ledger if e["event"] == "trial_ended" and e["trial"] == failed["id"]] == [1, 2]
    assert found.stderr.count("tried again: its process was killed by SIGKILL") == 1
    running, most = set(), 0
    for entry in ledger:
        running = running | {entry["trial"]} if entry["event"] == "trial_started" else running
        running = running - {entry["trial"]} if entry["event"] == "trial_ended" else running
        most = max(most, len(running))
    assert most == 2
