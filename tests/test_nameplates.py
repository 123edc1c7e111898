"""What files say of themselves, read back by other means, in every runtime; and where it stays off."""

import io
import json
import zipfile

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
from flatbuffers import number_types as numbers
from networks import export, pictures, separable

from edgeml import bundle, descriptions, exporting, nameplates
from edgeml.devices import vela
from edgeml.folding import fold_batch_norm
from edgeml.onnx_operators import onnx_operators
from edgeml.precisions import OWN, PRECISIONS
from edgeml.runtimes import open_model, tflm
from edgeml.targets import _tflite_metadata
from edgeml.tflite_operators import tflite_operators

LABELS = ["red", 'quo"te', "new\nline", "größer", "5"]
SAMPLES = {"pixels": pictures(16)}
RECIPE = "0123456789abcdef" * 4
NPU = "ethos-u55-128"
MOST_BYTES = {".tflite": 850, ".onnx": 450}  # that these labels may add to a file


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of every precision as they were written, and with their nameplates; what was to be said."""
    folded = fold_batch_norm(separable()).model
    bare, folder = (tmp_path_factory.mktemp(name) for name in ("bare", "named"))
    artifacts = exporting.write(folded, folder, [*OWN], [*PRECISIONS], SAMPLES, lambda event: None)
    for one in artifacts:
        (bare / one.path.name).write_bytes(one.path.read_bytes())
    about = {**descriptions.of_model(folded, SAMPLES, "NHWC", LABELS), "recipe_sha256": RECIPE}
    return bare, nameplates.put_on(artifacts, about), about


def test_every_file_opens_and_computes_as_before(made):
    bare, artifacts, _ = made
    assert len(artifacts) == 8
    for one in artifacts:
        assert one.has_nameplate
        before, after = (open_model(path) for path in (bare / one.path.name, one.path))
        assert after.signature == before.signature == one.signature
        for name, values in before.predict(SAMPLES).items():
            np.testing.assert_array_equal(after.predict(SAMPLES)[name], values)
        added = one.path.stat().st_size - (bare / one.path.name).stat().st_size
        assert 0 < added < MOST_BYTES[one.path.suffix]
        read = tflite_operators if one.path.suffix == ".tflite" else onnx_operators
        assert read(one.path) == read(bare / one.path.name)


def test_microcontrollers_and_npus_take_it(made):
    bare, artifacts, _ = made
    (named,) = [one.path for one in artifacts if one.path.name == "model_int8.tflite"]
    pytest.importorskip("tflite_micro", reason="pip install 'edgeml-export[micro]'")
    before, after = (tflm.open_model(path).predict(SAMPLES) for path in (bare / named.name, named))
    np.testing.assert_array_equal(after["scores"], before["scores"])
    pytest.importorskip("ethosu", reason="pip install 'edgeml-export[ethos]'")
    assert vela.compiled(named, NPU) == vela.compiled(bare / named.name, NPU)


def test_an_onnx_file_says_what_it_is(made):
    _, artifacts, about = made
    for one in artifacts:
        if one.path.suffix == ".onnx":
            said = onnxruntime.InferenceSession(str(one.path)).get_modelmeta().custom_metadata_map
            assert json.loads(said["edgeml.labels"]) == LABELS
            assert json.loads(said["edgeml.input"]).items() <= about["input"].items()
            assert said["edgeml.recipe_sha256"] == RECIPE
            assert json.loads(said["edgeml.versions"])["tensorflow"] == about["versions"]["tensorflow"]
            assert ("edgeml.quantization" in said) is (one.precision == "int8")
            onnx.checker.check_model(onnx.load(one.path), full_check=True)


def test_a_tflite_file_says_what_it_is(made):
    _, artifacts, _ = made
    for one in artifacts:
        if one.path.suffix == ".tflite":
            with zipfile.ZipFile(one.path) as archive:
                assert archive.read("labels.txt").decode() == 'red\nquo"te\nnew line\ngrößer\n5\n'
                assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED  # readers map the file
            said = metadata_of(one.path.read_bytes())
            assert said["description"].endswith(f"; recipe sha256 {RECIPE}")
            assert said["description"].startswith("edgeml ")
            assert said["input"] == {"name": "pixels", "kind": 2, "colour": 1, "mean": 0.0, "std": 255.0}
            assert said["output"] == {"name": "scores", "file": "labels.txt", "type": 2}


def metadata_of(content):
    """Read the metadata by the numbers of its schema's slots (metadata_schema.fbs, 1.5.0)."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = [one for one in model.metadata if one.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    root = Table(data, int.from_bytes(data[:4], "little"))
    (graph,) = root.tables(3)
    (source,), (result,) = graph.tables(2), graph.tables(3)
    (unit,), (file,) = source.tables(4), result.tables(6)
    content = source.table(3)
    return {
        "description": root.text(1),
        "input": {"name": source.text(0), "kind": content.byte(0), "colour": content.table(1).byte(0),
                  "mean": unit.table(1).real(0), "std": unit.table(1).real(1)},
        "output": {"name": result.text(0), "file": file.text(0), "type": file.byte(2)},
    }  # fmt: skip


