"""What the comparison with KerasTuner makes of its figures."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[1] / "tools" / "against_kerastuner"


@pytest.fixture(scope="module")
def tool():
    loader = SourceFileLoader("against_kerastuner", str(PLACE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.dont_write_bytecode", True)
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(module)
    return module


def figures(tool, ours, theirs):
    """Made-up searches of one oracle: values of edgeml and of all others, one per seed."""
    keys = ("completed", "wasted", "wasted_seconds", "proposal_seconds", "best", "hypervolume")
    rows = {name: ours if name == "edgeml" else theirs for name in tool.CONTESTANTS}
    return {("random", name): [dict.fromkeys(keys, value) for value in values] for name, values in rows.items()}


@pytest.mark.parametrize(
    ("ours", "theirs", "equal_time", "words", "code"),
    [
        ([8, 8], [4, 4], False, "PASS", 0),
        ([7, 8], [4, 4], False, "FAIL", 1),
        ([0.80, 0.82], [0.81, 0.83], True, "PASS", 0),  # 0.01 below; the error is 0.014
        ([0.80, 0.80], [0.81, 0.81], True, "FAIL", 1),
        ([0.80], [0.90], True, "OPEN", 0),
        ([7], [4], False, "FAIL", 1),
    ],
)
def test_a_bar_that_is_not_met_has_a_line_and_the_exit_code(tool, capsys, ours, theirs, equal_time, words, code):
    sentences = list(tool.judged(figures(tool, ours, theirs), len(ours), equal_time))
    assert tool.verdict(sentences) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [words] * (3 if equal_time else 2)
    assert all(("one seed has no standard error" in line) == (words == "OPEN") for line in lines)


def test_one_seed_has_no_standard_error(tool):
    assert not [line for line in tool.table(figures(tool, [0.8], [0.9])) if "nan" in line or "±" in line]
    assert "80.00% ± 0.00%" in "".join(tool.table(figures(tool, [0.8, 0.8], [0.9, 0.9])))
