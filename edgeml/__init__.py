"""edgeml: from data and a budget to a proven bundle.

    recipe.yaml ─► data ─► search space ─► budgeted search ─► candidates ─► ensemble ─► folded Keras graph
                                                                                              │
                report ◄─ bundle ◄─ benchmark ◄─ verify ◄─ quantize / export (TFLite, ONNX) ◄─┘

The names below are imported when they are first used: importing edgeml imports no framework.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Budget": "edgeml.records",
    "Cost": "edgeml.records",
    "Limit": "edgeml.records",
    "budgeted": "edgeml.search.tuner",
    "cost": "edgeml.model_cost",
    "fold_batch_norm": "edgeml.folding",
    "fit_weights": "edgeml.ensemble",
    "compile_ensemble": "edgeml.ensemble",
    "compress": "edgeml.compression",
    "run_search": "edgeml.recipe_search",
    "quantize": "edgeml.quantization",
    "export": "edgeml.model_export",
    "export_best": "edgeml.model_export",
    "verify": "edgeml.checking",
    "benchmark": "edgeml.benchmarking",
}

_MODULES = ("callbacks", "layers", "trees", "tuners")  # edgeml.tuners.TPE and so on

__all__ = [*_PUBLIC, *_MODULES]  # noqa: PLE0604  (the keys are strings)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"edgeml.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgeml' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
