"""Tests of the recipe that is made for a folder or a file in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgeml import data, quick_recipe, recipe_file
from edgeml.errors import DataError, RecipeError, UsageError
from edgeml.kinds import kind_of
from edgeml.recipe import Augment, Recipe
from edgeml.records import Limit
from edgeml.search import rehearsal
from edgeml.verbs import make

SHAPES = {  # of x: what its samples are taken for
    (40, 13): "vectors", (40, 128, 3): "windows", (40, 20, 1): "windows", (40, 49, 10): "windows",
    (40, 12, 12): "images", (40, 64, 32): "images", (40, 12, 12, 3): "images",
}  # fmt: skip
SPACES = {
    "images": ("ds_cnn",), "windows": ("ds_cnn_1d", "wide_deep", "dense_selu"), "vectors": ("wide_deep", "dense_selu"),
}  # fmt: skip


def made(path: Path, quick: bool = False, **limits: float) -> Recipe:
    asked = {"max_params": None, "max_macs": None, "max_latency_ms": None, **limits}
    return quick_recipe.for_data(path, **asked, quick=quick)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "My photos (2)").mkdir()
    return tmp_path / "My photos (2)"


def test_a_folder_is_read_as_photos(folder: Path) -> None:
    recipe = made(folder)
    assert (recipe.data.source, recipe.data.path, recipe.name) == ("image_folder", str(folder), "My_photos_2")
    assert (recipe.data.image_size, recipe.data.augment.flip) == (96, "horizontal")
    assert (recipe.budget.params, recipe.budget.macs, recipe.budget.latency) == (30_000, None, ())


def test_an_array_file_is_neither_resized_nor_mirrored(tmp_path: Path) -> None:
    recipe = made(tmp_path / "digits.npz")
    assert (recipe.data.source, recipe.name) == ("npz", "digits")
    assert (recipe.data.image_size, recipe.data.augment.flip) == (None, "none")


def arrays(path: Path, shape: tuple[int, ...], key: str = "") -> Path:
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    np.savez(path, **{f"x{key}": x, f"y{key}": np.arange(len(x)) % 2})
    return path


@pytest.mark.parametrize("key", ["", "_train"])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_array_file_suits_its_samples(tmp_path: Path, shape: tuple[int, ...], key: str) -> None:
    recipe = make.recipe_of(arrays(tmp_path / "d.npz", shape, key), [], quick=True)
    assert recipe.search.space == SPACES[SHAPES[shape]]
    found = data.load(recipe.data)
    assert kind_of(found.x.shape[1:]).name == SHAPES[shape]
    is_image = SHAPES[shape] == "images"
    assert (recipe.data.common_scale, recipe.data.augment == Augment()) == (not is_image, not is_image)


def test_what_samples_are_may_be_said(tmp_path: Path) -> None:
    path = arrays(tmp_path / "d.npz", (40, 12, 12))
    assert make.recipe_of(path, ["data.kind=windows"], quick=True).search.space == SPACES["windows"]
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    assert make.recipe_of(tmp_path / "d.csv", ["data.window=8"], quick=True).search.space == SPACES["windows"]


@pytest.mark.parametrize("shape", [(48, 5), (48, 24, 3)])
def test_an_array_file_is_searched_in_one_line(tmp_path: Path, shape: tuple[int, ...]) -> None:
    recipe = make.recipe_of(arrays(tmp_path / "d.npz", shape), [], quick=True)
    told = rehearsal.rehearse(recipe, lambda event: None)
    assert all(row["searched"] for row in told["shares"])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half of one"])
def test_a_damaged_array_file_is_reported_by_whoever_loads_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    recipe = make.recipe_of(tmp_path / "d.npz", [], quick=True)
    with pytest.raises(DataError, match=r"^npz .*d\.npz: not readable"):
        data.load(recipe.data)


def test_a_table_is_searched_by_spaces_for_vectors_on_a_common_scale(tmp_path: Path) -> None:
    recipe = made(tmp_path / "iris.csv", quick=True)
    assert (recipe.data.source, recipe.data.common_scale, recipe.data.augment) == ("csv", True, Augment())
    assert recipe.search.space == ("wide_deep", "dense_selu")
    (tmp_path / "iris.csv").write_text("a,b\n1,2\n")
    assert make.recipe_of(tmp_path / "iris.csv", [], quick=True).data == recipe.data


def test_a_limit_that_is_given_is_the_only_one(folder: Path) -> None:
    assert made(folder, max_macs=10).budget.params is None
    budget = made(folder, max_latency_ms=0.5).budget
    assert (budget.params, budget.latency) == (None, (Limit("host", "onnxruntime", "float32", 0.5),))


def test_quick_is_smaller_in_every_way(folder: Path) -> None:
    slow, quick = made(folder), made(folder, quick=True)
    assert quick.data.image_size < slow.data.image_size  # type: ignore[operator]
    assert quick.search.max_trials < slow.search.max_trials
    assert quick.search.time_limit_minutes + quick.train.time_limit_minutes < 5  # type: ignore[operator]
    assert quick.budget.macs == quick_recipe.QUICK_MACS
    assert made(folder, quick=True, max_macs=10**9).budget.macs == 10**9
    assert set(quick.search.member_share) == {Fraction(1), Fraction(1, 2)}
    assert (quick.search.oracle, slow.search.oracle) == ("random", "hyperband")


def test_a_test_folder_beside_train_is_the_test_split(folder: Path) -> None:
    (folder / "test").mkdir()
    assert made(folder).data.splits.test == 0.16
    (folder / "train").mkdir()
    assert made(folder).data.splits.test == "given"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", ["photos", "a.b c", "äöü", "---", "x" * 200, "_leading", "2024-05"])
def test_every_name_gives_a_recipe_that_reads_back(tmp_path: Path, name: str, quick: bool) -> None:
    (tmp_path / name).mkdir()
    recipe = made(tmp_path / name, quick)
    assert recipe_file.parse(recipe_file.dump(recipe), "made") == recipe


def test_neither_folder_nor_array_file(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"photo\.png: not a recipe .*an \.npz or \.csv file\. Check the path\.$"):
        made(tmp_path / "photo.png")


def test_settings_override_what_is_made(folder: Path) -> None:
    recipe = make.recipe_of(folder, ["search.seed=5", "name=mine"], max_params=500, quick=True)
    assert (recipe.search.seed, recipe.name, recipe.budget.params) == (5, "mine", 500)
    with pytest.raises(RecipeError, match="did you mean 'seed'"):
        make.recipe_of(folder, ["search.sed=5"])


def test_limits_override_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("schema_version: 1\nname: r\ndata: {source: digits}\nbudget: {params: 7}\n")
    recipe = make.recipe_of(path, [], max_params=5, max_macs=6, max_latency_ms=0.25)
    assert (recipe.budget.params, recipe.budget.macs) == (5, 6)
    assert recipe.budget.latency == (Limit("host", "onnxruntime", "float32", 0.25),)
    with pytest.raises(UsageError, match=r"^--quick: is for a folder, an \.npz or a \.csv file"):
        make.recipe_of(path, [], quick=True)


def test_a_run_is_not_taken_for_data(folder: Path) -> None:
    (folder / "recipe.resolved.yaml").write_text("")
    with pytest.raises(UsageError, match="is a run, not data"):
        make.recipe_of(folder, [])


def test_a_missing_array_file_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.npz: no such file"):
        make.recipe_of(tmp_path / "gone.npz", [])
