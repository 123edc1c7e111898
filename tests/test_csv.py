"""CSV files: rows as vectors, windows over rows, what belongs together, and mistakes named by file and line."""

from pathlib import Path

import numpy as np
import pytest

from edgeml import data, splits
from edgeml.data import _columns, _windows
from edgeml.errors import DataError, RecipeError
from edgeml.recipe import Augment, Data, Splits

ROWS = [f"{n},{-n / 10},{'ab'[n % 2]}" for n in range(20)]


def written(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def loaded(path: Path, **options):
    return data.load(Data(source="csv", path=str(path), **options))


# --- tables


def test_a_row_is_a_vector_and_the_last_column_its_class(tmp_path):
    found = loaded(written(tmp_path / "t.csv", "n,m,kind", *ROWS))
    assert (found.x.shape, found.x.dtype, found.labels) == ((20, 2), np.float32, ("a", "b"))
    np.testing.assert_allclose(found.x[3], [3, -0.3])
    assert found.y.tolist() == [0, 1] * 10
    assert found.value_range == (np.float32(-1.9), 19.0)
    assert found.ids[0] == "t.csv:2"


def test_columns_are_picked_by_name_and_those_without_numbers_left_out(tmp_path):
    rows = [f"{'xy'[n % 2]};{n};id{n};{n * 2}" for n in range(20)]
    path = written(tmp_path / "t.csv", "kind;n;id;m", *rows)
    found = loaded(path, label="kind")
    np.testing.assert_array_equal(found.x[5], [5, 10])
    assert "columns without numbers are left out: id" in found.notes
    np.testing.assert_array_equal(loaded(path, label="kind", columns=("m",)).x[5], [10])


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    rows = [f"{n},{[9, 10, 2][n % 3]}" for n in range(30)]
    assert loaded(written(tmp_path / "t.csv", "n,rings", *rows)).labels == ("2", "9", "10")


def test_a_byte_order_mark_blank_lines_and_quotes_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        '\ufeffn,"the, kind"\r\n'.encode() + b"\r\n".join(f'{n},"{"ab"[n % 2]}"\r\n'.encode() for n in range(20))
    )
    found = loaded(path)
    assert (len(found.x), found.labels) == (20, ("a", "b"))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("mark", [".", ","])
def test_separators_and_decimal_marks(separator, mark, tmp_path):
    rows = [separator.join([f"{n / 8}".replace(".", mark), f"{-n}", "1e3", f"{'ab'[n % 2]},c"]) for n in range(20)]
    found = loaded(written(tmp_path / "t.csv", separator.join(["n", "m", "e", "kind"]), *rows))
    np.testing.assert_array_equal(found.x, [[n / 8, -n, 1000] for n in range(20)])
    assert found.labels == ("a,c", "b,c")
    assert [note for note in found.notes if "comma" in note] == (
        ["t.csv: numbers have decimal commas, '3,14' is read as 3.14"] if mark == "," else []
    )


def test_each_file_of_a_folder_has_its_own_decimal_mark(tmp_path):
    for name, mark in (("run", ","), ("sit", "."), ("walk", ",")):
        rows = [f"{n / 4}".replace(".", mark) + f"|{n}" for n in range(20)]
        written(tmp_path / "d" / f"{name}.csv", "x|y", *rows)
    found = loaded(tmp_path / "d")
    np.testing.assert_array_equal(found.x[:, 0].reshape(3, 20), [np.arange(20) / 4] * 3)
    assert "run.csv and 1 files more: numbers have decimal commas, '3,14' is read as 3.14" in found.notes


