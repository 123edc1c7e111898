"""The arena that TensorFlow Lite Micro needs for an int8 network, from its operators alone: head + tail.

    head   activations, each rounded up to 16 bytes, placed by TFLM's greedy planner        exact
    tail   quantization data and records of tensors and operators, a sum over the operators   a fit
           776 + 245 conv + 245 depthwise + 223 dense + … + 8 per channel                     within 1 %

Greedy planner: the largest first, among equals the one made later; each at the lowest offset where it overlaps none
that is placed and alive at the same time (``greedy_memory_planner.cc``). Who is alive follows from the order in which
operators run: a file's is its own; of a network it is the one that the converter was seen to make. Shapes are taken as
channels last.

Measured on an x86-64 host with the reference kernels (``tools/arena_against_tflm``). On a 32-bit microcontroller
records take about half (not measured), so the tail should be an upper bound there; CMSIS-NN kernels need scratch memory
beside it, which is no part of the figure: ``cmsis_nn_margin_bytes``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from edgeml.operators import Operator

ALIGNMENT_BYTES = 16
TAIL_FIXED_BYTES = 776
# Fitted on 28 networks of all search spaces and 4 ensembles, tflite-micro 0.dev20261023182759: bytes per operator.
TAIL_BYTES = {
    "conv": 245, "depthwise": 245, "dense": 223, "add": 154, "activation": 120, "max_pool": 169, "avg_pool": 169,
    "global_pool": 180, "softmax": 180, "affine": 260,
}  # fmt: skip
ERROR = 0.01  # by which share the arena may be larger; 0.003 was the most seen among 24 networks not fitted on
TAIL_OTHER_BYTES = 160  # an operator of another kind: a node (64), its tensors (24 each), parameters
TAIL_CHANNEL_BYTES = 8  # multiplier and shift of each output channel
PER_CHANNEL = ("conv", "depthwise", "dense")
FUSED = ("linear", "relu", "relu6", "relu_n1_to_1")  # activations that a TFLite operator computes by itself
SEVERAL = {  # activations that become more than one operator: name, kind, what it reads ("": what is activated)
    "selu": [  # relu(λ x) + λ α / σ(relu(-x)), see ``targets._tracing``; - 2 λ α goes into the bias behind it
        ("line", "affine", ("",)), ("low", "affine", ("",)), ("sigmoid", "activation", ("low",)),
        ("bend", "affine", ("sigmoid",)), ("selu", "add", ("line", "bend")),
    ],
}  # fmt: skip
Buffer = tuple[int, int, int]  # bytes, first and last step at which it is alive


def arena_bytes(operators: Sequence[Operator], *, has_float_edges: bool = False) -> int:
    """Return the smallest arena for the int8 file that the converter makes of a network."""
    found = as_converted(operators)
    return file_arena_bytes(with_float_edges(found) if has_float_edges else found)


def file_arena_bytes(operators: Sequence[Operator]) -> int:
    """Return the smallest arena for a file's operators, in the order in which they stand."""
    return head_bytes(operators) + tail_bytes(operators)


def head_bytes(operators: Sequence[Operator]) -> int:
    """Return the bytes of activations as TFLM's greedy planner lays them out, operators run in the given order."""
    return planned_bytes(_buffers(operators))


def tail_bytes(operators: Sequence[Operator]) -> int:
    """Return what lies beside the activations; a fit, see ``TAIL_BYTES``."""
    kinds = Counter(operator.kind for operator in operators if operator.kind != "input")
    if "split" in kinds:  # a file lists each part, but one operator makes them all
        kinds["split"] = len({operator.inputs for operator in operators if operator.kind == "split"})
    records = sum(TAIL_BYTES.get(kind, TAIL_OTHER_BYTES) * count for kind, count in kinds.items())
    channels = sum(operator.output_shape[-1] for operator in operators if _is_per_channel(operator))
    return TAIL_FIXED_BYTES + records + TAIL_CHANNEL_BYTES * channels


def _is_per_channel(operator: Operator) -> bool:
    is_float_dense = operator.kind == "dense" and operator.bytes_per_element == 4
    return operator.kind in PER_CHANNEL and not is_float_dense


def cmsis_nn_margin_bytes(operators: Sequence[Operator]) -> int:
    """Return the scratch memory that CMSIS-NN's k x k convolutions ask for, the largest of them: 4 k² channels.

    Two columns of im2col in int16. From its documentation, not measured; no part of ``arena_bytes``.
    """
    shapes = {operator.name: operator.output_shape for operator in operators}
    return max(
        (
            4 * math.prod(operator.kernel) * shapes[operator.inputs[0]][-1]
            for operator in operators
            if operator.kind == "conv" and math.prod(operator.kernel) > 1
        ),
        default=0,
    )


