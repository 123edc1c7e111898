"""The programs of a bundle, run as a receiver runs them; those that cannot be run here are parsed."""

import ast
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import export, pictures, randomise, separable
from PIL import Image
from test_inspection import KEYS

from edgeml import bundle, handover
from edgeml.data import _table
from edgeml.errors import IntegrityError
from edgeml.handover.facts import pixel_range
from edgeml.handover.literals import LITERALS
from edgeml.runtimes import open_model
from edgeml.verbs.inspection import inspect

L = keras.layers
NASTY = ('"; DROP', "back\\slash", "new\nline", "$x ${y} \\(z) %s {{ a }}", "</script> ist größer \u2028 ??/")
SHAPE = (12, 12, 3)
MODELS = ("model.onnx", "model_int8.onnx", "model.tflite", "model_int8.tflite")
STRICT = "-Wall -Wextra -Werror"
RELEASE = os.environ.get("ONNXRUNTIME_CPP")  # the folder of an unpacked release: include/ and lib/


@pytest.fixture(autouse=True)
def pillow(monkeypatch):
    """Programs lift its limit of pixels for their process: it is put back."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of images of 12 x 12 colours, 0 to 255, whose classes have the worst of names."""
    x = np.round(255 * pictures(80, SHAPE)).astype("float32")
    place = tmp_path_factory.mktemp("handover") / "images"
    return export(separable(), place, precision="float32,int8", samples=x, calibration=x, labels=NASTY,
                         scale=1 / 255)  # fmt: skip


@pytest.fixture(scope="module")
def picture(made):
    """A picture of the input's own size as a file, and its pixels."""
    pixels = np.random.default_rng(5).integers(0, 256, SHAPE, np.uint8)
    path = made.parent / "picture.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-I", program, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def program_of(made, model):
    return made / f"run_{Path(model).suffix[1:]}.py"


def due(made, model, pixels):
    """What a file says, opened by the package itself: label and probability."""
    (found,) = open_model(made / model).predict({"pixels": pixels[None].astype("float32")}).values()
    return NASTY[found[0].argmax()], float(found.max())


@pytest.mark.parametrize("model", MODELS)
def test_an_image_becomes_the_label_that_the_runtime_says(made, picture, model):
    path, pixels = picture
    done = run(program_of(made, model), path, model)
    assert done.returncode == 0, done.stderr
    label, probability = due(made, model, pixels)
    assert done.stdout == f"{label}  {probability:.4f}\n"


def test_each_row_of_numbers_becomes_a_label(made, picture, tmp_path):
    pixels = picture[1]
    rows = np.stack([pixels, pixels[::-1], 255 - pixels]).reshape(3, -1)
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", fmt="%d")
    for model in ("model_int8.onnx", "model.tflite"):
        done = run(program_of(made, model), tmp_path / "rows.csv", model)
        said = [due(made, model, row.reshape(SHAPE)) for row in rows]
        assert done.stdout == "".join(f"{label}  {probability:.4f}\n" for label, probability in said)


def functions(program):
    """What a program defines, without running it."""
    namespace = {"__file__": str(program), "__name__": program.stem}
    exec(compile(program.read_text(), program, "exec"), namespace)
    return namespace


def blocks(*shape, dtype=np.uint8):
    """Noise in blocks of eight pixels."""
    noise = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape, dtype)
    return np.kron(noise, np.ones((8, 8, *[1] * (len(shape) - 2)), dtype))


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """The programs of a bundle of grey images, 9 x 12 high and wide, channels first, 0 to 16."""
    folder = tmp_path_factory.mktemp("grey")
    image = {"name": "image", "shape": [1, 9, 12], "layout": "NCHW", "range": [0, 16]}
    handover.write(folder, manifest_of(input=image))
    return folder


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("turned.png", blocks(5, 8, 4)), ("large.jpg", blocks(40, 64, 3)), ("grey16.png", blocks(5, 8, dtype=np.uint16)),
     ("small.png", blocks(1, 1, 3)), ("grey.bmp", blocks(8, 5)), ("palette.gif", blocks(5, 8, 3)),
     ("clear.png", blocks(5, 8, 2)), ("still.webp", blocks(8, 5, 4))],
)  # fmt: skip
def test_photos_are_read_as_in_training(made, tmp_path, name, pixels):
    from edgeml.data.image_folder import _decode

    exif = Image.Exif()
    exif[0x0112] = 6 if name == "turned.png" else 1
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    (read,) = functions(made / "run_onnx.py")["read"](tmp_path / name)
    np.testing.assert_array_equal(read, _decode(tmp_path / name, 12, 3))


