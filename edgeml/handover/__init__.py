"""Short programs in a bundle that read an input, run a model file and say the label, filled from the manifest.

    manifest ─► facts (size, range, layout, labels, quantization) ─► templates, one per language ─► run_onnx.py, cpp/, …

Every text from outside becomes a literal of its language. Files of one input of fixed size and one output get programs;
for others the model card has the lines that run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeml.data.image_folder import FORMATS, MAX_MEGAPIXELS
from edgeml.handover.element_types import LEAST_AND_MOST, TYPES
from edgeml.handover.facts import facts
from edgeml.handover.literals import LITERALS


@dataclass(frozen=True)
class Program:
    """One program: its files, which target's files it runs, what it is, and whether our tests run it."""

    files: tuple[str, ...]
    target: str
    what: str
    is_run: bool
    images_only: bool = False


PROGRAMS = (
    Program(("run_onnx.py",), "onnx", "Python, onnxruntime", is_run=True),
    Program(("run_tflite.py",), "tflite", "Python, LiteRT", is_run=True),
    Program(("cpp/main.cc", "cpp/CMakeLists.txt"), "onnx", "C++, onnxruntime", is_run=True),
    Program(
        ("web/index.html", "web/classify.js", "web/package.json"),
        "onnx",
        "a page for a dropped image or the camera, onnxruntime-web",
        is_run=True,
        images_only=True,
    ),
    Program(
        ("android/LiteRtClassifier.kt", "android/litert.gradle.kts"),
        "tflite",
        "Kotlin, LiteRT for Android",
        is_run=False,
    ),
    Program(
        ("android/OnnxClassifier.kt", "android/onnxruntime.gradle.kts"),
        "onnx",
        "Kotlin, onnxruntime for Android",
        is_run=False,
    ),
    Program(("ios/OnnxClassifier.swift",), "onnx", "Swift, onnxruntime for iOS", is_run=False),
    Program(("ios/LiteRtClassifier.swift",), "tflite", "Swift, TensorFlow Lite for iOS", is_run=False),
)


def write(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Write the programs that a bundle's files have into ``folder``.

    Args:
        folder: the staged bundle.
        manifest: what is known of it; ``files`` names the model files at least.

    Returns:
        What the manifest says of each: ``files``, ``what``, ``run`` (whether our tests run it).
    """
    known = facts(manifest)
    written = []
    for program in PROGRAMS if known else ():
        models = known["models"].get(program.target)
        if not models or (program.images_only and not known["is_image"]):
            continue
        for name in program.files:
            text = _environment().get_template(f"{name}.j2").render(known, models=models, first=models[0])
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, "utf-8")
        written.append({"files": list(program.files), "what": program.what, "run": program.is_run})
    return written


def _environment() -> Environment:
    found = Environment(  # noqa: S701  (programs, not HTML: every text goes through a filter of LITERALS)
        loader=PackageLoader("edgeml.handover"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(LITERALS)
    found.globals.update(types=TYPES, limits=LEAST_AND_MOST, formats=FORMATS, megapixels=MAX_MEGAPIXELS)
    return found
