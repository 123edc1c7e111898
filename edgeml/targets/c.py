"""Dependency-free C of the float32 network, from the ONNX file by emx-onnx-cgen, built and run here.

    c/model.c, model.h   the network: void model(inputs, outputs), no heap, no library but libm
    c/main.c             computes golden.bin and tells the largest difference
    c/golden.bin         golden inputs and what onnxruntime makes of them, row by row
    c/Makefile           make, make check

What is built by gcc -O2 is what is compared with onnxruntime. Sums are of floats, or of doubles (slow where a processor
has none) where those are too far off on golden inputs. Sizes are those of model.o; the stack is the largest of
what gcc says of one call and all that it calls: activations lie on it, each in a place of its own. Where Debian's
arm-none-eabi-gcc is installed, it is compiled for a Cortex-M4 with an FPU, too.
"""

from __future__ import annotations

import platform
import re
import resource
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeml.errors import TargetError, UsageError
from edgeml.runtimes import open_model
from edgeml.targets import Deployed, Golden, _c_sources
from edgeml.targets import _onnx_plain_names as plain_names
from edgeml.targets._c_program import FLAGS, Program, call
from edgeml.targets._refusals import refusal

PRECISIONS = ("float32",)
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {"float32": (("onnx", "float32"),)}
HOST, CORTEX_M = "gcc", "arm-none-eabi-gcc"
FLOAT_SUMS, DOUBLE_SUMS = "simple", "fp64"  # as emx-onnx-cgen calls them
FLOAT_SUMS_SHARE = 5e-7  # of the outputs' range, half of what is due: onnxruntime itself differs by as much
MOST_GOLDEN_BYTES = 2**20  # of golden.bin; it has fewer rows of large inputs
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")


def check_installed() -> None:
    """Raise if emx-onnx-cgen or gcc is missing.

    Raises:
        UsageError: one of them is.
    """
    if find_spec("emx_onnx_cgen") is None:
        raise UsageError("c: emx-onnx-cgen is not installed. pip install 'edgeml-export[c]'.")
    if shutil.which(HOST) is None:
        raise UsageError("c: gcc is not installed, and a program is proven by running it. apt install build-essential.")


def check(source: Path, model: Any, layers: Mapping[str, Sequence[str]]) -> None:
    """Let the generator read the file.

    Raises:
        TargetError: it cannot write C for an operator, a type or a shape.
    """
    del model
    for tensor in open_model(source).signature.outputs:
        if tensor.dtype != "float32":
            raise refusal("c", "float32", f"output '{tensor.name}'", None, f"is {tensor.dtype}; float32 is allowed")
    try:
        compiler, network = _prepared(source, FLOAT_SUMS)
        compiler.shape_inference_report(network)  # reads and lowers all of it
    except _errors() as error:
        said = " ".join(str(error).split()).partition(" Hint:")[0].rstrip(".")  # of options that nobody gave
        nodes = _read(source).graph.node
        node = next((one for one in nodes if re.search(rf"\b{one.op_type}\b", said)), None)
        place = next(iter(layers.get(node.name, ())), node.name) if node else None
        why = f"emx-onnx-cgen cannot write C for it ({said})"
        raise refusal("c", "float32", node.op_type if node else "of the file", place, why) from error


def deploy(source: Path, folder: Path, golden: Golden) -> Deployed:
    """Write the sources into ``folder``, build and measure them.

    Raises:
        TargetError: a compiler refuses what the generator wrote, or it needs more stack than a program has here.
    """
    program, figures = _built(source, folder, golden, FLOAT_SUMS)
    notes = []
    if not program.range_error(golden) <= FLOAT_SUMS_SHARE:
        program, figures = _built(source, folder, golden, DOUBLE_SUMS)
        notes.append("sums are of doubles: of floats they were more than half a millionth of the outputs' range off")
    if shutil.which(CORTEX_M):
        found = _measured(folder, CORTEX_M, CORTEX_M4)
        figures |= {f"cortex_m4_{name}": value for name, value in found.items()}
        notes.append(f"compiled for a Cortex-M4 by {_named(CORTEX_M)}, not run")
    else:
        notes.append("not compiled for a Cortex-M: apt install gcc-arm-none-eabi libnewlib-arm-none-eabi")
    notes.append(f"flash and RAM are of {platform.machine()} code; RAM is stack, data, inputs and outputs")
    ram = sum(figures[name] for name in ("data_bytes", "stack_bytes", "input_output_bytes"))
    total = {"flash_bytes": figures["text_bytes"], "ram_bytes": ram, **figures, "ms": program.ms()}
    return Deployed(program.runtime, program, total, tuple(notes))


