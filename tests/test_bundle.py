"""Staging, replacing, sums and golden inputs of a bundle: nothing half-written, nothing of others touched."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeml import bundle
from edgeml.errors import UsageError


def fill(folder, text="new"):
    (folder / "model.onnx").write_text(text)
    bundle.write_sums(folder, {"schema_version": 1, "name": "x"}, {"model.onnx": {"role": "model", "target": "onnx"}})


@pytest.fixture
def place(tmp_path):
    return tmp_path / "exported" / "mine"


@pytest.fixture
def standing(place):
    with bundle.staged(place) as folder:
        fill(folder, "old")
    return place


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_bundle_takes_its_place(place):
    with bundle.staged(place) as folder:
        fill(folder)
        assert folder.parent == place.parent
        assert not place.exists()
    assert names(place.parent) == ["mine"]
    assert names(place) == ["SHA256SUMS", "manifest.json", "model.onnx"]


def test_a_finished_bundle_replaces_an_old_one_with_every_file_of_it(standing):
    (standing / "left.txt").write_text("of the old one")
    with (standing / "SHA256SUMS").open("a") as sums:
        sums.write("0  left.txt\n")
    with bundle.staged(standing) as folder:
        fill(folder)
    assert names(standing.parent) == ["mine"]
    assert "left.txt" not in names(standing)
    assert (standing / "model.onnx").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(place, error):
    with pytest.raises(error), bundle.staged(place) as folder:
        (folder / "model.onnx").write_text("half")
        raise error
    assert not place.parent.exists()


def test_a_failure_leaves_the_old_bundle(standing):
    before = {path.name: path.read_bytes() for path in standing.iterdir()}
    with pytest.raises(RuntimeError), bundle.staged(standing) as folder:
        fill(folder)
        raise RuntimeError
    assert {path.name: path.read_bytes() for path in standing.iterdir()} == before
    assert names(standing.parent) == ["mine"]


def test_the_place_cannot_be_taken_at_the_end(standing, monkeypatch):
    """The disk says no at the last step: the old bundle goes back to where it was."""
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(self.name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    with pytest.raises(OSError, match="No space"), bundle.staged(standing) as folder:
        fill(folder)
        monkeypatch.setattr(Path, "rename", failing)
    assert calls == ["mine", f".mine.staging-{os.getpid()}", f".mine.old-{os.getpid()}"]
    assert (standing / "model.onnx").read_text() == "old"
    assert names(standing.parent) == ["mine"]


def test_an_occupied_folder_is_refused_and_untouched(place):
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("years of work")
    for use in (bundle.check_place, lambda p: bundle.staged(p).__enter__()):
        with pytest.raises(UsageError, match=r"mine: holds something that is not a bundle\. Move it away"):
            use(place)
    assert names(place) == ["thesis.tex"]
    assert names(place.parent) == ["mine"]


def test_a_file_in_its_place_is_refused(place):
    place.parent.mkdir()
    place.write_text("a file")
    with pytest.raises(UsageError, match="holds something that is not a bundle"):
        bundle.check_place(place)


def test_an_empty_folder_is_taken(place):
    place.mkdir(parents=True)
    with bundle.staged(place) as folder:
        fill(folder)
    assert "model.onnx" in names(place)


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for mode in (0o644, 0o755):
        (tmp_path / "file").chmod(mode)
        with pytest.raises(UsageError, match=r"cannot be written to .*Choose another --out"):
            bundle.staged(tmp_path / "file" / "mine").__enter__()


def test_a_place_where_nobody_can_write_is_refused():
    """Even root: the kernel makes no folders in /proc."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    with pytest.raises(UsageError, match=r"^/proc: cannot be written to .*Choose another --out"):
        bundle.staged(Path("/proc/mine")).__enter__()


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; test_a_place_where_nobody_can_write stands in"
)
def test_a_read_only_parent_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="read-only, or not yours"):
            bundle.check_place(tmp_path / "mine")
    finally:
        tmp_path.chmod(0o755)


def test_what_a_killed_process_of_our_number_left_is_no_obstacle(place):
    left = place.with_name(f".mine.staging-{os.getpid()}")
    left.mkdir(parents=True)
    (left / "half.onnx").write_text("half")
    with bundle.staged(place) as folder:
        fill(folder)
    assert "half.onnx" not in names(place)