def test_grey_of_16_bits_keeps_its_upper_8(grey, tmp_path):
    Image.fromarray(blocks(9, 12, dtype=np.uint16)).save(tmp_path / "grey16.png")
    (read,) = functions(grey / "run_onnx.py")["read"](tmp_path / "grey16.png")
    Image.fromarray((blocks(9, 12, dtype=np.uint16) >> 8).astype(np.uint8)).save(tmp_path / "grey8.png")
    (due,) = functions(grey / "run_onnx.py")["read"](tmp_path / "grey8.png")
    assert read.shape == (1, 9, 12)
    assert 14 < read.max() <= 16
    np.testing.assert_array_equal(read, due)


def headed(width, height):
    """A PNG that says to be of a size."""
    about = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + about + struct.pack(">I", zlib.crc32(about))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def encoded(form, pixels):
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, form)
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [(headed(20_000, 10_000), "20000 x 10000 pixels; 50 megapixels are the most"),
     (headed(10_000, 8_000), "10000 x 8000 pixels"),
     (encoded("TIFF", np.ones((12, 12), np.float32)), "cannot identify image file"),
     (encoded("JPEG", blocks(30, 30, 3))[:2000], "truncated"),
     (encoded("PNG", blocks(30, 30, 3))[:800], "truncated"),
     (b"text", "cannot identify image file")],
)  # fmt: skip
def test_images_that_training_refuses_are_refused(made, tmp_path, content, found):
    (tmp_path / "photo.png").write_bytes(content)
    done = run(made / "run_onnx.py", tmp_path / "photo.png")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert found in done.stderr
    assert "Give a jpg, png, bmp, gif or webp image, or a .csv of raw numbers, 432 per sample" in done.stderr


@pytest.mark.parametrize(
    ("content", "found"),
    [("1,2,3\n", "line 1: 3 numbers; 432, a sample, are due"), ("a,b\n", "no numbers in it"), ("", "no numbers in it"),
     (None, "No such file")],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(made, tmp_path, content, found):
    path = tmp_path / "wrong.csv"
    if content is not None:
        path.write_text(content)
    done = run(made / "run_onnx.py", path)
    assert done.returncode == 1
    assert found in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert ".csv of raw numbers, 432 per sample and no class." in done.stderr
    assert ".." not in done.stderr
    assert "not a file of this program" in run(made / "run_onnx.py", path, "model.tflite").stderr
    assert "python run_onnx.py INPUT [MODEL]" in run(made / "run_onnx.py").stderr


@pytest.mark.parametrize("model", ["model.onnx", "model.tflite"])
def test_a_model_file_that_is_missing_or_spoiled_is_one_line(made, picture, tmp_path, model):
    program = Path(shutil.copy(program_of(made, model), tmp_path))
    for content in (None, b"spoiled"):
        if content:
            (tmp_path / model).write_bytes(content)
        done = run(program, picture[0])
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"{tmp_path / model}: ")
        assert "python verify.py" in done.stderr


def test_help_is_given_and_missing_packages_are_named(made):
    for name, package in (("run_onnx.py", "onnxruntime"), ("run_tflite.py", "ai-edge-litert")):
        for word in ("-h", "--help"):
            asked = run(made / name, word)
            assert (asked.returncode, asked.stderr) == (0, "")
            assert f"python {name} INPUT [MODEL]" in asked.stdout
            assert "12 rows of 36" in asked.stdout
        bare = subprocess.run([sys.executable, "-I", "-S", made / name, "x.png"], capture_output=True, text=True)
        assert bare.returncode == 1
        assert bare.stderr == f"No module named 'numpy'. Do: pip install {package}\n"


