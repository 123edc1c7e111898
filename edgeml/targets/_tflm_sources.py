"""The texts that ``tflm`` writes: C++17 for a tree of TensorFlow Lite Micro."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.runtimes import Loaded, Tensor
from edgeml.targets import Golden

ALIGNMENT_BYTES = 16
COLUMNS = 12
MOST_GOLDEN_BYTES, MOST_GOLDEN_ROWS = 32_768, 8
TOLERATED_STEPS = 4  # kernels of a library for a chip may round a little otherwise
SPELLED = {"CUMSUM": "CumSum", "PADV2": "PadV2", "BATCH_MATMUL": "BatchMatMul"}  # where words are not parted by _
C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t", "float32": "float"}

MODEL_H = Template("""\
// Written by edgeml. The int8 TFLite file of this bundle as an array, and what it needs.
#ifndef EDGEML_MODEL_DATA_H_
#define EDGEML_MODEL_DATA_H_

constexpr int kModelBytes = $bytes;
// The least with which tflite-micro opens the model on a 64-bit machine, with reference kernels.
constexpr int kTensorArenaBytes = $arena;
// CMSIS-NN's convolutions ask for about so much beside it (by its documentation, not measured).
constexpr int kCmsisNnScratchBytes = $scratch;

extern const unsigned char model_data[kModelBytes];

#endif  // EDGEML_MODEL_DATA_H_
""")
MODEL_CC = Template("""\
// Written by edgeml: the bytes of model_int8.tflite.
#include "model_data.h"

alignas($alignment) const unsigned char model_data[kModelBytes] = {
$values
};
""")
OPS_H = Template("""\
// Written by edgeml: the operators of the model, and no others.
#ifndef EDGEML_MICRO_OPS_H_
#define EDGEML_MICRO_OPS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

constexpr int kModelOperators = $count;
using ModelOpResolver = tflite::MicroMutableOpResolver<kModelOperators>;

inline TfLiteStatus AddModelOperators(ModelOpResolver& resolver) {
$calls
  return kTfLiteOk;
}

#endif  // EDGEML_MICRO_OPS_H_
""")
GOLDEN_H = Template("""\
// Written by edgeml: golden inputs, and what TensorFlow Lite Micro made of them.
#ifndef EDGEML_GOLDEN_DATA_H_
#define EDGEML_GOLDEN_DATA_H_

#include <cstdint>

constexpr int kGoldenRows = $rows;
$arrays
#endif  // EDGEML_GOLDEN_DATA_H_
""")
MAIN_CC = Template("""\
// Written by edgeml: runs the golden inputs on a tree of TensorFlow Lite Micro. Exit code 0: they agree.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "golden_data.h"
#include "micro_ops.h"
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas($alignment) uint8_t tensor_arena[kTensorArenaBytes + kCmsisNnScratchBytes];