def _built(source: Path, folder: Path, golden: Golden, sums: str) -> tuple[Program, dict[str, int]]:
    """Write the sources of a program that sums in floats or in doubles, measure and build it."""
    signature = open_model(source).signature
    batch = signature.batch or 1
    generator, network = _prepared(source, sums)
    code = str(generator.compile(network))
    texts = {
        "model.c": code, "model.h": _c_sources.header(code), "Makefile": _c_sources.MAKEFILE,
        "main.c": _c_sources.main(code, signature),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    rows = _c_sources.golden_rows(signature, golden.inputs, golden.outputs, batch)
    (folder / "golden.bin").write_bytes(b"".join(rows[: max(1, MOST_GOLDEN_BYTES // len(rows[0]))]))
    figures = {**_measured(folder, HOST, ()), "input_output_bytes": len(rows[0])}
    _check_stack(figures["stack_bytes"])
    tool = f"emx-onnx-cgen {version('emx-onnx-cgen')}, {_named(HOST)} -O2"
    return Program(folder, signature, tool, batch), figures


def _check_stack(needed: int) -> None:
    """Refuse a program that would overrun the stack that it gets here: it is proven by running it."""
    most, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if most != resource.RLIM_INFINITY and needed >= most:
        raise TargetError(
            f"c float32: activations take {needed:,} bytes of stack; a program here has {most:,}. Allow more (`ulimit"
            " -s unlimited`), ask for smaller ones (budget.peak_activation_bytes), or leave this target out."
        )


def _read(source: Path) -> Any:
    from emx_onnx_cgen import onnx_import

    return onnx_import.onnx.load(source)


def _errors() -> tuple[type[Exception], ...]:
    """Return what the generator raises for what it cannot write."""
    from emx_onnx_cgen.errors import CompilerError

    return CompilerError, ValueError, KeyError, NotImplementedError


def _prepared(source: Path, sums: str) -> tuple[Any, Any]:
    """Return the generator, and what it is given: an ONNX file, at batch 1 where it takes any."""
    from emx_onnx_cgen.input_dim_overrides import apply_input_dim_overrides, parse_input_dim_overrides

    model = plain_names.with_plain_names(_read(source))
    if open_model(source).signature.batch is None:
        free = [f"{value.name}:0=1" for value in model.graph.input]
        apply_input_dim_overrides(model, parse_input_dim_overrides(free))
    return _generator(sums), model


@cache
def _generator(sums: str) -> Any:
    """Return the generator: its templates take 3 s to read, once."""
    from emx_onnx_cgen.compiler import Compiler, CompilerOptions

    options = CompilerOptions(
        model_name="model", large_temp_threshold_bytes=0, large_weight_threshold=0, fp32_accumulation_strategy=sums
    )
    return Compiler(options)


def _measured(folder: Path, compiler: str, flags: Sequence[str]) -> dict[str, int]:
    """Compile model.c alone; return bytes of code and constants, of variables, and of the stack."""
    with tempfile.TemporaryDirectory(prefix="edgeml-c-") as place:
        call(compiler, *FLAGS, *flags, "-fstack-usage", "-c", str(folder / "model.c"), "-o", f"{place}/model.o")
        size = call(compiler.replace("gcc", "size"), f"{place}/model.o")
        stack = Path(place, "model.su").read_text("utf-8")
    text, data, bss = (int(word) for word in size.splitlines()[1].split()[:3])
    frames = {name: int(used) for name, used in re.findall(r":(\w+)\t(\d+)\t", stack)}
    deepest = max((used for name, used in frames.items() if name != "model"), default=0)
    return {"text_bytes": text, "data_bytes": data + bss, "stack_bytes": frames["model"] + deepest}


def _named(compiler: str) -> str:
    return f"{compiler} {call(compiler, '-dumpfullversion').strip()}"