def test_a_reader_that_has_read_enough_ends_it_in_silence(made, tmp_path):
    np.savetxt(tmp_path / "rows.csv", np.zeros((3, 432)), delimiter=",", fmt="%d")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-I", made / "run_onnx.py", tmp_path / "rows.csv"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_all_programs_are_in_manifest_sums_and_card(made):
    manifest = bundle.read(made)
    named = [name for one in manifest["programs"] for name in one["files"]]
    assert named == [name for program in handover.PROGRAMS for name in program.files]
    listed = {entry["path"]: entry["role"] for entry in manifest["files"]}
    assert {listed[name] for name in named} == {"program"}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=made, capture_output=True, text=True)
    assert done.returncode == 0
    assert {f"{name}: OK" for name in named} <= set(done.stdout.splitlines())
    card = (made / "README.md").read_text()
    assert card.count("not run by us") == 4
    assert "Kotlin and Swift do not turn a picture" in card
    assert "| `android/OnnxClassifier.kt` | Kotlin, onnxruntime for Android | not run by us |" in card
    assert "| `cpp/main.cc` | C++, onnxruntime | run in our tests |" in card


@pytest.fixture(scope="module")
def signals(tmp_path_factory):
    """A window of 10 steps of two channels, three classes; NHWC is nowhere."""
    inputs = keras.Input((10, 2), name="window")
    x = L.Dense(3, activation="softmax")(L.Flatten()(L.Conv1D(4, 3, activation="relu")(inputs)))
    x = randomise(keras.Model(inputs, x))
    samples = np.random.default_rng(0).normal(0, 1, (40, 10, 2)).astype("float32")
    place = tmp_path_factory.mktemp("handover") / "windows"
    return export(x, place, precision="int8", samples=samples, calibration=samples, labels=["a", "b", "c"]), samples


def test_windows_are_read_from_rows(signals, tmp_path):
    made, samples = signals
    np.savetxt(tmp_path / "rows.csv", samples[:3].reshape(3, 20), delimiter=",")
    np.savetxt(tmp_path / "window.csv", samples[1], delimiter=",")
    np.savetxt(tmp_path / "windows.csv", samples[:3].reshape(30, 2), delimiter=",")
    (found,) = open_model(made / "model_int8.tflite").predict({"window": samples[:3]}).values()
    said = [f"{'abc'[row.argmax()]}  {row.max():.4f}" for row in found]
    for program in ("run_tflite.py", "run_onnx.py"):
        assert run(made / program, tmp_path / "rows.csv").stdout.splitlines() == said
        assert run(made / program, tmp_path / "window.csv").stdout.splitlines() == said[1:2]
    refused = run(made / "run_onnx.py", tmp_path / "windows.csv").stderr
    assert "line 1: 2 numbers; 20, a sample, are due" in refused
    assert not (made / "web").exists()  # a page is for images
    assert "do not turn" not in (made / "README.md").read_text()
    assert "PIL" not in (made / "run_onnx.py").read_text()


