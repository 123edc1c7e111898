"""Templates filled in: the HTML page (escaped as HTML) and the model card (escaped as Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from edgeml.report import formats, plots, views


def html_page(report: Mapping[str, Any]) -> str:
    """Fill the HTML page."""
    view = views.page(report)
    recipe = yaml.safe_dump(view["recipe"], sort_keys=False, allow_unicode=True) if "recipe" in view else None
    style = Markup(PackageLoader("edgeml.report").get_source(Environment(), "style.css")[0])  # noqa: S704, S701  (ours)
    return (
        environment("html")
        .get_template("page.html.j2")
        .render(view, plots=plots.every(view), recipe_yaml=recipe, style=style)
    )


def card(report: Mapping[str, Any]) -> str:
    """Fill the model card."""
    view = views.page(report)
    front = yaml.safe_dump(front_matter(view), sort_keys=False, allow_unicode=True)
    return (
        environment("markdown")
        .get_template("card.md.j2")
        .render(
            view,
            front_matter=Markup(front),  # noqa: S704  (YAML quotes what needs it)
            shell_command=fenced(view.get("command", "")),
            snippets=snippets(view["manifest"], view["files"]),
        )
    )


def fenced(text: str) -> Markup:
    """Put a line inside a code block that it cannot end."""
    return Markup(" ".join(text.replace("```", "` ` `").split()))  # noqa: S704  (nothing is markup in a code block)


@cache
def environment(kind: str) -> Environment:
    """Return the templates with escaping for one kind of page; a value that is absent prints as a dash."""
    found = Environment(
        loader=PackageLoader("edgeml.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=dashed if kind == "html" else formats.markdown,
    )
    found.filters.update(formats.FILTERS)
    return found


def dashed(value: Any) -> Any:
    """Replace what is not known by a dash."""
    return value if formats.known(value) else formats.DASH


def front_matter(view: views.Row) -> views.Row:
    """Return the metadata that model hubs read; the test accuracy of each precision as its own result."""
    manifest, name = view["manifest"], view["title"]
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": name, "type": name, "split": "test"},
            "metrics": [{"type": "accuracy", "value": round(one["accuracy"], 4), "name": one.get("file")}],
        }
        for one in view["accuracies"]
    ]
    tags = ["edgeml", "edge", "keras", *dict.fromkeys(file["target"] for file in view["files"] if "target" in file)]
    kind = manifest.get("task", {}).get("kind")
    front: views.Row = {"library_name": "edgeml", "tags": [*tags, *([f"image-{kind}"] if kind else [])]}
    if results:
        front |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": results}]}
    return front


def snippets(manifest: views.Row, files: list[views.Row]) -> list[views.Row]:
    """Return a few lines of Python per target that run its first file."""
    written = {"onnx": onnx_lines, "tflite": tflite_lines}
    found: dict[str, views.Row] = {}
    for file in files:
        target = file.get("target")
        if target in written and target not in found and "shape" in manifest.get("input", {}):
            lines = written[target](manifest["input"], file)
            found[target] = {"title": file["path"], "code": Markup("\n".join(lines))}  # noqa: S704  (all names as literals)
    return list(found.values())


def onnx_lines(source: views.Row, file: views.Row) -> list[str]:
    """Run an ONNX file; names are written as literals, so none can end the code block."""
    return [
        "import numpy as np, onnxruntime",
        f"session = onnxruntime.InferenceSession({json.dumps(file['path'])})",
        *input_lines(source, file),
        f"probabilities = session.run(None, {{{json.dumps(source.get('name', 'image'))}: x}})[0]",
        *output_lines(file),
        "print(probabilities[0].argmax())",
    ]


def tflite_lines(source: views.Row, file: views.Row) -> list[str]:
    """Run a TFLite file."""
    return [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        f"model = Interpreter({json.dumps(file['path'])}); model.allocate_tensors()",
        *input_lines(source, file),
        'model.set_tensor(model.get_input_details()[0]["index"], x); model.invoke()',
        'probabilities = model.get_tensor(model.get_output_details()[0]["index"])',
        *output_lines(file),
        "print(probabilities[0].argmax())",
    ]


def input_lines(source: views.Row, file: views.Row) -> list[str]:
    """Make one input of the right shape, range and type."""
    low, high = source.get("range", (0, 1))
    size = ", ".join(str(int(one)) for one in source["shape"])
    meaning = json.dumps(f"{source.get('meaning', 'values')}, {low:g} to {high:g}")[1:-1]
    lines = [f"x = np.random.uniform({low:g}, {high:g}, (1, {size})).astype(np.float32)  # {meaning}"]
    taken = file.get("quantization", {}).get("input", {})
    if "scale" in taken:
        dtype = "uint8" if taken.get("dtype") == "uint8" else "int8"
        ends = "0, 255" if dtype == "uint8" else "-128, 127"
        quantized = f"np.round(x / {taken['scale']!r}) + {taken.get('zero_point', 0)!r}"
        lines.append(f"x = np.clip({quantized}, {ends}).astype(np.{dtype})")
    return lines


def output_lines(file: views.Row) -> list[str]:
    """Turn a quantized output into probabilities."""
    given = file.get("quantization", {}).get("output", {})
    if "scale" not in given:
        return []
    return [f"probabilities = (probabilities.astype(np.float32) - {given.get('zero_point', 0)!r}) * {given['scale']!r}"]
