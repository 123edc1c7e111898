"""The texts around the C of a network: header, main, Makefile; and golden rows as bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import TargetError
from edgeml.runtimes import Arrays, Signature, Tensor

ENTRY = re.compile(r"^void model\((.*?)\) \{", re.MULTILINE | re.DOTALL)
PARAMETER = re.compile(r"^(?:const )?(\w+) (\w+)((?:\[\w+\])+)$")  # type, name, sizes
MAKEFILE = """\
# Written by edgeml. `make check` builds the program and computes the golden rows.
CC ?= gcc
CFLAGS ?= -std=c11 -O2 -Wall -Wextra -Werror

main: main.c model.c model.h
\t$(CC) $(CFLAGS) -o $@ main.c model.c -lm

check: main
\t./main golden.bin

clean:
\trm -f main

.PHONY: check clean
"""
HEADER = Template("""\
/* Written by edgeml: the network of model.c, batch included in the sizes. */
#ifndef EDGEML_MODEL_H
#define EDGEML_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void model($parameters);

#ifdef __cplusplus
}
#endif

#endif
""")
MAIN = Template("""\
/* Written by edgeml: main ROWS [OUTPUTS] computes rows of inputs and compares what comes out with what is due.
   ROWS holds, one inference after the other, the bytes of all inputs and then of all outputs, in this machine's order.
   Exit code 0: the largest difference is at most a millionth of the outputs' range, or OUTPUTS was written. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "model.h"

#define LIMIT 1e-6
$buffers
static double most, least_due = INFINITY, most_due = -INFINITY;

static void compare(const float *found, const float *due, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const double off = fabs((double)found[i] - (double)due[i]);
        if (!(off <= most)) most = off;
        if (due[i] < least_due) least_due = due[i];
        if (due[i] > most_due) most_due = due[i];
    }
}

int main(int argc, char **argv) {
    FILE *rows = argc > 1 ? fopen(argv[1], "rb") : NULL;
    FILE *outputs = argc > 2 ? fopen(argv[2], "wb") : NULL;
    if (rows == NULL || (argc > 2 && outputs == NULL)) {
        fprintf(stderr, "main ROWS [OUTPUTS]: a file is missing or cannot be written\\n");
        return 2;
    }
    long count = 0;
    clock_t taken = 0;
    while ($read) {
        const clock_t begun = clock();
        model($arguments);
        taken += clock() - begun;
        ++count;
$each
    }
    if (outputs != NULL && fclose(outputs) != 0) return 2;
    const double range = most_due > least_due ? most_due - least_due : 1.0;
    printf("%ld inferences, largest difference %.3g (%.3g of the range), %.3f us per inference\\n", count, most,
           most / range, count > 0 ? 1e6 * (double)taken / CLOCKS_PER_SEC / (double)count : 0.0);
    return count == 0 ? 2 : outputs != NULL || most <= LIMIT * range ? 0 : 1;
}
""")


def _parameters(code: str) -> list[tuple[str, str, str, bool]]:
    """Return type, name, sizes of each parameter of the network, and whether it is an input."""
    entry = ENTRY.search(code)
    found = [" ".join(one.replace("restrict ", "").split()) for one in entry[1].split(",")] if entry else []
    parts = [(one, PARAMETER.match(one)) for one in found]
    if not parts or not all(match for _, match in parts):
        raise TargetError(
            "c float32: the C of emx-onnx-cgen has no function that edgeml can call. Leave this target out."
        )
    return [(match[1], match[2], match[3], one.startswith("const ")) for one, match in parts if match]


def header(code: str) -> str:
    """Return the header of a network's C."""
    parameters = (f"{'const ' if given else ''}{kind} {name}{sizes}" for kind, name, sizes, given in _parameters(code))
    return HEADER.substitute(parameters=", ".join(parameters))


def main(code: str, signature: Signature) -> str:
    """Return a program that runs a network on rows of golden tensors."""
    found = _parameters(code)
    outputs = [f"output_{i}" for i in range(len(signature.outputs))]
    inputs = [f"input_{i}" for i in range(len(signature.inputs))]
    names = iter(inputs), iter(outputs)
    named = [(kind, next(names[0] if given else names[1]), sizes, given) for kind, _, sizes, given in found]
    buffers = [f"static {kind} {name}{sizes};" for kind, name, sizes, _ in named]
    buffers += [f"static {kind} due_{name}{sizes};" for kind, name, sizes, given in named if not given]
    reads = (f"fread({name}, sizeof {name}, 1, rows) == 1" for name in (*inputs, *(f"due_{one}" for one in outputs)))
    each = (
        f"        compare((const float *){name}, (const float *)due_{name}, sizeof {name} / sizeof(float));\n"
        f"        if (outputs != NULL && fwrite({name}, sizeof {name}, 1, outputs) != 1) return 2;"
        for name in outputs
    )
    return MAIN.substitute(
        buffers="\n".join(buffers), read=" && ".join(reads), each="\n".join(each),
        arguments=", ".join(_passed(name, sizes, given) for _, name, sizes, given in named),
    )  # fmt: skip


def _passed(name: str, sizes: str, is_input: bool) -> str:
    """Return an argument: C has no conversion of arrays of arrays to those of constants, but for one from void."""
    return f"(void *){name}" if is_input and sizes.count("[") > 1 else name


def golden_rows(signature: Signature, inputs: Arrays, outputs: Arrays, batch: int) -> list[bytes]:
    """Return rows as ``main`` reads them, an inference each; outputs that are not given are zeros."""
    count = len(inputs[signature.inputs[0].name]) // batch
    blank = {t.name: np.zeros((count * batch, *_sizes(t)), np.float32) for t in signature.outputs}
    tensors = [np.ascontiguousarray(inputs[t.name], t.dtype) for t in signature.inputs]
    tensors += [np.ascontiguousarray({**blank, **outputs}[t.name], np.float32) for t in signature.outputs]
    starts = range(0, count * batch, batch)
    return [b"".join(one[row : row + batch].tobytes() for one in tensors) for row in starts]


def outputs_of(content: bytes, signature: Signature, batch: int) -> dict[str, NDArray[Any]]:
    """Return by name what ``main`` wrote, (N, …) each."""
    shapes = [(batch, *_sizes(t)) for t in signature.outputs]
    counts = [int(np.prod(shape)) for shape in shapes]
    rows = np.frombuffer(content, np.float32).reshape(-1, sum(counts))
    parts = np.split(rows, np.cumsum(counts)[:-1], axis=1)
    return {
        t.name: part.reshape(-1, *shape[1:]) for t, part, shape in zip(signature.outputs, parts, shapes, strict=True)
    }


def _sizes(tensor: Tensor) -> Sequence[int]:
    return [size or 1 for size in tensor.shape[1:]]