def manifest_of(**changes):
    """A manifest as of a run on a table of three columns, two classes."""
    return {
        "task": {"kind": "classification", "labels": ["no", "yes"]},
        "input": {"name": "vector", "shape": [3], "dtype": "float32", "layout": "NF", "range": [0, 1], "meaning": "x",
                  "divided_by": [1.0, 2.0, 4.0]},
        "output": {"name": "probabilities", "shape": [2]},
        "files": [{"path": "model.onnx", "role": "model", "target": "onnx", "batch": None}],
        **changes,
    }  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What a program for a table of three columns defines."""
    folder = tmp_path_factory.mktemp("table")
    handover.write(folder, manifest_of())
    assert {path.name for path in folder.iterdir()} >= {"run_onnx.py", "cpp", "android", "ios"}
    return functions(folder / "run_onnx.py")


@pytest.mark.parametrize(
    "text",
    ["8,8,8\n2,4,-6e0", "\ufeff8,8,8\r\n\r\n2,4,-6\r\n", "a,b,c\n8,8,8\n2,4,-6\n", "8;8,0;8\n2;4;-6,0\n",
     "a;b, in m;c\n8;8;8\n2;4;-6\n", "a\tb\tc\n8\t8\t8\n2\t4\t-6", '"a","b"|c\n8|"8"|8.0\n2|4|-6'],
)  # fmt: skip
def test_tables_are_read_and_divided_as_in_training(table, tmp_path, text):
    (tmp_path / "rows.csv").write_text(text, newline="")
    assert table["read"](tmp_path / "rows.csv").tolist() == [[8, 4, 2], [2, 2, -1.5]]
    if text[0] == "a":  # training wants a header
        found = _table.read(tmp_path / "rows.csv")
        assert found.numbers(found.header).tolist() == [[8, 8, 8], [2, 4, -6]]


@pytest.mark.parametrize(
    ("text", "found"),
    [("a,b,c\n1,2,nan", "line 2, column 3: not a finite number"), ("1,2,3\n\n1e999,2,3", "line 3, column 1: not a"),
     ("nan,nan,nan\n1,2,3", "line 1, column 1: not a"), ("a,2,3\n1,2,3", "line 1, column 1: not a"),
     ("1,2,3\n4,5,6,7", "line 2: 4 numbers; 3, a sample, are due"), ("1\n2\n3", "line 1: 1 numbers; 3"),
     ("1;2,5;3\n1.5;2;3", "line 2, column 1: not a"), ("1,,3", "line 1, column 2: not a"), (" \n", "no numbers in it"),
     ("a;b;c\n", "no numbers in it"), ("1,2,3\n4,5,6,x", "line 2, column 4: not a"), ("1 2\n4 5", "line 2, column 1")],
)  # fmt: skip
def test_tables_that_are_none_are_refused_by_line_and_column(table, tmp_path, text, found):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(found)):
        table["read"](tmp_path / "rows.csv")


def test_files_of_several_inputs_or_outputs_or_open_sizes_have_no_programs(tmp_path):
    one, classes = manifest_of()["input"], manifest_of()["output"]
    for outputs in ([classes, {"name": "box", "shape": [4]}], [{**classes, "dtype": "int64"}]):
        assert handover.write(tmp_path, manifest_of(outputs=outputs)) == []
    for inputs in ([one, one], [{**one, "shape": [None, 3]}], [{**one, "dtype": "string"}]):
        assert handover.write(tmp_path, manifest_of(inputs=inputs)) == []
    assert not list(tmp_path.iterdir())


def test_without_classes_the_numbers_are_printed(tmp_path):
    task = {"kind": "other", "labels": [], "output": "price"}
    handover.write(tmp_path, manifest_of(task=task, outputs=[{"name": "price", "shape": [1]}]))
    text = (tmp_path / "run_onnx.py").read_text()
    assert "print(*y.ravel(), sep=',')" in text.replace('","', "','")
    assert "'price'" in text
    assert "LABELS" not in text


@pytest.mark.parametrize(
    ("said", "due"),
    [([0.0, 16.0], (0, 16)), ([3.0, 251.0], (3, 251))],
)
def test_the_range_of_a_data_set_is_that_of_pixels(said, due):
    assert pixel_range({"range": said, "meaning": "raw pixel values"}) == due


@pytest.mark.parametrize(
    ("said", "due"),
    [([0.02, 0.97], (0, 1)), ([-0.9, 0.8], (-1, 1)), ([3.0, 251.0], (0, 255)), ([-120.0, 99.0], (-128, 127)),
     ([0, 1000.0], (0, 1000))],
)  # fmt: skip
def test_the_range_of_exported_samples_is_widened_to_a_usual_one(said, due):
    assert pixel_range({"range": said, "meaning": "raw values, as the model takes them"}) == due


# ---- texts of others in other languages


@pytest.mark.parametrize("text", [*NASTY, "\x00\x1f\x7f", "\ud800", "日本 🎈", "'''\"\"\"", "*/ // #", "\\u0022"])
def test_a_text_is_one_literal_in_every_language(text, tmp_path):
    sound = text.encode("utf-8", "replace").decode()
    assert ast.literal_eval(LITERALS["python"](text)) == sound
    script = LITERALS["javascript"](text)
    assert json.loads(script) == sound
    assert "<" not in script
    cpp = LITERALS["cpp"](text)
    assert ast.literal_eval(f"b{cpp}").decode() == sound
    assert "??" not in cpp
    for language in ("kotlin", "swift"):
        literal = LITERALS[language](text)
        assert literal.isprintable()
        assert read_back(language, literal) == sound


def read_back(language, literal):
    """Read a literal by the few rules of the language that ours use."""
    inner, units, i = literal[1:-1], [], 0
    while i < len(inner):
        assert inner[i] != '"'
        assert language != "kotlin" or inner[i] != "$"
        if inner[i] != "\\":
            units.append(inner[i].encode("utf-16-be"))
            i += 1
        elif inner[i + 1] != "u":
            assert inner[i + 1] in '"\\$' if language == "kotlin" else inner[i + 1] in '"\\'
            units.append(inner[i + 1].encode("utf-16-be"))
            i += 2
        elif language == "kotlin":
            units.append(bytes.fromhex(inner[i + 2 : i + 6]))
            i += 6
        else:
            end = inner.index("}", i)
            units.append(chr(int(inner[i + 3 : end], 16)).encode("utf-16-be"))
            i = end + 1
    return b"".join(units).decode("utf-16-be")


@pytest.mark.parametrize(("language", "suffix", "files"), [("kotlin", "kt", 2), ("swift", "swift", 2)])
def test_programs_that_are_not_run_are_parsed(made, signals, language, suffix, files):
    parser = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip(f"tree_sitter_{language}", reason=f"pip install tree-sitter-{language}")
    read = parser.Parser(parser.Language(grammar.language()))
    for folder in (made, signals[0]):
        programs = sorted(folder.rglob(f"*.{suffix}"))
        assert len(programs) == files
        for path in programs:
            tree = read.parse(path.read_bytes())
            assert not tree.root_node.has_error, (path.name, str(first_error(tree.root_node)))
    assert read.parse(b"fun f( {").root_node.has_error


def first_error(node):
    if node.type == "ERROR" or node.is_missing:
        return node.start_point, node.text[:80]
    return next((found for child in node.children if (found := first_error(child))), None)


# ---- C++


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A release of onnxruntime for C++, put together of two npm packages: the library, and the headers."""
    if RELEASE:
        return Path(RELEASE)
    missing = [name for name in ("npm", "cmake", "c++") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed, and ONNXRUNTIME_CPP names no release of onnxruntime")
    folder = tmp_path_factory.mktemp("onnxruntime")
    headers = "package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64_x86_64-simulator/onnxruntime.framework/Headers"
    library = "package/bin/napi-v6/linux/x64/libonnxruntime.so.1"
    for name, inside, place in (
        ("onnxruntime-node@1.30.0", library, "lib"),
        ("com.github.asus4.onnxruntime@0.4.9", headers, "include"),
    ):
        packed = subprocess.run(["npm", "pack", name], cwd=folder, capture_output=True, text=True)
        if packed.returncode:
            pytest.skip(f"npm has no {name} here; ONNXRUNTIME_CPP=FOLDER names a release of onnxruntime")
        (folder / place).mkdir()
        archive = packed.stdout.split()[-1]
        depth = inside.count("/") + (place == "include")
        subprocess.run(
            ["tar", "xzf", archive, f"--strip-components={depth}", "-C", place, inside], cwd=folder, check=True
        )
    return folder


@pytest.mark.slow
def test_the_cpp_program_says_what_onnxruntime_says(made, signals, picture, release, tmp_path):
    rows = np.stack([picture[1], 255 - picture[1]])
    np.savetxt(tmp_path / "rows.csv", rows.reshape(2, -1), delimiter=",", fmt="%d")
    binary = built(made, release, tmp_path / "images")
    text = (tmp_path / "rows.csv").read_bytes()
    done = subprocess.run([binary, made / "model.onnx"], input=text, capture_output=True)
    assert done.returncode == 0, done.stderr
    said = said_by_default = done.stdout.decode()
    for row in rows:
        label, probability = due(made, "model.onnx", row)
        assert said.startswith(f"{label}  ")
        number, _, said = said.removeprefix(f"{label}  ").partition("\n")
        assert float(number) == pytest.approx(probability, rel=1e-4)
    done = subprocess.run([binary, made / "model_int8.onnx"], input=text, capture_output=True)
    assert done.returncode == 0, done.stderr
    quantized = due(made, "model_int8.onnx", rows[0])
    assert done.stdout.decode().startswith(f"{quantized[0]}  {quantized[1]:.6g}\n")
    beside = subprocess.run([binary], input=text, capture_output=True, cwd=made / "cpp")
    assert (beside.returncode, beside.stdout.decode()) == (0, said_by_default)
    empty = subprocess.run([binary, made / "model.onnx"], input=b" \n", capture_output=True, text=False)
    assert (empty.returncode, empty.stdout) == (1, b"")
    assert empty.stderr.decode().endswith("model.onnx: no numbers came in; 432 per sample are due\n")
    other = subprocess.run([binary, "other.onnx"], input=text, capture_output=True)
    assert (other.returncode, other.stderr.count(b"\n")) == (1, 1)
    assert b"model.onnx, model_int8.onnx are" in other.stderr
    made, samples = signals  # int8: uint8 goes in
    binary = built(made, release, tmp_path / "windows")
    text = "\n".join(" ".join(map(repr, row.ravel().tolist())) for row in samples[:3])
    done = subprocess.run([binary, made / "model_int8.onnx"], input=text, capture_output=True, text=True)
    (found,) = open_model(made / "model_int8.onnx").predict({"window": samples[:3]}).values()
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["abc"[row.argmax()], f"{row.max():.6g}"] for row in found
    ]
    cut = subprocess.run([binary, made / "model_int8.onnx"], input="1, 2, 3", capture_output=True, text=True)
    assert (cut.returncode, cut.stderr.count("\n")) == (1, 1)
    assert "not 20 of them" in cut.stderr


