"""Programs for devices, each made of a real file, built and run in its own tool, and held to that file."""

import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from foreign import install
from networks import pictures, randomise, separable

from edgeml import bundle, deploying, exporting, plugins, precisions, recipe, recipe_file
from edgeml.errors import DataError, ParityError, TargetError, UsageError
from edgeml.folding import fold_batch_norm
from edgeml.report.formats import integer
from edgeml.runtimes import open_model, tflm
from edgeml.targets import Golden, _c_program, _c_sources
from edgeml.targets._onnx_metadata import with_metadata
from edgeml.tflite_operators import builtin_operators, edges
from edgeml.verbs import examine, make

L = keras.layers
SAMPLES = {"pixels": pictures(64)}
GOLDEN = {"pixels": pictures(16, seed=5)}
SILENT = lambda event: None  # noqa: E731
TARGETS = [name for name in plugins.names("targets") if precisions.is_deployed(name)]
PROGRAMS = [(target, one) for target in TARGETS for one in plugins.get("targets", target).PRECISIONS]
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed (apt install build-essential)")
needs_micro = pytest.mark.skipif(not tflm.is_installed(), reason="the extra [micro] is not installed")


def written(model, folder, targets=("tflite", "onnx"), precision=("float32", "int8")):
    return exporting.write(model, folder, targets, precision, SAMPLES, SILENT)


def deployed(folder, target, artifacts, gates=None, golden=GOLDEN, samples=SAMPLES):
    asked = [one for one in PROGRAMS if one[0] == target]
    return deploying.deploy(folder, asked, artifacts, golden, samples, gates or recipe.Verify(), 10**5, SILENT)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bundle's folder with the files of one network."""
    folder = tmp_path_factory.mktemp("files")
    return folder, written(fold_batch_norm(separable("hard_swish")).model, folder)


def array(text, name, kind=int):
    """What a C array of a source holds."""
    body = re.search(rf"{name}(?:\[\w+\])* = \{{(.*?)\}};", text, re.DOTALL)[1]
    return np.array([kind(one, 0) if kind is int else kind(one) for one in re.findall(r"[-\w.]+", body)])


# ---- TensorFlow Lite Micro


@pytest.fixture(scope="module")
def micro(files):
    if not tflm.is_installed():
        pytest.skip("the extra [micro] is not installed")
    (one,) = deployed(files[0], "tflm", files[1])
    return files[0], one


def test_the_arrays_are_the_file(micro):
    folder, one = micro
    source = (folder / one.source).read_bytes()
    assert bytes(array((folder / "tflm/model_data.cc").read_text(), "model_data").astype("uint8")) == source
    header = (folder / "tflm/model_data.h").read_text()
    assert f"kModelBytes = {len(source)};" in header
    assert f"kTensorArenaBytes = {one.figures['ram_bytes']};" in header
    assert one.files.keys() == {f"tflm/{name}" for name in (
        "model_data.h", "model_data.cc", "micro_ops.h", "golden_data.h", "example_main.cc")}  # fmt: skip


def test_the_arena_is_the_smallest_that_works(micro):
    folder, one = micro
    needed, used = one.figures["ram_bytes"], one.figures["arena_used_bytes"]
    assert used <= needed < 1.5 * used
    assert tflm.open_model(folder / one.source, arena_bytes=needed).predict(GOLDEN)["scores"].shape == (16, 5)
    with pytest.raises(DataError, match="failed to allocate"):
        tflm.open_model(folder / one.source, arena_bytes=needed - 16)


def test_micro_ops_has_exactly_the_operators_of_the_file(micro):
    folder, one = micro
    text = (folder / "tflm/micro_ops.h").read_text()
    kinds = {kind for kind, _ in builtin_operators(folder / one.source)}
    calls = re.findall(r"resolver\.Add(\w+)\(\)", text)
    assert sorted(name.upper() for name in calls) == sorted(kind.replace("_", "") for kind in kinds)
    assert f"kModelOperators = {len(kinds)};" in text


def test_the_golden_rows_are_what_micro_says_of_them(micro):
    folder, one = micro
    text, opened = (folder / "tflm/golden_data.h").read_text(), tflm.open_model(folder / one.source)
    (fed,), (said,) = opened.signature.inputs, opened.signature.outputs
    rows = {"pixels": GOLDEN["pixels"][:8]}
    assert np.array_equal(array(text, "golden_input_0"), fed.quantized(rows["pixels"]).ravel())
    assert np.array_equal(array(text, "golden_output_0"), said.quantized(opened.predict(rows)["scores"]).ravel())


