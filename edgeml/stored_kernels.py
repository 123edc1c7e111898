"""The kernels of a TFLite file as they are stored: how many of their values are zero, and how many differ."""

from __future__ import annotations

import re
from pathlib import Path

from edgeml.compression.records import Kernel, kernel_of

PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
CALL = re.compile(r"_\d+$")  # TensorFlow's number of a call, behind a layer's name


def stored_kernels(path: Path) -> tuple[Kernel, ...]:
    """Return those of convolutions and dense layers, in the order in which they run, as integers or as floats.

    A kernel that the file makes from halves as it runs is none that it stores.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    reader = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    names = {tensor["index"]: tensor["name"] for tensor in reader.get_tensor_details()}
    found = []
    for operator in reader._get_ops_details():
        index = operator["inputs"][1] if operator["op_name"] in PRODUCTS else None
        if index is None:
            continue
        try:
            values = reader.get_tensor(index)
        except ValueError:  # no constant
            continue
        found.append(kernel_of(_layer(names[index]), values))
    return tuple(found)


def _layer(path: str) -> str:
    """Return the layer's part of a tensor's name: ``net_1/pointwise_1/convolution`` → ``pointwise``."""
    parts = path.partition(";")[0].split("/")
    return CALL.sub("", parts[-2] if len(parts) > 1 else parts[-1])