def test_the_current_folder_has_a_name_too(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with bundle.staged(Path()) as folder:
        fill(folder)
    assert "model.onnx" in names(tmp_path / "here")


def test_files_of_others_stay_and_get_into_no_sum(standing):
    (standing / "mine").mkdir()
    (standing / "mine" / "notes.txt").write_text("of somebody else")
    with bundle.rewritten(standing) as folder:
        assert not (folder / "mine" / "notes.txt").exists()
        bundle.write_sums(folder, {}, {})
    assert (standing / "mine" / "notes.txt").read_text() == "of somebody else"
    assert "notes.txt" not in (standing / "SHA256SUMS").read_text()


def test_the_bundle_that_one_stands_in_is_not_replaced(standing, monkeypatch):
    before = standing.stat().st_ino
    monkeypatch.chdir(standing)
    refused = pytest.raises(UsageError, match=r"\.: is replaced as a whole, and you stand in it\. `cd \.\.`")
    with refused, bundle.rewritten(Path()):
        pass
    assert standing.stat().st_ino == before


def test_a_copy_is_rewritten_as_a_whole(standing):
    with bundle.rewritten(standing) as folder:
        (folder / "report.html").write_text("again")
        assert names(folder) == sorted([*names(standing), "report.html"])
    assert (standing / "report.html").read_text() == "again"
    with pytest.raises(RuntimeError), bundle.rewritten(standing) as folder:
        (folder / "report.html").write_text("broken")
        raise RuntimeError
    assert (standing / "report.html").read_text() == "again"


# ---- sums and manifest


def test_sums_are_what_sha256sum_checks(standing):
    ran = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=standing, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["manifest.json: OK", "model.onnx: OK"]
    (standing / "model.onnx").write_text("changed")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=standing, capture_output=True).returncode == 1


def test_the_manifest_names_every_file_but_itself_and_the_sums(standing):
    manifest = bundle.read(standing)
    assert manifest["files"] == [
        {"path": "model.onnx", "role": "model", "target": "onnx", "bytes": 3,
         "sha256": hashlib.sha256(b"old").hexdigest()}
    ]  # fmt: skip
    assert bundle.models(manifest) == manifest["files"]


def test_a_number_that_json_does_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        bundle.write_sums(tmp_path, {"parity": float("nan")}, {})


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(UsageError, match=r"not a bundle \(manifest\.json is missing\)"):
        bundle.read(tmp_path)


def test_provenance_says_what_was_used():
    found = bundle.provenance()
    assert set(found["versions"]) == set(bundle.PACKAGES)
    assert found["created"].endswith("Z")
    assert found["machine"]["cores"] >= 1
    json.dumps(found)


# ---- golden tensors


@pytest.mark.parametrize("count", [1, 2, 47, 48, 49, 63, 64, 500])
@pytest.mark.parametrize("shape", [(3, 4, 1), (8, 8, 3)])
def test_golden_inputs_are_64_whatever_there_is(count, shape):
    samples = np.random.default_rng(0).uniform(0.2, 0.8, (count, *shape))
    golden = bundle.golden_inputs(samples, (0.0, 1.0))
    assert golden.shape == (bundle.GOLDEN_SAMPLES, *shape)
    assert golden.dtype == np.float32
    real = min(count, bundle.GOLDEN_REAL)
    kept = {row.tobytes() for row in samples.astype("float32")}
    assert [row.tobytes() in kept for row in golden[:real]] == [True] * real
    assert golden[0].tobytes() == samples[0].astype("float32").tobytes()
    assert real < 2 or golden[real - 1].tobytes() == samples[-1].astype("float32").tobytes()
    assert {float(row.flat[0]) for row in golden[real : real + 4]} == {0.0, 1.0, 0.5}
    assert golden.min() == 0
    assert golden.max() == 1
    np.testing.assert_array_equal(golden, bundle.golden_inputs(samples, (0.0, 1.0)))


@pytest.mark.parametrize("shape", [(3,), (10, 3)])
def test_probes_of_a_table_are_of_the_range_of_each_column(shape):
    """Within that of all columns, every network saturates on them: whatever a file computes, it agrees."""
    least, most = np.array([0.001, -2.0, 1e4], "float32"), np.array([0.003, 5.0, 2e6], "float32")
    samples = np.random.default_rng(0).uniform(least, most, (300, *shape)).astype("float32")
    rows = bundle.golden_inputs(samples, (-2.0, 2e6)).reshape(bundle.GOLDEN_SAMPLES, -1, 3)
    inside = (rows >= samples.reshape(-1, 3).min(axis=0)) & (rows <= samples.reshape(-1, 3).max(axis=0))
    assert [place for place in range(64) if not inside[place].all()] == [bundle.GOLDEN_REAL]  # zero
    assert len({row.tobytes() for row in rows}) > 60


def test_limits_are_shares_of_the_range_where_there_are_no_probabilities():
    scores = np.full((64, 4), 0.25)
    assert bundle.golden_limits("float32", {"y": scores})["max_abs_limit"] == bundle.OTHER_MACHINE_LIMITS["float32"]
    metres = np.linspace(-500, 1500, 64)[:, None]
    for precision, share in (("float32", 1e-4), ("int8", 16 / 256)):
        limits = bundle.golden_limits(precision, {"y": metres})
        assert limits["max_abs_limit"] == pytest.approx(2000 * share)
    assert (
        bundle.golden_limits("float32", {"y": np.zeros((64, 2))})["max_abs_limit"]
        == bundle.OTHER_MACHINE_LIMITS["float32"]
    )


def test_a_file_of_the_user_beside_a_bundle_is_not_lost(place):
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    (place / "SHA256SUMS").write_text("0  manifest.json\n")
    (place / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"mine\.txt, which would be lost"):
        bundle.check_place(place)
    (place / "mine.txt").unlink()
    bundle.check_place(place)
