"""What is known of files before they are written: what goes in and comes out, labels, versions, origin.

The manifest begins with it, and so do the nameplates of the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeml import bundle, recipe_file
from edgeml.assembly import Graph
from edgeml.handover.facts import AS_GIVEN
from edgeml.kinds import kind_of
from edgeml.parity import MIXTURE, SOFTMAX, output_kinds
from edgeml.run_folder import RunFolder
from edgeml.runtimes.keras import output_names

Json = dict[str, Any]
LAYOUTS = {0: "N", 1: "NC", 2: "NWC", 4: "NDHWC"}  # by the number of sizes; images have one of two


def of_run(run: RunFolder, graph: Graph) -> Json:
    """Return what is known of the files of a run."""
    dataset, parts = run.dataset(), run.partition()["splits"]
    shape = graph.folding.model.input_shape[1:]
    kind, by = kind_of(shape), dataset.get("divided_by")
    return {
        **bundle.provenance(),
        "task": {"kind": "classification", "labels": dataset["labels"]},
        **_signature(
            [{"name": kind.sample, "shape": list(shape), "dtype": "float32", "layout": kind.layout,
              "range": dataset["value_range"], "meaning": dataset["meaning"], **({"divided_by": by} if by else {})}],
            [{"name": "probabilities", "shape": [len(dataset["labels"])], "meaning": "probabilities"}],
        ),
        "recipe_sha256": recipe_file.sha256(run.recipe),
        "data_sha256": hashlib.sha256(json.dumps([p["sha256"] for p in parts.values()]).encode()).hexdigest(),
    }  # fmt: skip


def of_model(model: Any, inputs: Mapping[str, NDArray[Any]], layout: str, labels: Sequence[str] | None) -> Json:
    """Return what is known of the files of any model; the range of ``inputs`` is what was seen of them."""
    named, count = classes(model)
    tells_classes = is_classifier(model, labels)
    labelled = list(labels or [f"class {i}" for i in range(count)]) if tells_classes else []

    def tensor(name: str, shape: Sequence[int]) -> dict[str, Any]:
        return {"name": name, "shape": list(shape), "layout": LAYOUTS.get(len(shape), layout)}

    return {
        **bundle.provenance(),
        "task": {"kind": "classification" if tells_classes else "other", "labels": labelled, "output": named},
        **_signature(
            [{**tensor(t.name, t.shape[1:]), "dtype": stated(t), "meaning": AS_GIVEN,
              "range": [inputs[t.name].min().item(), inputs[t.name].max().item()]} for t in model.inputs],
            [{**tensor(name, t.shape[1:]), "dtype": stated(t), "meaning": "as in Keras"}
             for name, t in zip(output_names(model), model.outputs, strict=True)],
        ),
        "recipe_sha256": None, "data_sha256": None,
    }  # fmt: skip


def is_classifier(model: Any, labels: Sequence[str] | None) -> bool:
    """Tell a model that says probabilities of classes, or whose values have names."""
    return labels is not None or bool({SOFTMAX, MIXTURE} & set(output_kinds(model)))


def classes(model: Any) -> tuple[str, int]:
    """Return the output that labels name the values of, the first softmax or the first, and how many values it has."""
    place = next((place for place, kind in enumerate(output_kinds(model)) if kind == SOFTMAX), 0)
    return output_names(model)[place], int((1, *model.outputs[place].shape[1:])[-1])


def stated(tensor: Any) -> str:
    """Return the type of an input or output as files have it: of real numbers float32."""
    return "float32" if "float" in tensor.dtype else str(tensor.dtype)


def _signature(inputs: list[Json], outputs: list[Json]) -> Json:
    """Return what goes in and comes out as the manifest states it: the first of each, and all."""
    return {"input": inputs[0], "output": outputs[0], "inputs": inputs, "outputs": outputs}