def as_converted(operators: Sequence[Operator]) -> list[Operator]:
    """Return a network's operators as they stand in its int8 file: views and activations that TFLite lacks, its order.

    At a fork the shorter branch runs first, and each branch to its end: member after member, shortcuts before blocks.
    """
    operators = with_views(operators)
    apart = {o.name: written_apart(o)[-1].name for o in operators if is_apart(o)}
    found = []
    for operator in _in_order(operators):
        inputs = tuple(apart.get(name, name) for name in operator.inputs) if apart else operator.inputs
        found.append(Operator(operator.name, operator.kind, inputs, operator.output_shape))
        if operator.name in apart:
            found += written_apart(operator)
    return found


def with_views(operators: Sequence[Operator]) -> list[Operator]:
    """Put a view before each operator that reads its input in another shape: flattened, or a window as an image."""
    shapes = {operator.name: operator.output_shape for operator in operators}
    found = []
    for operator in operators:
        source, *others = operator.inputs or (operator.name,)
        if operator.kind in PER_CHANNEL and len(shapes[source]) != len(operator.output_shape):
            view = Operator(f"{operator.name}/view", "view", (source,), shapes[source])
            found.append(view)
            found.append(operator._replace(inputs=(view.name, *others)))
        else:
            found.append(operator)
    return found


def with_float_edges(operators: Sequence[Operator]) -> list[Operator]:
    """Let real numbers enter and leave an int8 file: each input is quantized, each output made real again."""
    read = {name for operator in operators for name in operator.inputs}
    inner = {operator.name: f"{operator.name}/quantize" for operator in operators if operator.kind == "input"}
    found = []
    for operator in operators:
        sources = tuple(inner.get(name, name) for name in operator.inputs)
        if operator.kind == "input":
            found.append(operator._replace(bytes_per_element=4))
            found.append(Operator(inner[operator.name], "quantize", (operator.name,), operator.output_shape))
            continue
        found.append(operator._replace(inputs=sources))
        if operator.name not in read:
            real = Operator(f"{operator.name}/real", "dequantize", (operator.name,), operator.output_shape)
            found.append(real._replace(bytes_per_element=4))
    return found


def _in_order(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operators depth first, the input that is nearest to the graph's own before the others."""
    by_name = {operator.name: operator for operator in operators}
    distance: dict[str, int] = {}
    for operator in operators:
        distance[operator.name] = 1 + max(map(distance.__getitem__, operator.inputs), default=0)
    read = {name for operator in operators for name in operator.inputs}
    stack = [operator.name for operator in reversed(operators) if operator.name not in read]
    order: dict[str, Operator] = {}
    while stack:
        operator = by_name[stack[-1]]
        waiting = [name for name in operator.inputs if name not in order]
        if waiting:
            stack.append(min(waiting, key=distance.__getitem__))
        else:
            order[stack.pop()] = operator
    return list(order.values())


def is_apart(operator: Operator) -> bool:
    """Tell whether the activation of an operator becomes an operator of its own in a TFLite file."""
    return operator.kind != "activation" and operator.activation not in FUSED


def written_apart(operator: Operator) -> list[Operator]:
    """Return the operators that the activation of ``operator`` becomes in a TFLite file, in their order."""
    return [
        Operator(
            f"{operator.name}/{name}", kind, tuple(f"{operator.name}/{source}" if source else operator.name
                                                   for source in sources), operator.output_shape,
        )
        for name, kind, sources in SEVERAL.get(operator.activation, [(operator.activation, "activation", ("",))])
    ]  # fmt: skip


def _buffers(operators: Sequence[Operator]) -> list[Buffer]:
    """Return size and life of every activation: from the step that makes it to the last that reads it."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    step = 0
    for operator in operators:
        step += operator.kind != "input"
        first[operator.name] = last[operator.name] = 0 if operator.kind == "input" else step
        for name in operator.inputs:
            last[name] = step
    return [(aligned(math.prod(o.output_shape) * o.bytes_per_element), first[o.name], last[o.name]) for o in operators]


def aligned(size: int) -> int:
    """Return the bytes that a tensor of ``size`` bytes takes."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def planned_bytes(buffers: Sequence[Buffer]) -> int:
    """Return the highest end of any buffer after greedy placement."""
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    for index in sorted(range(len(buffers)), key=lambda i: (buffers[i][0], i), reverse=True):
        size, first, last = buffers[index]
        offset = 0
        alive = sorted((start, end) for start, end, since, until in placed if since <= last and first <= until)
        for start, end in alive:
            if offset + size <= start:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, first, last))
    return max((end for _, end, _, _ in placed), default=0)