BROKEN = {
    "both marks": (["n;kind", "1,5;a", "2.5;b"], "t.csv:3: column 'n' is '2.5'; a decimal comma, as in other numbers"),
    "thousands": (["n;kind", "1,5;a", "1.234,5;b"], "t.csv:3: column 'n' is '1.234,5'; a finite number is needed"),
    "thousands without a point": (["n;kind", "1,5;a", "1,234,567;b"], "t.csv:3: column 'n' is '1,234,567'; a finite"),
    "quoted comma": (["n,kind", "1,a", '"3,14",b'], "is '3,14'; a decimal point, where commas part the columns, is"),
    "no header, commas": (["1,5;2,5;a", "3,5;4;b"], "t.csv:1: the first row holds numbers (1,5, 2,5, a); a header"),
    "missing": (None, "No such file or directory; a CSV file is needed. Check data.path."),
    "empty": ([], "t.csv: holds 0 rows; a header and at least one row are needed"),
    "only a header": (["n,kind"], "t.csv: holds 1 rows; a header and at least one row"),
    "no header": (["1,2", "3,4"], "t.csv:1: the first row holds numbers (1, 2); a header"),
    "same names": (["n,n", "3,4"], "t.csv:1: two columns are called 'n'"),
    "uneven": (["n,kind", "1,a", "2,b,c"], "t.csv:3: 3 values; 2, as in the header, are needed"),
    "no number": (["n,kind", "1,a", "", "two,b"], "t.csv:4: column 'n' is 'two'; a finite number is needed"),
    "nan": (["n,kind", "1,a", "NaN,b"], "t.csv:3: column 'n' is 'NaN'; a finite number is needed"),
    "nothing": (["n,kind", "1,a", ",b"], "t.csv:3: column 'n' is ''; a finite number"),
    "no class": (["n,kind", "1,a", "2,"], "t.csv:3: column 'kind' is empty; every row needs a class"),
    "no numbers": (["n,kind", "x,a", "y,b"], "no column of numbers beside the label"),
    "one class": (["n,kind", *(f"{n},a" for n in range(20))], "only class 'a' has samples; at least two classes"),
    "open quote": (["n,kind", '1,"a'], "t.csv:2: unexpected end of data"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_is_named_by_file_and_line(case, tmp_path):
    rows, message = BROKEN[case]
    if rows is not None:
        written(tmp_path / "t.csv", *rows) if rows else (tmp_path / "t.csv").touch()
    with pytest.raises(DataError) as error:
        loaded(tmp_path / "t.csv")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_encoding_is_named_with_its_line(tmp_path):
    (tmp_path / "t.csv").write_bytes("n,kind\n1,a\n2,süß\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv:3: not UTF-8 text"):
        loaded(tmp_path / "t.csv")


@pytest.mark.parametrize(("key", "value"), [("label", "kin"), ("columns", ("n", "kin"))])
def test_a_missing_column_is_answered_with_the_nearest(key, value, tmp_path):
    path = written(tmp_path / "t.csv", "n,m,kind", *ROWS)
    with pytest.raises(
        RecipeError, match=rf"data\.{key}: no column 'kin' in .*; n, m, kind are. Did you mean 'kind'\?"
    ):
        loaded(path, **{key: value})


def test_a_table_says_what_it_was_understood_as(tmp_path):
    found = loaded(
        written(tmp_path / "t.csv", "kind,n,m", *(f"{'ab'[n % 2]},{n},{n * 2}" for n in range(20))), label="kind"
    )
    assert (found.columns, found.class_from) == (("n", "m"), "column kind")
    for name in ("walk", "run"):
        written(tmp_path / "d" / f"{name}.csv", "x,y", *(f"{n},{n / 2}" for n in range(20)))
    found = loaded(tmp_path / "d")
    assert (found.columns, found.class_from) == (("x", "y"), "names of files")


# --- windows


def recording(path: Path, labels: str, channels: int = 2) -> Path:
    """One row per letter of ``labels``; channel c of row n is n + c / 10."""
    header = ",".join([*"xyz"[:channels], "kind"])
    rows = [",".join([*(str(n + c / 10) for c in range(channels)), label]) for n, label in enumerate(labels)]
    return written(path, header, *rows)


def test_windows_are_cut_from_a_recording_and_those_of_two_labels_left_out(tmp_path):
    found = loaded(recording(tmp_path / "r.csv", ("a" * 20 + "b" * 21) * 4), window=4)
    assert found.x.shape == (35, 4, 2)
    np.testing.assert_allclose(found.x[1, :, 0], [4, 5, 6, 7])
    assert [note for note in found.notes if "label" in note] == ["6 windows hold more than one label and are left out"]
    assert found.ids[:2] == ("r.csv:2", "r.csv:6")
    assert found.groups == (), "they share nothing"


def test_a_folder_names_its_classes_by_file_and_may_bring_a_test_split(tmp_path):
    for part, rows in (("train", 64), ("test", 9)):
        for shift, name in enumerate(("walk", "run")):
            written(tmp_path / "d" / part / f"{name}.csv", "x,y", *(f"{n + shift / 2},{n}" for n in range(rows)))
    written(tmp_path / "d" / "walk.csv", "x,y", "1,2")
    found = loaded(tmp_path / "d", window=4, splits=Splits(test="given"))
    assert found.labels == ("run", "walk")
    assert (found.x.shape, found.test[0].shape) == ((32, 4, 2), (4, 4, 2))
    assert "1 files beside train/ and test/ are left out" in found.notes


def test_overlapping_windows_never_part(tmp_path):
    path = recording(tmp_path / "r.csv", ("a" * 97 + "b" * 103) * 3)
    config = Data(source="csv", path=str(path), window=8, stride=3)
    found = data.load(config)
    assert any("reach over the end of a block" in note for note in found.notes)
    partition = splits.split(found, config.splits, seed=1)
    rows = {
        name: {int(value) for value in found.x[part.indices][:, :, 0].ravel()} for name, part in partition.parts.items()
    }
    names = list(rows)
    assert all(not rows[a] & rows[b] for a in names for b in names if a < b), "a row lies in two splits"
    assert all(rows.values())
    assert not [note for note in partition.notes if "copies" in note]


def test_windows_cover_a_block_and_no_more():
    cut = _windows.cut(np.arange(80.0)[:, None], ["a"] * 80, window=8, stride=4)
    assert cut.x.shape[1:] == (8, 1)
    assert cut.starts == (0, 4, 8, 12, 16, 20, 24, 32, 36, 40, 44, 48, 52, 56, 64, 68, 72)
    assert cut.blocks == (0,) * 7 + (1,) * 7 + (2,) * 3
    assert (cut.two_labels, cut.over_blocks, cut.rows_left) == (0, 2, 0)


def test_what_does_not_fit_a_window_is_refused(tmp_path):
    path = recording(tmp_path / "r.csv", "ab" * 20)
    with pytest.raises(DataError, match=r"r\.csv: 40 rows; a window of 41 needs as many\. Lower data\.window"):
        loaded(path, window=41)
    with pytest.raises(DataError, match="no window of 4 rows has one label"):
        loaded(path, window=4)
    with pytest.raises(RecipeError, match=r"data\.stride: without data\.window"):
        loaded(path, stride=4)
    recording(tmp_path / "d" / "one.csv", "a" * 40)
    recording(tmp_path / "d" / "two.csv", "b" * 40, channels=3)
    with pytest.raises(DataError, match=r"two\.csv:1: columns x, y, z, kind; x, y, kind, as in one\.csv"):
        loaded(tmp_path / "d", window=4, label="kind")


def test_the_magic_wand_is_read(shared_data):
    found = loaded(shared_data / "data" / "magic_wand_imu" / "data", window=119)
    assert (found.x.shape, found.test[0].shape, len(found.labels)) == ((100, 119, 6), (25, 119, 6), 5)
    assert any("columns differ in range" in note for note in found.notes)


# --- kinds, and columns of different range


def test_kinds_are_told_by_shape_or_by_the_recipe(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(20, 6, 3)), y=np.arange(20) % 2)
    config = {"source": "npz", "path": str(tmp_path / "d.npz")}
    assert data.load(Data(**config)).x.shape == (20, 6, 3, 1)
    assert data.load(Data(**config, kind="windows")).x.shape == (20, 6, 3)
    with pytest.raises(RecipeError, match=r"data\.kind: vectors, but npz .* gives images of shape \(6, 3, 1\)"):
        data.load(Data(**config, kind="vectors"))


def test_what_is_for_images_is_refused_for_others_and_the_other_way_round(tmp_path):
    path = written(tmp_path / "t.csv", "n,m,kind", *ROWS)
    with pytest.raises(RecipeError, match=r"data\.augment: is for images; csv .* gives vectors of shape \(2,\)"):
        loaded(path, augment=Augment(shift=0.1))
    with pytest.raises(RecipeError, match=r"data\.common_scale: is for columns of vectors and windows"):
        data.load(Data(source="digits", common_scale=True))


def test_columns_on_a_common_scale_lose_nothing(tmp_path):
    rows = [f"{n * 100.7},{n / 1000},0,{'ab'[n % 2]}" for n in range(20)]
    path = written(tmp_path / "t.csv", "wide,narrow,zero,kind", *rows)
    raw, scaled = loaded(path), loaded(path, common_scale=True)
    floats = data.load(Data(source="csv", path=str(path)), ("float32",))
    assert not [note for note in floats.notes if "range" in note], "no int8 file, no loss"
    assert [note for note in raw.notes if "columns differ in range: the 1. reaches 1913, the 2. 0.019" in note]
    assert not [note for note in scaled.notes if "range" in note]
    assert scaled.divided_by == (2048, 1 / 32, 1)
    np.testing.assert_array_equal(scaled.x * np.float32(scaled.divided_by), raw.x)
    assert np.abs(scaled.x).max() <= 1
    assert scaled.value_range == (-1, 1)
    assert _columns.divisors(np.array([[4.0, -0.5, 5.0]])) == (4, 0.5, 8)


def test_a_first_row_of_numbers_and_a_class_is_no_header(tmp_path):
    path = tmp_path / "iris.csv"
    path.write_text("5.1,3.5,setosa\n" + "4.9,3.0,setosa\n6.0,2.2,versicolor\n" * 9, "utf-8")
    with pytest.raises(DataError, match=r"iris\.csv:1: the first row holds numbers"):
        data.load(Data(source="csv", path=str(path)))


def test_the_class_is_no_column_to_learn_from(tmp_path):
    path = tmp_path / "leak.csv"
    path.write_text("a,class\n" + "1,0\n2,1\n" * 9, "utf-8")
    with pytest.raises(RecipeError, match=r"data\.columns: names 'class', the column of the class"):
        data.load(Data(source="csv", path=str(path), columns=("a", "class")))


def test_a_class_in_another_column_than_the_last_is_asked_for(tmp_path):
    path = tmp_path / "first.csv"
    path.write_text("class,a,b\n" + "".join(f"x,1,{n / 7}\ny,2,{n / 3 + 0.1}\n" for n in range(9)), "utf-8")
    with pytest.raises(DataError, match=r"classes \(.*in 18 samples; few are needed\. Name the column of the class"):
        data.load(Data(source="csv", path=str(path)))
    assert data.load(Data(source="csv", path=str(path), label="class")).meaning == "columns a, b as in the data file"