def test_agreement_with_the_reference_kernels_is_told_in_rows_and_steps(micro):
    _, one = micro
    assert (one.parity.gate, one.parity.samples, one.parity.passed) == ("tflm", 64, True)
    assert one.parity.error >= 0.9
    assert 0 <= one.most_steps <= 2


# Of TensorFlow Lite Micro's header, which no package ships: that an operator has no such method is a compiler's error.
METHODS = [
    "Abs",
    "Add",
    "AddN",
    "ArgMax",
    "ArgMin",
    "AveragePool2D",
    "BatchMatMul",
    "BroadcastTo",
    "Cast",
    "Ceil",
    "Concatenation",
    "Conv2D",
    "Cos",
    "CumSum",
    "DepthwiseConv2D",
    "Dequantize",
    "Div",
    "Elu",
    "Equal",
    "Exp",
    "ExpandDims",
    "Fill",
    "Floor",
    "FullyConnected",
    "Gather",
    "Greater",
    "GreaterEqual",
    "HardSwish",
    "L2Normalization",
    "LeakyRelu",
    "Less",
    "LessEqual",
    "Log",
    "LogSoftmax",
    "Logistic",
    "Maximum",
    "MaxPool2D",
    "Mean",
    "Minimum",
    "MirrorPad",
    "Mul",
    "Neg",
    "NotEqual",
    "Pack",
    "Pad",
    "PadV2",
    "Prelu",
    "Quantize",
    "ReduceMax",
    "Relu",
    "Relu6",
    "Reshape",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "Round",
    "Rsqrt",
    "Slice",
    "Softmax",
    "Split",
    "SplitV",
    "Sqrt",
    "Square",
    "SquaredDifference",
    "Squeeze",
    "StridedSlice",
    "Sub",
    "Sum",
    "Svdf",
    "Tanh",
    "Transpose",
    "TransposeConv",
    "Unpack",
    "ZerosLike",
]
HEADERS = {
    "micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
namespace tflite {
template <unsigned int N> class MicroMutableOpResolver {
  unsigned int count_ = 0;
  TfLiteStatus Add() { return count_++ < N ? kTfLiteOk : kTfLiteError; }
 public:
  unsigned int count() const { return count_; }
METHODS};
}""",
    "micro_interpreter.h": """
#pragma once
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include <cstddef>
#include <cstdint>
struct TfLiteTensor { union { char* raw; } data; };
namespace tflite {
struct Model;
struct MicroInterpreter {
  template <class R> MicroInterpreter(const Model*, const R&, uint8_t*, size_t);
  TfLiteStatus AllocateTensors(); TfLiteStatus Invoke();
  TfLiteTensor* input(size_t); TfLiteTensor* output(size_t); size_t arena_used_bytes();
};
}""",
    "micro_log.h": "#pragma once\nvoid MicroPrintf(const char* format, ...);",
    "system_setup.h": "#pragma once\nnamespace tflite { void InitializeTarget(); }",
    "schema_generated.h": "#pragma once\nnamespace tflite { struct Model; const Model* GetModel(const void*); }",
}


@needs_gxx
def test_sources_compile_without_a_warning_and_register_every_operator(micro, tmp_path):
    folder, one = micro
    for name, text in HEADERS.items():
        place = tmp_path / "tensorflow/lite" / ("schema" if name.startswith("schema") else "micro") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        methods = "".join(f"  TfLiteStatus Add{method}() {{ return Add(); }}\n" for method in METHODS)
        place.write_text(text.replace("METHODS", methods))
    (tmp_path / "counts.cc").write_text(
        '#include "micro_ops.h"\n#include "model_data.h"\n#include <cstdio>\n#include <cstdint>\n'
        "int main() { ModelOpResolver all; const bool ok = AddModelOperators(all) == kTfLiteOk;\n"
        '  std::printf("%d %u %d %d", ok, all.count(), kModelOperators,'
        " int(reinterpret_cast<uintptr_t>(model_data) % 16)); }\n"
    )
    flags = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{folder / 'tflm'}"]
    run = {"check": True, "capture_output": True, "text": True, "timeout": 60}
    subprocess.run([*flags, "-c", folder / "tflm/example_main.cc", "-o", tmp_path / "example.o"], **run)
    subprocess.run([*flags, tmp_path / "counts.cc", folder / "tflm/model_data.cc", "-o", tmp_path / "counts"], **run)
    said = subprocess.run([tmp_path / "counts"], **run).stdout
    count = one.figures["operators"]
    assert said == f"1 {count} {count} 0"


@needs_micro
def test_float_edges_and_batches_have_golden_rows_of_their_kind(tmp_path):
    artifacts = exporting.write(
        fold_batch_norm(separable()).model, tmp_path, ["tflite"], ["int8"], SAMPLES, SILENT, batch=2, io="float32"
    )
    (one,) = deployed(tmp_path, "tflm", artifacts)
    text = (tmp_path / "tflm/golden_data.h").read_text()
    assert "inline constexpr float golden_input_0[kGoldenRows][864]" in text
    assert {"QUANTIZE", "DEQUANTIZE"} <= set(re.findall(r"\w+", one.notes[0]))
    assert one.parity.passed


@needs_micro
def test_an_operator_that_micro_lacks_names_its_layer_and_what_to_change(tmp_path):
    inputs = keras.Input((12, 12, 3), name="pixels")
    x = L.GlobalAveragePooling2D()(L.Activation("gelu", name="bent")(L.Conv2D(4, 3, name="stem")(inputs)))
    model = randomise(keras.Model(inputs, L.Dense(3, name="scores")(x)))
    with pytest.raises(
        TargetError, match=r"^tflm int8: layer 'bent' \(GELU\): .*Choose another `activation`"
    ) as raised:
        exporting.write(model, tmp_path, ["tflm"], ["int8"], SAMPLES, SILENT)
    assert "\n" not in str(raised.value)


# ---- C


@pytest.fixture(scope="module")
def c_sources(files):
    try:
        plugins.get("targets", "c").check_installed()
    except UsageError as error:
        pytest.skip(str(error))
    (one,) = deployed(files[0], "c", files[1])
    return files[0] / "c", one


def ran(*command, place, code=0):
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_program_computes_golden(c_sources, tmp_path):
    folder, one = c_sources
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    said = ran("make", "check", place=tmp_path)
    count, off, share = re.search(r"(\d+) inferences, largest difference (\S+) \((\S+) of the range", said).groups()
    assert (int(count), float(off) > 0) == (16, True)
    assert float(share) <= 1e-6
    assert one.parity.passed
    assert (one.parity.samples, one.parity.what) == (64 + 16, "program = file")
    assert 0 < one.parity.range_error <= 1e-6


def test_what_a_class_is_called_is_no_code(c_sources, files, tmp_path):
    """The generator copies what a file says of itself into a comment of the C."""
    source = next(one for one in files[1] if (one.target, one.precision) == ("onnx", "float32"))
    evil = shutil.copy(source.path, tmp_path / "evil.onnx")
    labels = '*/ static void __attribute__((constructor)) f(void) { fputs("pwned", stderr); } /*'
    evil.write_bytes(with_metadata(source.path.read_bytes(), {"edgeml.labels": labels}))
    (tmp_path / "c").mkdir()
    outputs = open_model(evil).predict(GOLDEN)
    plugins.get("targets", "c").deploy(evil, tmp_path / "c", Golden(GOLDEN, outputs))
    assert "pwned" not in (tmp_path / "c/model.c").read_text()
    assert (tmp_path / "c/model.c").read_bytes() == (c_sources[0] / "model.c").read_bytes()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_main_is_strict_c99(tmp_path):
    reference = Path(__file__).parents[1] / "exported" / "digits_targets"
    code, signature = (reference / "c" / "model.c").read_text(), open_model(reference / "model.onnx").signature
    (tmp_path / "model.h").write_text(_c_sources.header(code))
    (tmp_path / "main.c").write_text(_c_sources.main(code, signature))
    ran("gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-c", "main.c", place=tmp_path)
    assert (reference / "c" / "main.c").read_text() == (tmp_path / "main.c").read_text()


def test_the_program_tells_another_result(c_sources, files, tmp_path):
    shutil.copytree(c_sources[0], tmp_path, dirs_exist_ok=True)
    rows = np.fromfile(tmp_path / "golden.bin", "<f4")
    rows[-1] += 0.01
    rows.tofile(tmp_path / "golden.bin")
    ran("make", place=tmp_path)
    assert "largest difference 0.01" in ran("./main", "golden.bin", place=tmp_path, code=1)
    assert _c_program.Program(tmp_path, files[1][0].signature, "", 1).ms() > 0  # timed all the same: judged elsewhere
    assert ran("./main", "missing.bin", place=tmp_path, code=2) == ""
    (tmp_path / "golden.bin").write_bytes(b"")
    assert ran("./main", "golden.bin", place=tmp_path, code=2).startswith("0 inferences")


def test_the_sources_need_nothing_but_libm(c_sources):
    folder, one = c_sources
    assert set(one.files) == {f"c/{name}" for name in ("model.c", "model.h", "main.c", "Makefile", "golden.bin")}
    text = (folder / "model.c").read_text()
    assert set(re.findall(r"#include <(.*)>", text)) <= {"stdint.h", "math.h", "float.h", "string.h"}
    assert not re.search(r"\b(malloc|calloc|free|fopen)\(", text)
    assert "void model(const float pixels[1][12][12][3], float scores[1][5]);" in (folder / "model.h").read_text()


def test_sizes_are_those_of_the_object(c_sources):
    figures = c_sources[1].figures
    weights = 4 * 1_000
    assert weights < figures["text_bytes"] == figures["flash_bytes"] < 4 * weights
    assert figures["input_output_bytes"] == 4 * (12 * 12 * 3 + 5)
    assert figures["ram_bytes"] == sum(figures[f"{one}_bytes"] for one in ("data", "stack", "input_output"))
    assert 4 * 12 * 12 * 3 < figures["stack_bytes"] < 40_000
    assert 0 < figures["ms"] < 5
    if shutil.which("arm-none-eabi-gcc"):
        assert 0 < figures["cortex_m4_text_bytes"] < figures["text_bytes"]
        assert figures["cortex_m4_stack_bytes"] == pytest.approx(figures["stack_bytes"], rel=0.1)


def test_sums_are_of_doubles_where_those_of_floats_are_too_far_off(c_sources, files, tmp_path, monkeypatch):
    assert "double acc" not in (c_sources[0] / "model.c").read_text()
    shutil.copytree(files[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("edgeml.targets.c.FLOAT_SUMS_SHARE", 0.0)
    (one,) = deployed(tmp_path, "c", files[1])
    assert "double acc" in (tmp_path / "c/model.c").read_text()
    assert one.notes[0].startswith("sums are of doubles")
    assert one.parity.range_error <= c_sources[1].parity.range_error
    ran("make", "check", place=tmp_path / "c")


def test_a_program_that_would_overrun_the_stack_is_refused(c_sources, files, tmp_path, monkeypatch):
    needed = c_sources[1].figures["stack_bytes"]
    shutil.copytree(files[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("edgeml.targets.c.resource.getrlimit", lambda kind: (needed, -1))
    with pytest.raises(TargetError, match=rf"^c float32: activations take {needed:,} bytes of stack; a program here"):
        deployed(tmp_path, "c", files[1])
    monkeypatch.setattr("edgeml.targets.c.resource.getrlimit", lambda kind: (-1, -1))
    assert deployed(tmp_path, "c", files[1])[0].parity.passed


@needs_gxx
def test_the_header_can_be_read_by_cpp(c_sources, tmp_path):
    (tmp_path / "a.cc").write_text('#include "model.h"\nint main() { return model == nullptr; }\n')
    ran("g++", "-Wall", "-Wno-address", "-c", "a.cc", f"-I{c_sources[0]}", place=tmp_path)


def test_several_inputs_and_outputs_in_a_fixed_batch(c_sources, tmp_path):
    first, second = keras.Input((6, 6, 2), name="picture"), keras.Input((3,), name="facts")
    x = L.Concatenate()([L.Flatten()(L.Conv2D(3, 3, activation="relu")(first)), second])
    heads = {"kind": L.Dense(4, activation="softmax", name="kind")(x), "size": L.Dense(1, name="size")(x)}
    model, rng = randomise(keras.Model([first, second], heads)), np.random.default_rng(0)
    x = {"picture": rng.uniform(0, 1, (12, 6, 6, 2)).astype("f4"), "facts": rng.uniform(-1, 1, (12, 3)).astype("f4")}
    artifacts = exporting.write(model, tmp_path, ["onnx"], ["float32"], x, SILENT, batch=2)
    (one,) = deployed(tmp_path, "c", artifacts, golden=x, samples=x)
    assert one.parity.passed
    assert (tmp_path / "c/golden.bin").stat().st_size == 4 * 12 * (72 + 3 + 4 + 1)


def test_an_operator_without_c_names_its_layer(c_sources, tmp_path):
    node = onnx.helper.make_node("GlobalLpPool", ["x"], ["y"], name="pool_1")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 3, 4, 4]), ("y", None)))
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(TargetError, match=r"^c float32: layer 'mean' \(GlobalLpPool\): .*Unsupported op.*leave this"):
        plugins.get("targets", "c").check(path, None, {"pool_1": ("mean",)})


# ---- ORT files


@pytest.fixture(scope="module")
def mobile(files):
    return files[0], deployed(files[0], "ort", files[1])


def test_ort_files_compute_what_their_onnx_files_do(mobile):
    folder, rows = mobile
    assert [(one.source, one.precision) for one in rows] == [("model.onnx", "float32"), ("model_int8.onnx", "int8")]
    assert rows[0].parity.range_error <= 1e-6
    assert rows[1].parity.max_abs == 0
    for one in rows:
        assert sum(one.files.values()) > one.figures["flash_bytes"] > 1_000
        assert 0 < one.figures["load_ms"] < one.figures["onnx_load_ms"] + 20
        assert (folder / next(iter(one.files))).read_bytes()[4:8] == b"ORTM"


def test_the_configuration_lists_the_operators_of_the_ort_file(mobile):
    from onnxruntime.tools.reduced_build_config_parser import parse_config

    folder, rows = mobile
    for name in (one for row in rows for one in row.files if one.endswith(".config")):
        required, _ = parse_config(str(folder / name), True)[:2]
        operators = {one for domain in required.values() for ones in domain.values() for one in ones}
        assert operators & {"Conv", "QLinearConv"}
        assert not [one for one in operators if "Nchwc" in one]
        assert str(folder) not in (folder / name).read_text()


def test_the_verdict_on_accelerators_is_told_once_each_and_logging_stays_as_it_was(mobile):
    import logging

    before = logging.getLogger().handlers[:], logging.getLogger().level
    said = list(plugins.get("targets", "ort").verdicts(mobile[0] / "model.onnx"))
    assert (logging.getLogger().handlers, logging.getLogger().level) == before
    assert [line.partition(",")[0] for line in said] == ["NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"]
    assert all("with fixed input shapes: " in line for line in said)
    notes, figures = mobile[1][0].notes, mobile[1][0].figures
    assert said == list(notes)[-3:]
    is_slower = figures["ms"] > 1.1 * figures["onnx_ms"]
    assert [" times as long as its .onnx" in note for note in notes[:-3]] == [True] * is_slower


def test_a_limit_of_the_recipe_holds_for_programs(files, tmp_path):
    shutil.copytree(files[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(ParityError, match=r"^deploy: ort \(model.onnx\): share of the output range .* > 1e-12"):
        deployed(tmp_path, "ort", files[1], gates=recipe.Verify(program_max_range_error=1e-12))


# ---- Ethos-U


@pytest.fixture(scope="module")
def npu(files):
    pytest.importorskip("ethosu.vela", reason="the extra [ethos] is not installed")
    (one,) = deployed(files[0], "ethos_u", files[1])
    return files[0], one


def test_vela_leaves_nothing_to_the_cpu_and_keeps_the_edges(npu):
    folder, one = npu
    assert (one.parity, one.figures["u55_128_cpu_operators"], one.figures["u55_256_cpu_operators"]) == (None, 0, 0)
    assert one.notes[0] == "ethos-u55-128: all operators on the NPU"
    assert one.figures["cycles"] == one.figures["u55_128_cycles"] >= one.figures["u55_256_cycles"] > 0
    assert one.figures["u55_128_ms"] == pytest.approx(one.figures["u55_128_cycles"] / 500e3)
    for name in one.files:
        assert [kind for kind, _ in builtin_operators(folder / name)] == ["ethos-u"]
        assert edges(folder / name) == edges(folder / one.source)


def test_what_stays_on_the_cpu_is_told(npu, tmp_path):
    inputs = keras.Input((8, 8, 4), name="pixels")
    x = L.Conv2D(4, 3, name="first")(inputs)
    x = L.Lambda(lambda t: tf.nn.depth_to_space(t, 2), output_shape=(12, 12, 1), name="apart")(x)
    model = randomise(keras.Model(inputs, L.GlobalAveragePooling2D(name="scores")(L.Conv2D(2, 3, name="second")(x))))
    samples = {"pixels": pictures(16, (8, 8, 4))}
    artifacts = exporting.write(model, tmp_path, ["tflite"], ["int8"], samples, SILENT)
    (one,) = deployed(tmp_path, "ethos_u", artifacts, golden=samples, samples=samples)
    assert one.figures["u55_128_cpu_operators"] == 1
    assert one.notes[0] == "ethos-u55-128: on the CPU stay DEPTH_TO_SPACE (1 operators)"


# ---- targets of others

THEIRS = """
from edgeml.targets import Deployed
from edgeml.runtimes import open_model

PRECISIONS = ("int8",)
NEEDS = {"int8": (("tflite", "int8"),)}

def check_installed():
    pass

def check(source, model, layers):
    pass

def deploy(source, folder, golden):
    (folder / "rows.txt").write_text(str(len(golden.outputs["scores"])))
    return Deployed("a tool of theirs", None, {"flash_bytes": source.stat().st_size}, ("hello",))
"""


def test_a_target_of_somebody_else_is_one_module_and_an_entry_point(monkeypatch, tmp_path, files):
    install(monkeypatch, tmp_path / "package", "targets", "theirs", THEIRS)
    assert precisions.programs(["theirs"], ["int8"]) == [("theirs", "int8")]
    shutil.copytree(files[0], tmp_path / "bundle")
    (one,) = deploying.deploy(tmp_path / "bundle", [("theirs", "int8")], files[1], GOLDEN, SAMPLES, recipe.Verify(), 1,
                              SILENT)  # fmt: skip
    assert (one.tool, one.files, one.notes) == ("a tool of theirs", {"theirs/rows.txt": 2}, ("hello",))


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("1 / 0", "plug-in theirs: it raised ZeroDivisionError: division by zero"),
        ("'a path'", "theirs: deploy returned str; edgeml.targets.Deployed is due"),
        ("Deployed('tool', None, {'ms': float('nan')})", "theirs: figures that are no numbers: ms nan"),
    ],
)
def test_what_a_target_of_somebody_else_does_wrong_is_told_as_its_own(monkeypatch, tmp_path, files, returned, reason):
    source = f"{THEIRS.partition('    return Deployed')[0]}    return {returned}\n"
    install(monkeypatch, tmp_path / "package", "targets", "theirs", source)
    shutil.copytree(files[0], tmp_path / "bundle")
    with pytest.raises(TargetError, match=reason):
        deploying.deploy(
            tmp_path / "bundle", [("theirs", "int8")], files[1], GOLDEN, SAMPLES, recipe.Verify(), 1, SILENT
        )


# ---- a bundle with programs


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    from edgeml.model_export import export

    for target in ("ethos_u", "tflm"):
        try:
            plugins.get("targets", target).check_installed()
        except UsageError as error:
            pytest.skip(str(error))
    place = tmp_path_factory.mktemp("bundle") / "b"
    model = separable("hard_swish")
    to = "tflm,ort,ethos_u"
    return export(model, place, to, "int8", samples=pictures(64), calibration=pictures(64))


def test_manifest_report_and_card_tell_of_programs(bundled):
    manifest = bundle.read(bundled)
    assert [one["path"] for one in bundle.models(manifest)] == ["model_int8.onnx", "model_int8.tflite"]
    rows = {one["target"]: one for one in manifest["deployments"]}
    assert list(rows) == ["tflm", "ort", "ethos_u"]
    listed = {one["path"]: one for one in manifest["files"]}
    for target, row in rows.items():
        assert row["files"]
        assert all(listed[name]["role"] == "deployment" and listed[name]["target"] == target for name in row["files"])
        assert all(listed[name]["bytes"] == size for name, size in row["files"].items())
    arena = integer(rows["tflm"]["figures"]["ram_bytes"])
    card, page = (bundled / "README.md").read_text(), (bundled / "report.html").read_text()
    for text in (card, page):
        assert "Programs for devices" in text
        assert arena in text
        assert "of 64 rows equal, at most" in text
        assert "all operators on the NPU" in text
        assert "NNAPI: no gain, run it on the CPU" in text


def test_the_terminal_tells_of_programs_in_a_line_each(bundled):
    lines = [line for line in make._summary(bundle.read(bundled), bundled, None).splitlines() if "program " in line]
    assert [line.split()[1] for line in lines] == ["tflm/", "ort/", "ethos_u/"]
    assert re.search(r"TFLM \S+: \d+,\d{3} bytes of flash, 6,\d{3} of RAM, \d+.\d % of 64 rows equal", lines[0])
    assert lines[1].endswith("equal, n=128")
    assert lines[2].endswith("cycles, not run")


def test_verify_covers_the_files_of_programs(bundled, tmp_path):
    place = tmp_path / "b"
    shutil.copytree(bundled, place)
    from edgeml.bundled import verify

    report = verify.check(place)
    assert report["passed"]
    assert {row["file"] for row in report["parity"]} == {"model_int8.onnx", "model_int8.tflite"}
    (place / "tflm/micro_ops.h").write_text("")
    assert verify.check(place)["integrity"]["problems"] == ["tflm/micro_ops.h: changed"]


# ---- all of them


def test_a_program_brings_the_file_that_it_is_made_from():
    assert precisions.files(["tflm", "tflite"], ["int8"]) == (precisions.File("tflite", "int8"),)
    assert precisions.programs(["tflm", "tflite"], ["int8"]) == [("tflm", "int8")]
    assert precisions.refusal(["tflm"], ["float32"]).startswith("target")


def test_what_is_missing_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(tflm, "is_installed", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'edgeml-export\[micro\]'"):
        exporting.check_request(["tflm"], ["int8"], calibrated=True)
    monkeypatch.setattr("edgeml.targets.c.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'edgeml-export\[c\]'"):
        exporting.check_request(["c"], ["float32"], calibrated=False)
    monkeypatch.undo()
    monkeypatch.setattr("edgeml.targets.c.find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="apt install build-essential"):
        exporting.check_request(["c"], ["float32"], calibrated=False)


ASKS_FOR_THEIRS = """
schema_version: 1
name: tiny
data: {source: npz, path: not_there.npz}
export: {targets: [theirs], precision: [int8]}
"""
UNMADE = """
from edgeml.errors import UsageError

PRECISIONS = ("int8",)
NEEDS = {"int8": (("tflite", "int8"),)}

def check_installed():
    raise UsageError("theirs: their tool is not installed. Install it.")

def check(source, model, layers):
    pass

def deploy(source, folder, golden):
    pass
"""
BEFORE_A_SEARCH = {
    "run": lambda asked: make.run(asked, None, "", SILENT, Mock(), resume=False, overwrite=False),
    "search": lambda asked: make.search(asked, SILENT, Mock(), resume=False, overwrite=False),
    "dry run": lambda asked: examine.dry_run(asked, SILENT),
}


@pytest.mark.parametrize("verb", BEFORE_A_SEARCH)
def test_a_missing_tool_is_told_before_a_search(verb, monkeypatch, tmp_path):
    install(monkeypatch, tmp_path / "package", "targets", "theirs", UNMADE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^theirs: their tool is not installed\. Install it\.$"):
        BEFORE_A_SEARCH[verb](recipe_file.parse(ASKS_FOR_THEIRS, "r"))
    assert not (tmp_path / "runs/tiny").exists()
    if verb != "run":  # without TensorFlow another machine exports
        monkeypatch.setattr(exporting, "find_spec", lambda name: None)
        with pytest.raises(DataError, match=r"not_there\.npz"):
            BEFORE_A_SEARCH[verb](recipe_file.parse(ASKS_FOR_THEIRS, "r"))


@needs_micro
def test_a_program_that_computes_something_else_is_refused(files, tmp_path, monkeypatch):
    shutil.copytree(files[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(tflm.Interpreter, "_run", lambda self, batch: {"scores": np.zeros((1, 5), "int8")})
    with pytest.raises(
        ParityError, match=r"^deploy: tflm \(model_int8.tflite\): equal decisions 0.0000 < 0.999"
    ) as raised:
        deployed(tmp_path, "tflm", files[1])
    assert "\n" not in str(raised.value)
