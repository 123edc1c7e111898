"""The programs of a bundle, run as a receiver runs them; those that cannot be run here are parsed."""

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
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
from edgeml.errors import IntegrityError
from edgeml.handover.facts import pixel_range
from edgeml.handover.literals import LITERALS
from edgeml.runtimes import open_model
from edgeml.verbs.inspection import inspect

L = keras.layers
NASTY = ('"; DROP', "back\\slash", "new\nline", "$x ${y} \\(z) %s {{ a }}", "</script> ist größer \u2028 ??/")
SHAPE = (12, 12, 3)
MODELS = ("model.onnx", "model_int8.onnx", "model.tflite", "model_int8.tflite")
RELEASE = os.environ.get("ONNXRUNTIME_CPP")  # the folder of an unpacked release: include/ and lib/


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


def test_photos_are_turned_laid_on_white_and_cropped_as_in_training(made, tmp_path):
    from edgeml.data.image_folder import _decode

    wide = np.random.default_rng(2).integers(0, 256, (40, 64, 4), np.uint8)
    wide = np.kron(wide[::8, ::8], np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wide).save(tmp_path / "turned.png", exif=exif)
    label, probability = due(made, "model.onnx", _decode(tmp_path / "turned.png", 12, 3))
    said_label, said = run(made / "run_onnx.py", tmp_path / "turned.png").stdout.rsplit("  ", 1)
    assert said_label == label
    assert float(said) == pytest.approx(probability, abs=2e-2)  # training may shrink in two steps


@pytest.mark.parametrize(
    ("content", "found"),
    [("1,2,3\n", "3 numbers; 432 per sample are due"), ("a,b\n", "could not convert"), (None, "wrong.csv not found")],
)
def test_what_cannot_be_read_is_one_line(made, tmp_path, content, found):
    path = tmp_path / "wrong.csv"
    if content is not None:
        path.write_text(content)
    done = run(made / "run_onnx.py", path)
    assert done.returncode == 1
    assert found in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Give an image or a .csv of raw numbers, 432 per sample." in done.stderr
    assert "not a file of this program" in run(made / "run_onnx.py", path, "model.tflite").stderr
    assert "python run_onnx.py INPUT [MODEL]" in run(made / "run_onnx.py").stderr


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
    np.savetxt(tmp_path / "rows.csv", samples[:3].reshape(30, 2), delimiter=",")
    (found,) = open_model(made / "model_int8.tflite").predict({"window": samples[:3]}).values()
    said = [f"{'abc'[row.argmax()]}  {row.max():.4f}" for row in found]
    for program in ("run_tflite.py", "run_onnx.py"):
        assert run(made / program, tmp_path / "rows.csv").stdout.splitlines() == said
    assert not (made / "web").exists()  # a page is for images
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


def test_columns_are_divided_as_the_manifest_says(tmp_path):
    handover.write(tmp_path, manifest_of())
    namespace = {"__file__": str(tmp_path / "run_onnx.py")}
    exec(compile((tmp_path / "run_onnx.py").read_text(), "run_onnx.py", "exec"), namespace)
    (tmp_path / "row.csv").write_text("8,8,8\n")
    assert namespace["read"](tmp_path / "row.csv").tolist() == [[8, 4, 2]]
    assert {path.name for path in tmp_path.iterdir()} >= {"run_onnx.py", "cpp", "android", "ios"}


def test_files_of_several_inputs_or_open_sizes_have_no_programs(tmp_path):
    one = manifest_of()["input"]
    for inputs in ([one, one], [{**one, "shape": [None, 3]}], [{**one, "dtype": "string"}]):
        assert handover.write(tmp_path, manifest_of(inputs=inputs)) == []
    assert not list(tmp_path.iterdir())


def test_without_classes_the_numbers_are_printed(tmp_path):
    outputs = [{"name": "aux", "shape": [7]}, {"name": "price", "shape": [1]}]
    task = {"kind": "other", "labels": [], "output": "price"}
    handover.write(tmp_path, manifest_of(task=task, outputs=outputs))
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
    said = done.stdout.decode()
    for row in rows:
        label, probability = due(made, "model.onnx", row)
        assert said.startswith(f"{label}  ")
        number, _, said = said.removeprefix(f"{label}  ").partition("\n")
        assert float(number) == pytest.approx(probability, rel=1e-4)
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
        ["cmake", "-S", made / "cpp", "-B", folder, f"-DONNXRUNTIME={release}"],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "classify"


# ---- the page

BROWSER = """
import puppeteer from "puppeteer-core";
const [url, executablePath, picture, photo, shot] = process.argv.slice(2);
const args = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
const browser = await puppeteer.launch({ executablePath, args });
const page = await browser.newPage();
const said = { problems: [], elsewhere: [] };
page.on("pageerror", (error) => said.problems.push(error.message));
const isOurs = (asked) => /^(blob|data):/.test(asked) || asked.startsWith(new URL(url).origin);
page.on("request", (request) => { if (!isOurs(request.url())) said.elsewhere.push(request.url()); });
await page.goto(url);
await page.waitForFunction(() => document.body.dataset.ready === "yes");
const answer = () => page.evaluate(() => {
  const [label, probability, latency] = ["label", "probability", "latency"].map((id) => document.getElementById(id));
  const values = JSON.parse(label.dataset.values);
  return { label: label.value, probability: probability.value, latency: latency.value, values };
});
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
await fresh();
await page.click("#camera");
await there();
said.filmed = await answer();
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
    command = ["node", "look.mjs", url, browser, path, photo, shot]
    done = subprocess.run(command, cwd=folder / "web", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["problems"], said["elsewhere"]) == ([], [])  # nothing is fetched from anywhere else
    (due_of,) = open_model(made / "model.onnx").predict({"pixels": pixels[None].astype("float32")}).values()
    np.testing.assert_allclose(said["chosen"]["values"], due_of[0], atol=1e-6)
    assert said["chosen"]["label"] == NASTY[due_of[0].argmax()]
    assert said["chosen"]["probability"] == f"{100 * due_of[0].max():.2f} %"
    assert said["chosen"]["latency"].endswith(" ms")
    assert said["dropped"]["label"] == said["chosen"]["label"]  # each pixel twenty times as large
    np.testing.assert_allclose(said["dropped"]["values"], due_of[0], atol=0.05)
    assert len(said["filmed"]["values"]) == len(NASTY)
    assert shot.stat().st_size > 1_000


def test_the_page_fetches_nothing_from_elsewhere(made):
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
    passed = len([row for row in document["parity"] if row["passed"] and row["gate"] != "none"])
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