class Table:
    """A table of a flatbuffer, read by slot."""

    def __init__(self, data, place):
        self.data, self.inner = data, flatbuffers.table.Table(data, place)

    def _offset(self, slot):
        found = self.inner.Offset(4 + 2 * slot)
        assert found, slot
        return found + self.inner.Pos

    def text(self, slot):
        return self.inner.String(self._offset(slot)).decode()

    def byte(self, slot):
        return self.inner.Get(numbers.Uint8Flags, self._offset(slot))

    def table(self, slot):
        return Table(self.data, self.inner.Indirect(self._offset(slot)))

    def tables(self, slot):
        offset = self.inner.Offset(4 + 2 * slot)
        start = self.inner.Vector(offset)
        return [Table(self.data, self.inner.Indirect(start + 4 * i)) for i in range(self.inner.VectorLen(offset))]

    def real(self, slot):
        offset = self.inner.Offset(4 + 2 * slot)
        assert self.inner.VectorLen(offset) == 1
        return self.inner.Get(numbers.Float32Flags, self.inner.Vector(offset))


def test_equal_words_are_equal_bytes(made, tmp_path):
    bare, artifacts, about = made
    for one in artifacts:
        path = tmp_path / one.path.name
        path.write_bytes((bare / path.name).read_bytes())
    again = [exporting.replace(one, path=tmp_path / one.path.name) for one in artifacts]
    nameplates.put_on(again, {**about, "created": "another day", "machine": {}})
    for one in artifacts:
        assert (tmp_path / one.path.name).read_bytes() == one.path.read_bytes()


def test_a_file_that_it_would_carry_over_the_budget_goes_without(made, tmp_path):
    bare, artifacts, about = made
    (small,) = [one for one in artifacts if one.path.name == "model_int8.tflite"]
    sizes = [(bare / small.path.name).stat().st_size, small.path.stat().st_size]
    for most, is_on in ((sizes[1], True), (sizes[1] - 1, False), (sizes[0], False)):
        path = tmp_path / small.path.name
        path.write_bytes((bare / path.name).read_bytes())
        (found,) = nameplates.put_on([exporting.replace(small, path=path)], about, most)
        assert found.has_nameplate is is_on
        assert path.stat().st_size == sizes[is_on]


def test_files_of_other_targets_stay_as_they_are(tmp_path):
    path = tmp_path / "model_int8_vela.tflite"
    path.write_bytes(b"as it was")
    one = exporting.Artifact(path, "ethos_u", "int8", None, None)
    assert nameplates.put_on([one], {}) == [one]
    assert path.read_bytes() == b"as it was"


def test_a_model_without_classes_has_no_archive(made):
    content = (made[0] / "model.tflite").read_bytes()
    note = _tflite_metadata.TensorNote("x")
    assert not zipfile.is_zipfile(io.BytesIO(_tflite_metadata.with_metadata(content, "d", [note], [note])))


def test_labels_are_one_line_each():
    assert nameplates.label_lines(["a\nb", "c", " d\t e "]) == "a b\nc\nd e\n"


def test_the_manifest_says_which_files_have_it(tmp_path):

    made = export(separable(), tmp_path / "mine", to="onnx", samples=SAMPLES["pixels"], labels=LABELS)
    (entry,) = bundle.models(bundle.read(made))
    assert entry["nameplate"] is True
    assert (made / "labels.txt").read_text() == 'red\nquo"te\nnew line\ngrößer\n5\n'