def built(made, release, folder):
    for command in (
        [
            "cmake",
            "-S",
            made / "cpp",
            "-B",
            folder,
            f"-DONNXRUNTIME={release}",
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
        ],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "classify"


# ---- the page

BROWSER = """
import puppeteer from "puppeteer-core";
const [url, executablePath, picture, photo, shot, ...spoiled] = process.argv.slice(2);
const args = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
const browser = await puppeteer.launch({ executablePath, args });
const page = await browser.newPage();
const said = { problems: [], elsewhere: [], missing: [], spoiled: [] };
page.on("pageerror", (error) => said.problems.push(error.message));
const isOurs = (asked) => /^(blob|data):/.test(asked) || asked.startsWith(new URL(url).origin);
page.on("response", (given) => { if (given.status() >= 400) said.missing.push(given.url()); });
page.on("request", (request) => { if (!isOurs(request.url())) said.elsewhere.push(request.url()); });
await page.goto(url);
await page.waitForFunction(() => document.body.dataset.ready === "yes");
const answer = () => page.evaluate(() => {
  const [label, probability, latency] = ["label", "probability", "latency"].map((id) => document.getElementById(id));
  const values = JSON.parse(label.dataset.values ?? "null");
  const { data } = document.getElementById("seen").getContext("2d").getImageData(0, 0, 1, 1);
  const films = document.getElementById("video").srcObject !== null;
  const others = { alpha: data[3], camera: document.getElementById("camera").textContent, films };
  return { label: label.value, probability: probability.value, latency: latency.value, values, ...others };
});
const pause = () => new Promise((done) => setTimeout(done, 300));
const fresh = () => page.evaluate(() => document.getElementById("label").removeAttribute("data-values"));
const there = () => page.waitForFunction(() => document.getElementById("label").dataset.values);
await (await page.$("#file")).uploadFile(picture);
await there();
said.chosen = await answer();
await fresh();
await page.evaluate(async (encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
}, (await import("node:fs")).readFileSync(photo).toString("base64"));
await there();
said.dropped = await answer();
await page.screenshot({ path: shot });
for (const path of spoiled) {
  await (await page.$("#file")).uploadFile(path);
  await page.waitForFunction(() => !document.getElementById("label").dataset.values);
  said.spoiled.push(await answer());
  await (await page.$("#file")).uploadFile(picture);
  await there();
}
await fresh();
await page.click("#camera");
await there();
said.filmed = await answer();
const [chooser] = await Promise.all([page.waitForFileChooser(), page.click("#file")]);
await chooser.accept([picture]); // the same as before
await pause();
said.chosenWhileFilming = await answer();
await fresh();
await page.click("#camera");
await there();
await page.click("#camera");
await fresh();
await pause();
said.stopped = await answer();
console.log(JSON.stringify(said));
await browser.close();
"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    missing = [name for name in ("npm", "node") if shutil.which(name) is None]
    if missing or found is None:
        pytest.skip(f"{', '.join([*missing, *(['chromium'] if found is None else [])])} is not installed")
    return found


@pytest.fixture
def served(made, browser, tmp_path):
    """A copy of the bundle, its page installed as package.json says, behind a server of this machine."""
    folder = Path(shutil.copytree(made, tmp_path / "served"))
    for install in (["npm", "install"], ["npm", "install", "--no-save", "puppeteer-core"]):
        done = subprocess.run(install, cwd=folder / "web", capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{' '.join(install)}: {done.stderr.strip().splitlines()[-1]}")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/web/"
        server.shutdown()


@pytest.mark.slow
def test_the_page_says_what_onnxruntime_says(made, served, browser, picture, tmp_path):
    folder, url = served
    path, pixels = picture
    photo = tmp_path / "photo.png"
    Image.fromarray(np.kron(pixels, np.ones((20, 20, 1), np.uint8))).save(photo)
    (folder / "web" / "look.mjs").write_text(BROWSER)
    shot = Path(os.environ.get("EDGEML_SCREENSHOT", tmp_path / "page.png"))
    spoiled = [tmp_path / "text.png", tmp_path / "cut.jpg", tmp_path / "photo.tiff"]
    spoiled[0].write_text("text")
    spoiled[1].write_bytes(encoded("JPEG", blocks(30, 30, 3))[:2000])
    spoiled[2].write_bytes(encoded("TIFF", blocks(2, 2, 3)))
    command = ["node", "look.mjs", url, browser, path, photo, shot, *spoiled]
    done = subprocess.run(command, cwd=folder / "web", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["problems"], said["elsewhere"], said["missing"]) == ([], [], [])  # nothing is fetched from elsewhere
    (due_of,) = open_model(made / "model.onnx").predict({"pixels": pixels[None].astype("float32")}).values()
    np.testing.assert_allclose(said["chosen"]["values"], due_of[0], atol=1e-6)
    assert said["chosen"]["label"] == NASTY[due_of[0].argmax()]
    assert said["chosen"]["probability"] == f"{100 * due_of[0].max():.2f} %"
    assert said["chosen"]["latency"].endswith(" ms")
    assert said["dropped"]["label"] == said["chosen"]["label"]  # each pixel twenty times as large
    np.testing.assert_allclose(said["dropped"]["values"], due_of[0], atol=0.05)
    for wrong, one in zip(spoiled, said["spoiled"], strict=True):
        assert one["label"].startswith(f"{wrong.name}: not an image that can be read.")
        assert (one["values"], one["probability"], one["latency"], one["alpha"]) == (None, "", "", 0)
    assert len(said["filmed"]["values"]) == len(NASTY)
    assert (said["filmed"]["camera"], said["filmed"]["films"]) == ("Stop the camera", True)
    after, stopped = said["chosenWhileFilming"], said["stopped"]
    np.testing.assert_array_equal(after["values"], said["chosen"]["values"])
    assert (after["camera"], after["films"]) == ("Use the camera", False)
    assert (stopped["values"], stopped["camera"], stopped["films"]) == (None, "Use the camera", False)
    assert shot.stat().st_size > 1_000


def test_the_page_fetches_nothing_from_elsewhere(made):
    assert '<link rel="icon" href="data:,">' in (made / "web" / "index.html").read_text()
    for path in (made / "web").iterdir():
        assert "http" not in path.read_text().replace("http-equiv", "").replace("http.server", "").replace(
            "http://localhost:8000/web/", ""
        )


# ---- what a receiver reads


def test_inspect_says_what_a_bundle_is_on_one_screen(made):
    text, document = inspect(made)
    assert document.keys() >= KEYS
    json.dumps(document)
    assert document["params"] == sum(layer["params"] for layer in document["layers"]) > 0
    assert len(document["files"]) == document["unchanged"] - 1  # the manifest is in the sums alone
    lines = text.splitlines()
    assert len(lines) <= 24
    assert lines[0].startswith('images: tells 5 classes apart: "; DROP, back\\slash, new line, ')
    assert lines[1] == "in     pixels: 12 × 12 × 3 NHWC, raw values, as the model takes them, 0 to 255"
    for name in MODELS:
        (row,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{(made / name).stat().st_size:,}" in row
        assert " ms, " in row
    assert "sha256sum -c SHA256SUMS" in text
    assert "run_onnx.py, run_tflite.py, cpp/main.cc, web/index.html" in lines[-1]
    passed = len([row for row in document["parity"] if row["passed"] and row["gate"] not in ("none", "tflm")])
    (proven,) = [
        line for line in lines if line.startswith(f"proven {passed} of {passed} comparisons with Keras passed; ")
    ]
    assert "; samples (80)" in proven
    assert "LiteRT 2" in proven
    assert "onnxruntime 1" in proven


def test_a_bundle_that_was_changed_is_not_inspected(made, tmp_path):
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    (copy / "web" / "classify.js").write_text("changed")
    with pytest.raises(IntegrityError, match=r"copy: not as it was made \(web/classify.js: changed\)"):
        inspect(copy)
