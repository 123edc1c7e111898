"""C++ sources for TensorFlow Lite Micro from the int8 TFLite file: the model as an array, its operators, an example.

    tflm/model_data.h, model_data.cc   the file's bytes, aligned; the arena that it needs
    tflm/micro_ops.h                   a resolver of exactly the operators of the file
    tflm/golden_data.h                 some golden inputs, and what TensorFlow Lite Micro makes of them
    tflm/example_main.cc               runs these, and tells how far it is off

The arena is the smallest with which tflite-micro opens the file on this machine: somewhat more than it says it uses,
for placing the activations takes memory, too. On 32 bits records are smaller. CMSIS-NN's kernels ask for scratch memory
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml import arena, configurations
from edgeml.errors import DataError
from edgeml.operators import Operator
from edgeml.runtimes import tflm
from edgeml.runtimes.litert import WIDEST_SOFTMAX
from edgeml.targets import Deployed, Golden, _tflm_sources
from edgeml.targets._refusals import refusal
from edgeml.targets._scopes import first_layer
from edgeml.tflite_operators import builtin_operators, tflite_operators

PRECISIONS = ("int8",)
NEEDS: dict[str, tuple[tuple[str, str], ...]] = {"int8": (("tflite", "int8"),)}
SAID = re.compile(r"opcode '(\w+)'|Node (\w+) \(number (\d+)")  # by TensorFlow Lite Micro, of what it cannot take
OVERRUNS = (
    f"its softmax takes {WIDEST_SOFTMAX} classes: the sum of more that are about equally likely overruns and ends the"
    " program"
)
# Activations that are, or end in, an operator that it has no int8 kernel for: EXP, GELU, SELECT (0.dev20261023182759).
LACKS = ("celu", "exp", "exponential", "gelu", "mish", "soft_shrink", "softplus")


check_installed = tflm.check_installed


def check_operators(operators: Sequence[Operator]) -> None:
    """Look for activations that no file could hold, and for a softmax of too many classes.

    Raises:
        TargetError: there is one.
    """
    for one in operators:
        if one.kind == "softmax" and one.output_shape[-1] > WIDEST_SOFTMAX:
            raise refusal("tflm", "int8", "softmax", one.name, OVERRUNS)
        if one.activation in LACKS:
            why = "TensorFlow Lite Micro has no int8 kernel for it"
            raise refusal("tflm", "int8", one.activation, one.name, why)


def check(source: Path, model: Any, layers: Mapping[str, Sequence[str]]) -> None:
    """Open the file in TensorFlow Lite Micro, which prepares every operator.

    Raises:
        TargetError: it lacks an operator, or its kernel does not take a type or a shape.
    """
    del layers
    if configurations.overrun(source):
        kind, tensor = next(one for one in builtin_operators(source) if one[0] == "SOFTMAX")
        raise refusal("tflm", "int8", kind, first_layer(model, [tensor]) or tensor, OVERRUNS)
    try:
        tflm.open_model(source)
    except DataError as error:
        said = str(error).removeprefix(f"{source}: ").rstrip(".")
        kind, tensor = _blamed(source, said)
        raise refusal("tflm", "int8", kind, first_layer(model, [tensor]) or tensor or None, said) from error


def _blamed(source: Path, said: str) -> tuple[str, str]:
    """Return kind and output of the operator that an error is about: by its number, or the first of its kind."""
    operators, found = builtin_operators(source), SAID.search(said)
    if found is None:
        return "of the file", ""
    if found[3]:
        return operators[int(found[3])]
    return next((one for one in operators if one[0] == found[1]), (found[1], ""))


def deploy(source: Path, folder: Path, golden: Golden) -> Deployed:
    """Write the sources into ``folder``."""
    needed = tflm.smallest_arena_bytes(source)
    scratch = arena.cmsis_nn_margin_bytes(tflite_operators(source))
    program = tflm.open_model(source, arena_bytes=needed)
    kinds = list(dict.fromkeys(kind for kind, _ in builtin_operators(source)))
    texts = {
        **_tflm_sources.model_data(source.read_bytes(), needed, scratch),
        "micro_ops.h": _tflm_sources.micro_ops(kinds),
        **_tflm_sources.example(program, golden),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    figures = {
        "flash_bytes": source.stat().st_size, "ram_bytes": needed, "arena_used_bytes": tflm.allocations(source)[0],
        "cmsis_nn_scratch_bytes": scratch, "operators": len(kinds),
    }  # fmt: skip
    return Deployed(program.runtime, program, figures, (f"registers {', '.join(sorted(kinds))}",))
