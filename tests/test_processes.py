"""Networks trained in child processes: whatever one does to its own, the next is trained, and nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from foreign import SMALL_SPACE, install
from sklearn.datasets import load_digits

from edgeml import memory, recipe_file, run_folder, scaling
from edgeml.errors import EdgemlError, IntegrityError
from edgeml.search import processes, trial
from edgeml.search.engine import Job
from edgeml.search.feasibility import Feasibility
from edgeml.search.processes import Processes
from edgeml.search.space import Space

RECIPE = """
schema_version: 1
name: wild
data: {source: digits}
search: {space: wild, epochs: 2, batch_size: 50, seed: 3}
train: {epochs: 3}
"""
WILD_SPACE = SMALL_SPACE.replace(
    "    return network(hp, input_shape, num_classes).keras()",
    """    import os, signal, time
    import numpy as np

    does = hp.values["does"]
    if does == "raise":
        raise RuntimeError("no such network")
    if does == "die":
        os.kill(0, signal.SIGKILL)  # its whole process group
    if does == "sleep":
        time.sleep(600)
    if does == "tell":
        from edgeml.search.processes import THREADS

        threads = ",".join(os.environ[name] for name in THREADS)
        raise RuntimeError(f"{threads} {os.getpid()} {os.read(0, 1)!r}")
    if does == "count":
        import gc, keras

        raise RuntimeError(str(sum(isinstance(one, keras.Model) for one in gc.get_objects())))
    held = []
    while does == "eat":
        held.append(np.ones(2_000_000))
        time.sleep(0.01)
    print("the network prints")
    return network(hp, input_shape, num_classes).keras()""",
).replace(
    "    return network(hp, input_shape, num_classes).operators()",
    '    hp.Choice("does", ["train"])\n    return network(hp, input_shape, num_classes).operators()',
)
MEMORY_LIMIT_MB = 2_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder with data and a space whose networks do what their hyper-parameter ``does`` says."""
    x, y = load_digits(return_X_y=True)
    x, y = x.reshape(-1, 8, 8, 1).astype("float32"), y.astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("wild")
        install(patch, folder / "package", "search_spaces", "wild", WILD_SPACE)
        run = run_folder.begin(folder / "run", recipe_file.parse(RECIPE, "recipe.yaml"), keep_finished=True)
        about = {"labels": [str(n) for n in range(10)], "value_range": [0, 16], "meaning": "pixels", "notes": []}
        run.save_data({"train": (x[:100], y[:100]), "validation": (x[100:150], y[100:150])}, {}, about)
        yield run
        run.close()


@pytest.fixture(scope="module")
def networks(place):
    return Space(("wild",), (8, 8, 1), 10, scaling.rescale((0, 16)))


@pytest.fixture(scope="module")
def engine(place):
    """Three children, warm for all tests of this file; the last test costs each of them its life."""
    found = Processes(place.root, workers=3, memory_limit_mb=MEMORY_LIMIT_MB)
    found.warm_up()
    yield found
    found.close()


def job(networks, number, does="train", **options):
    values = {"width": 8, "does": does}
    cost = Feasibility(networks.operators, recipe_file.parse(RECIPE, "r").budget).cost(values)
    return Job(f"t{number:04d}", options.pop("kind", "trial"), "wild", values, cost, **options)


def done(engine, *jobs):
    """Submit jobs, return outcome and epochs of each by its id."""
    epochs, outcomes = {job.id: [] for job in jobs}, {}
    for one in jobs:
        engine.submit(one)
    for _ in jobs:
        ended, outcome = engine.wait(lambda job, number, metrics: epochs[job.id].append((number, metrics)))
        outcomes[ended.id] = outcome
    return outcomes, epochs


def test_a_child_computes_what_this_process_computes(engine, networks, place, capfd):
    jobs = [job(networks, 0), job(networks, 1, kind="finalist", epochs=3)]
    outcomes, epochs = done(engine, *jobs)
    assert "the network prints" not in capfd.readouterr().out  # stdout may be a JSON document
    for one, count in zip(jobs, (2, 3), strict=True):
        seen = []
        (place.root / "finalists" / one.id / "model.keras").unlink(missing_ok=True)
        here = trial.carry_out(place, networks, place.splits(), one, lambda *epoch, seen=seen: seen.append(epoch))
        assert len(seen) == count
        assert (outcomes[one.id].status, outcomes[one.id].built_cost) == ("completed", here.built_cost)
        assert here.built_cost == (one.cost if one.kind == "trial" else None)
        # The children have one thread each here, this process has all cores: sums may be in another order.
        for name, value in here.metrics.items():
            assert outcomes[one.id].metrics[name] == pytest.approx(value, rel=1e-3)
        assert [number for number, _ in epochs[one.id]] == [number for number, _ in seen]


