"""The ledger on real files: what is torn is dropped, what is changed is refused."""

import json
from fractions import Fraction

import pytest

from edgeml.errors import IntegrityError
from edgeml.ledger import Ledger
from edgeml.records import Cost


@pytest.fixture
def path(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("run_started", recipe_sha256="abc")
    ledger.append("trial_started", "t0000", hyperparameters={"learning_rate": 0.1 + 0.2}, cost=Cost(1, 2))
    ledger.append("trial_ended", "t0000", status="completed", metrics={"val_loss": float("nan")}, error="ä\n\u2028")
    return ledger.path


def test_entries_come_back_as_they_were_written(path):
    entries = Ledger(path).entries
    assert [(e["seq"], e["event"], e["trial"]) for e in entries] == [
        (0, "run_started", None), (1, "trial_started", "t0000"), (2, "trial_ended", "t0000"),
    ]  # fmt: skip
    assert entries[1]["hyperparameters"] == {"learning_rate": 0.1 + 0.2}
    assert entries[1]["cost"]["macs"] == 2
    assert entries[2]["error"] == "ä\n\u2028"


def test_each_line_is_one_json_object_with_its_checksum(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 3
    assert all(isinstance(json.loads(line)["crc32"], int) for line in lines)


def test_what_is_in_memory_is_what_a_reader_gets(path):
    ledger = Ledger(path)
    ledger.append("epoch", "t0001", share=Fraction(1, 3), metrics={"a": (1, 2)})
    assert ledger.entries[-1] == Ledger(path).entries[-1]
    assert Ledger(path).of("epoch")[0]["share"] == "1/3"


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_torn_last_line_is_dropped_and_written_over(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    ledger = Ledger(path)
    assert [e["event"] for e in ledger.entries] == ["run_started", "trial_started"]
    ledger.append("epoch", "t0000", epoch=0)
    assert [e["seq"] for e in Ledger(path).entries] == [0, 1, 2]


def test_any_changed_byte_is_refused_with_its_line(path):
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for at in range(first, content.index(b"\n", first)):
        changed = bytearray(content)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(IntegrityError, match=r"ledger\.jsonl:2: the line does not match its checksum"):
            Ledger(path)


def test_a_missing_line_is_refused(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(IntegrityError, match=r":2: .*checksum or its place"):
        Ledger(path)
