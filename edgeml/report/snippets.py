"""A few lines of Python per target that run its first file: every input, every output, as the file takes them."""

from __future__ import annotations

import json

from markupsafe import Markup

from edgeml.report.views import Row, tensors

ENDS = {"int8": "-128, 127", "uint8": "0, 255", "int16": "-32768, 32767"}  # of what a file may take


def snippets(manifest: Row, files: list[Row]) -> list[Row]:
    """Return title and code per target; names are written as literals, so none can end the code block."""
    written = {"onnx": _onnx, "tflite": _tflite}
    inputs, outputs = tensors(manifest, "input"), tensors(manifest, "output")
    found: dict[str, Row] = {}
    for file in files:
        target = file.get("target")
        if target not in written or target in found or not all("shape" in one for one in inputs):
            continue
        names = ["x"] if len(inputs) == 1 else [f"x{place}" for place, _ in enumerate(inputs, 1)]
        made = [line for name, one in zip(names, inputs, strict=True) for line in _input(name, one, file, inputs)]
        lines = [*written[target](file, made, names, inputs, outputs), *_outputs(file, outputs)]
        code = "\n".join([*lines, _answer(manifest, outputs)])
        found[target] = {"title": file["path"], "code": Markup(code)}  # noqa: S704
    return list(found.values())


def _onnx(file: Row, made: list[str], names: list[str], inputs: list[Row], outputs: list[Row]) -> list[str]:
    fed = ", ".join(f"{json.dumps(one.get('name', 'image'))}: {x}" for one, x in zip(inputs, names, strict=True))
    wanted = json.dumps([one["name"] for one in outputs]) if all("name" in one for one in outputs) else "None"
    return [
        "import numpy as np, onnxruntime",
        f"session = onnxruntime.InferenceSession({json.dumps(file['path'])})",
        *made,
        f"results = session.run({wanted}, {{{fed}}})",
    ]


def _tflite(file: Row, made: list[str], names: list[str], _inputs: list[Row], outputs: list[Row]) -> list[str]:
    return [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        f"model = Interpreter({json.dumps(file['path'])}); model.allocate_tensors()",
        *made,
        *(f'model.set_tensor(model.get_input_details()[{place}]["index"], {x})' for place, x in enumerate(names)),
        "model.invoke()",
        f'results = [model.get_tensor(one["index"]) for one in model.get_output_details()[:{len(outputs)}]]',
    ]


def _input(variable: str, one: Row, file: Row, inputs: list[Row]) -> list[str]:
    """Make one input of the right shape, range and type."""
    low, high = one.get("range", (0, 1))
    size = ", ".join(str(int(n)) for n in [file.get("batch") or 1, *one["shape"]])
    meaning = json.dumps(f"{one.get('meaning', 'values')}, {low:g} to {high:g}")[1:-1]
    dtype = str(one.get("dtype", "float32"))
    if "float" not in dtype:
        drawn = f"np.random.randint({low:g}, {high + 1:g}, ({size}))"
        return [f"{variable} = {drawn}.astype(np.{json.dumps(dtype)[1:-1]})  # {meaning}"]
    lines = [f"{variable} = np.random.uniform({low:g}, {high:g}, ({size})).astype(np.float32)  # {meaning}"]
    if "divided_by" in one:
        lines.append(f"# {variable} = raw / np.array({json.dumps(one['divided_by'])})")
    taken = _quantized(file, "input", one, inputs)
    if "scale" in taken:
        dtype = str(taken.get("dtype")) if taken.get("dtype") in ENDS else "int8"
        steps = f"np.round({variable} / {taken['scale']!r}) + {taken.get('zero_point', 0)!r}"
        lines.append(f"{variable} = np.clip({steps}, {ENDS[dtype]}).astype(np.{dtype})")
    return lines


def _outputs(file: Row, outputs: list[Row]) -> list[str]:
    """Turn quantized outputs into real numbers."""
    lines = []
    for place, one in enumerate(outputs):
        given = _quantized(file, "output", one, outputs)
        if "scale" in given:
            integers = f"results[{place}].astype(np.float32)"
            lines.append(f"results[{place}] = ({integers} - {given.get('zero_point', 0)!r}) * {given['scale']!r}")
    return lines


def _answer(manifest: Row, outputs: list[Row]) -> str:
    """Print the class where there are classes, else what comes out."""
    task = manifest.get("task", {})
    if task.get("kind", "classification") != "classification":
        return "print([result.shape for result in results])"
    places = [place for place, one in enumerate(outputs) if "name" in one and one["name"] == task.get("output")]
    return f"print(results[{places[0] if places else 0}][0].argmax())"


def _quantized(file: Row, side: str, one: Row, listed: list[Row]) -> Row:
    """Return scale and zero point of an input or output; files of one each state them once."""
    stated = file.get("quantization", {})
    if len(listed) == 1:
        return dict(stated.get(side, {}))
    return dict(stated.get(f"{side}s", {}).get(one.get("name"), {}))
