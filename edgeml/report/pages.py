"""Templates filled in: the HTML page (escaped as HTML) and the model card (escaped as Markdown)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from edgeml.report import formats, plots, views
from edgeml.report.snippets import snippets

PIPELINES = ("image-classification", "tabular-classification")  # that the hub has of them
METRICS = {  # of a manifest's row: the hub's name, and words, but for the accuracy itself
    "accuracy": ("accuracy", ""),
    "balanced_accuracy": ("balanced_accuracy", "Mean recall of the classes"),
    "calibration_error": ("expected_calibration_error", "Expected calibration error"),
}
SECTION = re.compile(r'<section id="(\w+)">')
TASKS = {1: "tabular-classification", 2: "time-series-classification", 3: "image-classification"}  # by sizes


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
    found.filters.update(formats.FILTERS | {"sections": sections})
    return found


def sections(body: str) -> list[str]:
    """Return the ids of the sections of a page's body, in order."""
    return SECTION.findall(body)


def dashed(value: Any) -> Any:
    """Replace what is not known by a dash."""
    return value if formats.known(value) else formats.DASH


def front_matter(view: views.Row) -> views.Row:
    """Return the metadata that model hubs read; what the samples say of each precision is a metric of its own."""
    manifest, name = view["manifest"], view["title"]
    source = (view.get("recipe") or {}).get("data") or {}
    data = str(source.get("name") or source.get("source") or name)
    task = TASKS.get(len(manifest.get("input", {}).get("shape", "")), "")
    accuracy = view["told"]["accuracy"].capitalize()
    measured = [
        {"type": metric, "value": round(one[key], 4), "name": f"{words or accuracy}, {one.get('file')}"}
        for one in view["accuracies"]
        for key, (metric, words) in METRICS.items()
        if key in one
    ]
    tags = ["edgeml", "edge", "keras", *dict.fromkeys(file["target"] for file in view["files"] if "target" in file)]
    kind = manifest.get("task", {}).get("kind")
    tags += [task] if kind == "classification" and task else []
    front: views.Row = {"library_name": "edgeml", "tags": tags}
    if kind == "classification" and task in PIPELINES:
        front["pipeline_tag"] = task
    if measured:
        result = {
            "task": {"type": task or "other"},
            "dataset": {"name": data, "type": data, "split": view["told"]["short"]},
            "metrics": measured,
        }
        front |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": [result]}]}
    return front
