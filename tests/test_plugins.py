"""Names to modules: by file name, by entry point, and what is said where neither exists."""

import importlib
import pkgutil

import pytest
from foreign import SMALL_SPACE, install

import edgeml
from edgeml import plugins
from edgeml.errors import DataError, UsageError
from edgeml.runtimes import runtime_of
from edgeml.verbs import examine


@pytest.mark.parametrize("folder", plugins.FOLDERS)
def test_every_file_of_a_folder_is_a_plugin_and_imports(folder):
    package = importlib.import_module(f"edgeml.{folder}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}
    assert files
    assert files <= set(plugins.names(folder))
    for name in files:
        assert plugins.get(folder, name).__name__ == f"edgeml.{folder}.{name}"


def test_an_entry_point_adds_a_plugin(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "search_spaces", "tiny", SMALL_SPACE)
    assert "tiny" in plugins.names("search_spaces")
    assert plugins.get("search_spaces", "tiny").__name__ == "foreign_tiny"


def test_a_plugin_that_does_not_import_is_named_with_its_reason(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "targets", "broken", "import a_module_that_is_not_there")
    with pytest.raises(UsageError, match=r"broken \(foreign_broken\): ModuleNotFoundError: No module named 'a_module_"):
        plugins.get("targets", "broken")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("def deploy(source, folder, golden): ...", "its module has no PRECISIONS, NEEDS, check_installed, check"),
        ("PRECISIONS, NEEDS, SUFFIX, RUNTIME = (), {}, '.x', 'y'", "its module has no export"),
    ],
)
def test_whatever_is_wrong_with_a_plugin_is_told_and_skipped(monkeypatch, tmp_path, source, reason):
    install(monkeypatch, tmp_path, "targets", "broken", source)
    with pytest.raises(UsageError, match=reason):
        plugins.get("targets", "broken")
    assert any(reason in line for line in examine.doctor()["problems"])
    assert {"tflite", "onnx"} <= set(plugins.working("targets")[0])


def test_a_plugin_that_bears_the_name_of_ours_is_told(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "targets", "ort", "")
    assert plugins.get("targets", "ort").__name__ == "edgeml.targets.ort"
    assert plugins.working("targets")[1] == [
        "plug-in ort (foreign_ort): edgeml has a 'ort' of its own, which is used. Rename it."
    ]


def test_a_plugin_that_does_not_import_is_left_out_and_told_by_the_doctor(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path, "runtimes", "broken", "import a_module_that_is_not_there")
    found, lines = plugins.working("runtimes")
    assert {"litert", "onnxruntime"} <= set(found)
    assert [line.partition(" (")[0] for line in lines] == ["plug-in broken"]
    assert any("foreign_broken" in line for line in examine.doctor()["problems"])
    with pytest.raises(DataError, match=r"no runtime opens '.unknown' files"):
        runtime_of(tmp_path / "m.unknown")


@pytest.mark.parametrize("name", ["ds_cn", "_layers", "../costs", "__init__", ""])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(UsageError, match=r"search_spaces: no '.*'; there are .*separable_cnn") as caught:
        plugins.get("search_spaces", name)
    assert ("Did you mean 'ds_cnn'?" in str(caught.value)) == (name == "ds_cn")


def test_a_near_miss_is_suggested_and_nothing_else():
    assert plugins.did_you_mean("tfilte", ["onnx", "tflite"]) == " Did you mean 'tflite'?"
    assert plugins.did_you_mean("xyz", ["onnx", "tflite"]) == ""


def test_every_public_name_resolves():
    for name in edgeml.__all__:
        value = getattr(edgeml, name)
        assert callable(value) or name in ("callbacks", "layers", "trees", "tuners")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgeml.nothing