def test_an_exception_is_the_networks_own_and_its_child_stays(engine, networks):
    outcomes, _ = done(engine, job(networks, 2, "raise"))
    assert (outcomes["t0002"].status, outcomes["t0002"].error.splitlines()[0]) == ("failed", "no such network")
    assert "Traceback" in outcomes["t0002"].error
    first, second = (done(engine, *(job(networks, n, "tell") for n in range(3)))[0] for _ in range(2))

    def told(outcomes):
        return [outcome.error.splitlines()[0].split() for outcome in outcomes.values()]

    threads = [str(max(1, len(os.sched_getaffinity(0)) // 3))] * len(processes.THREADS)
    assert all(
        words[0].split(",") == threads and words[2] == "b''" for words in told(first)
    )  # no job is taken from stdin
    assert len({pid for _, pid, _ in told(first)}) == 3
    assert {pid for _, pid, _ in told(first)} == {pid for _, pid, _ in told(second)}


def test_no_network_outlives_its_job(engine, networks):
    done(engine, *(job(networks, n) for n in range(3)))
    outcomes, _ = done(engine, *(job(networks, n, "count") for n in range(3)))
    assert [outcome.error.splitlines()[0] for outcome in outcomes.values()] == 3 * ["0"]


def test_threads_that_the_user_set_are_left_as_they_are(place, networks, monkeypatch):
    for name in processes.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    with closing(Processes(place.root, workers=2)) as engine:
        outcomes, _ = done(engine, job(networks, 2, "tell"))
    told = outcomes["t0002"].error.split()[0].split(",")
    assert dict(zip(processes.THREADS, told, strict=True)) == {
        **dict.fromkeys(processes.THREADS, "4"), "OMP_NUM_THREADS": "7",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_jax_starts_the_threads_that_it_is_given():
    pytest.importorskip("jax")
    code = """
import jax, os
(jax.numpy.ones((8, 8)) @ jax.numpy.ones((8, 8))).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
print(sum("XLAEigen" in name for name in names))
"""
    for count in ("1", "5"):
        environment = {**os.environ, "NPROC": count, "JAX_PLATFORMS": "cpu"}
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert found.stdout.strip() == count, found.stderr


def test_a_space_that_lies_stops_the_run_from_within_a_child(engine, networks):
    from dataclasses import replace

    honest = job(networks, 4)
    engine.submit(replace(honest, cost=replace(honest.cost, params=7)))
    with pytest.raises(IntegrityError, match=r"search space wild: it declares Cost\(params=7, .* that it builds needs"):
        engine.wait(lambda *epoch: None)
    assert IntegrityError.exit_code == 8


def test_a_network_that_kills_eats_or_sleeps_costs_itself_alone(engine, networks):
    outcomes, _ = done(
        engine, job(networks, 5, "die"), job(networks, 6, "eat"), job(networks, 7, "sleep", time_limit_seconds=1.0)
    )
    assert [outcomes[name].status for name in ("t0005", "t0006", "t0007")] == ["crashed", "crashed", "timed_out"]
    assert outcomes["t0005"].error.startswith("its process was killed by SIGKILL")
    assert "the limit is 2,000 (search.memory_limit_mb)" in outcomes["t0006"].error
    assert "its time limit is 1 (search.trial_time_limit_minutes)" in outcomes["t0007"].error
    assert 1.0 < outcomes["t0007"].seconds < 5.0
    engine.workers, engine._grown_mb = 1, 1.0  # any child has grown beyond it
    engine.submit(job(networks, 8))
    (child,) = engine._busy
    ended, outcome = engine.wait(lambda *epoch: None)
    assert (ended.id, outcome.status) == ("t0008", "completed")
    assert engine._idle == engine._busy == []
    assert not alive(child.pid)


def test_a_child_that_cannot_start_is_no_failed_trial(tmp_path, networks, place):
    (tmp_path / run_folder.RECIPE).write_text("no recipe")
    broken = Processes(tmp_path)
    try:
        broken.submit(job(networks, 0))
        with pytest.raises(EdgemlError, match=r"ended with exit code 1 3 times before it could train"):
            broken.wait(lambda *epoch: None)
    finally:
        broken.close()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pids, seconds=10.0):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_children_end_with_a_parent_that_is_killed(place):
    program = f"""
import json, time
from pathlib import Path
from edgeml.search.processes import Processes
engine = Processes(Path({str(place.root)!r}), workers=2)
engine.warm_up()
print(json.dumps([child.pid for child in engine._idle]), flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = json.loads(parent.stdout.readline())
    assert len(children) == 2
    assert all(map(alive, children))
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(children)


def test_a_child_ends_with_its_stdin_where_the_kernel_does_not_help(place):
    read, write = os.pipe()
    command = [sys.executable, "-m", "edgeml.search.worker", str(place.root), str(os.getpid()), str(write)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[write], stderr=subprocess.DEVNULL) as child:
        child.communicate(timeout=60)
    os.close(read)
    os.close(write)
    assert child.returncode == -signal.SIGKILL


def test_memory_of_a_process_is_its_own():
    before = memory.memory_mb(os.getpid())
    held = np.ones(25_000_000)
    assert 150 < memory.memory_mb(os.getpid()) - before < 250
    del held
    assert memory.memory_mb(2**22 + 1) == 0