template <typename T, int N>
int Steps(const T (&expected)[N], const TfLiteTensor* tensor, float step) {
  const T* found = reinterpret_cast<const T*>(tensor->data.raw);
  float most = 0.0f;
  for (int i = 0; i < N; ++i) {
    most = std::fmax(most, std::fabs(static_cast<float>(found[i]) - static_cast<float>(expected[i])) / step);
  }
  return static_cast<int>(most + 0.5f);
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  ModelOpResolver resolver;
  if (AddModelOperators(resolver) != kTfLiteOk) return 1;
  tflite::MicroInterpreter interpreter(tflite::GetModel(model_data), resolver, tensor_arena, sizeof(tensor_arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) return 1;
  int most = 0;
  for (int row = 0; row < kGoldenRows; ++row) {
$feed
    if (interpreter.Invoke() != kTfLiteOk) return 1;
$compare
  }
  MicroPrintf("%s: %d rows, at most %d steps off, arena %d bytes", most <= $tolerated ? "ok" : "FAILED", kGoldenRows,
              most, static_cast<int>(interpreter.arena_used_bytes()));
  return most <= $tolerated ? 0 : 1;
}
""")


def method(kind: str) -> str:
    """Return what adds an operator to a resolver: ``AddConv2D`` of ``CONV_2D``."""
    words = (word if word[0].isdigit() else word.capitalize() for word in kind.split("_"))
    return f"Add{SPELLED.get(kind) or ''.join(words)}"


def model_data(content: bytes, arena_bytes: int, scratch_bytes: int) -> dict[str, str]:
    """Return header and source of the array."""
    values = _lines(f"0x{byte:02x}" for byte in content)
    return {
        "model_data.h": MODEL_H.substitute(bytes=len(content), arena=arena_bytes, scratch=scratch_bytes),
        "model_data.cc": MODEL_CC.substitute(alignment=ALIGNMENT_BYTES, values=values),
    }


def micro_ops(kinds: Sequence[str]) -> str:
    """Return the header that registers operators of these kinds."""
    calls = (f"  if (resolver.{method(kind)}() != kTfLiteOk) return kTfLiteError;" for kind in sorted(kinds))
    return OPS_H.substitute(count=len(kinds), calls="\n".join(calls))


def example(program: Loaded, golden: Golden) -> dict[str, str]:
    """Return golden tensors, as many rows as are small, and the program that runs them."""
    sides = program.signature.inputs, program.signature.outputs
    batch = program.signature.batch or 1
    whole_bytes = sum(np.dtype(t.dtype).itemsize * math.prod(n or 1 for n in t.shape) for side in sides for t in side)
    rows = max(1, min(MOST_GOLDEN_ROWS, MOST_GOLDEN_BYTES // whole_bytes))
    inputs = {name: np.resize(x, (rows * batch, *x.shape[1:])) for name, x in golden.inputs.items()}
    outputs = program.predict(inputs)
    given = [(f"golden_input_{i}", t, t.quantized(inputs[t.name])) for i, t in enumerate(sides[0])]
    due = [(f"golden_output_{i}", t, t.quantized(outputs[t.name])) for i, t in enumerate(sides[1])]
    arrays = "".join(_array(*one, rows) for one in (*given, *due))
    feed = (f"    std::memcpy(interpreter.input({i})->data.raw, {name}[row], sizeof({name}[row]));"
            for i, (name, *_) in enumerate(given))  # fmt: skip
    compare = (f"    most = std::max(most, Steps({name}[row], interpreter.output({i}), {_step(t)}));"
               for i, (name, t, _) in enumerate(due))  # fmt: skip
    return {
        "golden_data.h": GOLDEN_H.substitute(rows=rows, arrays=arrays),
        "example_main.cc": MAIN_CC.substitute(
            alignment=ALIGNMENT_BYTES, feed="\n".join(feed), compare="\n".join(compare), tolerated=TOLERATED_STEPS
        ),
    }  # fmt: skip


def _step(tensor: Tensor) -> str:
    """Return what one step of an output is in the numbers that leave the program."""
    return "1.0f" if np.dtype(tensor.dtype).kind in "iu" else f"{1 / 256}f"


def _array(name: str, tensor: Tensor, values: NDArray[Any], rows: int) -> str:
    each = values.reshape(rows, -1)
    texts = ",\n".join("    {\n" + _lines(map(_literal, row.tolist())) + "}" for row in each)
    return (
        f"// {tensor.name}, {' x '.join(map(str, values.shape[1:]))}\n"
        f"inline constexpr {C_TYPES[tensor.dtype]} {name}[kGoldenRows][{each.shape[1]}] = {{\n{texts}}};\n\n"
    )


def _literal(value: float) -> str:
    return f"{value!r}f" if isinstance(value, float) else str(value)


def _lines(values: Iterable[str]) -> str:
    found = list(values)
    return ",\n".join("    " + ", ".join(found[i : i + COLUMNS]) for i in range(0, len(found), COLUMNS))
