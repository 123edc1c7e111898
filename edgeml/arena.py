"""The arena that TensorFlow Lite Micro needs for an int8 network, from its operators alone: head + tail.

    head   activations, each rounded up to 16 bytes, placed by TFLM's greedy planner        exact
    tail   quantization data and records of tensors and operators, a sum over the operators   a fit
           716 + 242 conv + 247 depthwise + 250 dense + … + 2 · 4 per channel                 within 1 %

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
TAIL_FIXED_BYTES = 716
# Fitted on 64 networks of all search spaces, 8 of them ensembles, tflite-micro 0.dev20261023182759: bytes per operator.
TAIL_BYTES = {
    "conv": 242, "depthwise": 247, "dense": 250, "add": 158, "activation": 120, "max_pool": 158, "avg_pool": 169,
    "global_pool": 206, "softmax": 186, "affine": 155, "view": 153,
}  # fmt: skip
ERROR = 0.01  # by which share the arena may be larger; 0.002 was the most seen among 49 networks not fitted on
TAIL_OTHER_BYTES = 160  # an operator of another kind: a node (64), its tensors (24 each), parameters
PER_CHANNEL = ("conv", "depthwise", "dense")
TENSOR_BYTES = 24  # TfLiteEvalTensor, of constants too
FUSED = ("linear", "relu", "relu6", "relu_n1_to_1")  # activations that a TFLite operator computes by itself
SEVERAL = {  # activations that become more than one operator: name, kind, what it reads ("": what is activated)
    "selu": [  # relu(λ x) + λ α / σ(relu(-x)), see ``targets._tracing``; - 2 λ α goes into the bias behind it
        ("line", "affine", ("",)), ("low", "affine", ("",)), ("sigmoid", "activation", ("low",)),
        ("bend", "affine", ("sigmoid",)), ("selu", "add", ("line", "bend")),
    ],
}  # fmt: skip
SELU_CONSTANTS = 3  # λ, -1 and λ α; the last one of all, - 2 λ α, is in biases
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
    turned = sum(aligned(o.weights * o.bytes_per_element) for o in operators if o.kind == "matmul")  # constants, copied
    return TAIL_FIXED_BYTES + records + turned + counted_tail_bytes(operators)


def counted_tail_bytes(operators: Sequence[Operator]) -> int:
    """Return what of the tail is no fit: multiplier and shift of each output channel, two int32 tensors per operator.

    Less the constants of selu, which the file holds once for all.
    """
    channels = sum(2 * aligned(4 * o.output_shape[-1]) for o in operators if _is_per_channel(o))
    sigmoids = {o.name for o in operators if o.kind == "activation" and o.activation == "sigmoid"}
    selus = sum(o.kind == "affine" and o.inputs[0] in sigmoids for o in operators) if sigmoids else 0
    return channels - TENSOR_BYTES * SELU_CONSTANTS * max(0, selus - 1)


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
    """Return a network's operators as they stand in its int8 file, in its order.

    Views come in, activations that TFLite lacks are written by others, scale and shift are two operators, sums those of
    two tensors. At a fork the branch whose first layer comes first by name runs first, and to its end.
    """
    operators = with_views(in_pairs(operators))
    apart = {o.name: written_apart(o)[-1].name for o in operators if is_apart(o)}
    found = []
    for operator in _in_order(operators):
        inputs = tuple(apart.get(name, name) for name in operator.inputs) if apart else operator.inputs
        if operator.kind == "affine" and operator.biases:
            found.append(Operator(f"{operator.name}/scale", "affine", inputs, operator.output_shape))
            inputs = (found[-1].name,)
        found.append(Operator(operator.name, operator.kind, inputs, operator.output_shape))
        if operator.name in apart:
            found += written_apart(operator)
    return found


def in_pairs(operators: Sequence[Operator]) -> list[Operator]:
    """Write sums of several tensors as sums of two."""
    found = []
    for operator in operators:
        if operator.kind == "add" and len(operator.inputs) > 2:
            before, *others, last = operator.inputs
            for number, other in enumerate(others):
                found.append(Operator(f"{operator.name}/{number}", "add", (before, other), operator.output_shape))
                before = found[-1].name
            found.append(operator._replace(inputs=(before, last)))
        else:
            found.append(operator)
    return found


def with_views(operators: Sequence[Operator]) -> list[Operator]:
    """Put a view before what reads its input in another shape, flattened or a window as an image: one for all of them.

    The converter merges views that are equal, those of several members too.
    """
    shapes = {operator.name: operator.output_shape for operator in operators}
    views: dict[tuple[str, int], str] = {}
    found = []
    for operator in operators:
        source, *others = operator.inputs or (operator.name,)
        if operator.kind in PER_CHANNEL and len(shapes[source]) != len(operator.output_shape):
            read = source, len(operator.output_shape)
            if read not in views:
                views[read] = f"{operator.name}/view"
                found.append(Operator(views[read], "view", (source,), shapes[source]))
            found.append(operator._replace(inputs=(views[read], *others)))
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
    """Return the operators in reverse postorder, the readers of a tensor by name, as TensorFlow imports a graph."""
    by_name = {operator.name: operator for operator in operators}
    readers: dict[str, list[str]] = {name: [] for name in by_name}
    for operator in operators:
        for name in dict.fromkeys(operator.inputs):
            readers[name].append(operator.name)
    waiting = [(name, False) for name in _sorted([o.name for o in operators if not o.inputs])]
    seen: set[str] = set()
    ended = []
    while waiting:
        name, has_ended = waiting.pop()
        if has_ended:
            ended.append(by_name[name])
        elif name not in seen:
            seen.add(name)
            waiting.append((name, True))
            waiting += [(reader, False) for reader in _sorted(readers[name])]
    return ended[::-1]


def _sorted(names: list[str]) -> list[str]:
    """Sort as TensorFlow does, where layer dense_1 is dense_1_1, behind dense_10_1."""
    return sorted(names, key=lambda name: name.replace("/", "_/") + "_") if len(names) > 1 else names


def is_apart(operator: Operator) -> bool:
    """Tell whether the activation of an operator becomes an operator of its own in a TFLite file."""
    return operator.kind != "activation" and operator.activation not in FUSED


def written_apart(operator: Operator) -> list[Operator]:
    """Return the operators that the activation of ``operator`` becomes in a TFLite file, in their order."""
    return [
        Operator(
            f"{operator.name}/{name}", kind, tuple(f"{operator.name}/{source}" if source else operator.name
                                                   for source in sources), operator.output_shape,
            activation=name if kind == "activation" else "linear",
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
