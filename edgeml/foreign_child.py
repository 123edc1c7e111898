"""The process that opens a foreign model: ``python -m edgeml.foreign_child MODEL PLAIN.keras ANSWER.json [OBJECT…]``.

    what it is                   how it is read
    .keras, .h5 of Keras 3       Keras, ``safe_mode`` on
    .h5 of Keras 2               Keras; where it cannot, tf_keras writes it again in names that Keras 3 takes
    SavedModel of Keras 2        tf_keras, likewise

A model that went through tf_keras is compared with what it was, on random inputs. Nothing is read before the
architecture was looked at: Python code in it, or a text of more than ``MOST_TEXT_MB``, is refused. The answer is
``{}``, or kind and message of an error.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import DataError, EdgemlError, IntegrityError

MOST_TEXT_MB = 64  # of the description of an architecture; the largest of keras.applications has 1
MOST_ZIP_MB = 16_000  # of all that a .keras file unpacks to
TWIN_ROWS, TWIN_ERROR = 4, 1e-5  # of the output range
UNKNOWN = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|class|object|[\w ]+ function):?) '?(?:\w+>)?(\w+)"
)
KERAS_2_ONLY = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod")  # how Keras 2 keeps bare TensorFlow
FAILURES = (ValueError, TypeError, KeyError, OSError, AttributeError, RuntimeError, IndexError, zipfile.BadZipFile)


def main(source: str, plain: str, answer: str, objects: Sequence[str]) -> None:
    """Open a model, write it as a plain ``.keras`` file, and say what went wrong."""
    from edgeml.foreign import imported

    told = {}
    try:
        opened(Path(source), imported(objects)).save(plain)
    except EdgemlError as error:
        told = {"kind": type(error).__name__, "message": str(error)}
    except Exception as error:  # noqa: BLE001  (whatever a foreign file brings about)
        told = {"kind": "DataError", "message": f"{source}: cannot be opened: {_line(error)}"}
    Path(answer).write_text(json.dumps(told), "utf-8")


def opened(path: Path, known: dict[str, Any]) -> Any:
    """Load a model.

    Raises:
        DataError: not a whole Keras model, or layers that are not known. IntegrityError: it is not safe to open.
    """
    if path.is_dir():
        _refuse_code(path, [{"class_name": "Lambda"}] if b'"Lambda"' in _metadata(path) else [])
        return _by_way_of_keras_2(path, known)
    _refuse_code(path, list(_dicts(_architecture(path))))
    try:
        return _loaded(path, known)
    except FAILURES as error:
        unknown = UNKNOWN.search(str(error))
        if path.suffix == ".keras" or unknown:
            raise _refusal(path, error) from error
        try:
            return _by_way_of_keras_2(path, known)
        except FAILURES:
            raise _refusal(path, error) from error


def _loaded(path: Path, known: dict[str, Any]) -> Any:
    import keras

    import edgeml.layers  # noqa: F401  (its layers are known)

    shim = {} if path.suffix == ".keras" else {"DepthwiseConv2D": _Keras2Depthwise}
    return _bare(keras.models.load_model(path, custom_objects={**shim, **known}, compile=False, safe_mode=True))


def _bare(model: Any) -> Any:
    """Let a model whose one input was saved as a list of one (Keras 2 did) take the input itself, without a warning."""
    import keras

    if not (isinstance(getattr(model, "_inputs_struct", None), list) and len(model.inputs) == 1):
        return model
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
    return keras.Model(model.inputs[0], outputs, name=model.name)


class _Keras2Depthwise:
    """Reads DepthwiseConv2D out of .h5 files of Keras 2, whose ``groups`` Keras 3.15 refuses; it was always 1."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        import keras

        return keras.layers.DepthwiseConv2D.from_config({k: v for k, v in config.items() if k != "groups"})


def _refusal(path: Path, error: Exception) -> EdgemlError:
    found = UNKNOWN.search(str(error))
    if found and found[1] in KERAS_2_ONLY:
        return DataError(
            f"{path}: '{found[1]}' is a bare TensorFlow operation of Keras 2, which Keras 3 cannot read. Save the model"
            " with Keras 3, or write the operation as a layer."
        )
    if found:
        return DataError(
            f"{path}: layer or function '{found[1]}' is not known here. Give your own code for it: --custom-objects"
            f" module:{found[1]}."
        )
    return DataError(f"{path}: Keras cannot load it: {_line(error)}")


# ---- what a file says of itself


def _architecture(path: Path) -> Any:
    """Return the description of the architecture, as nested dicts and lists."""
    try:
        text = _keras_text(path) if path.suffix == ".keras" else _h5_text(path)
        return json.loads(text)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a Keras model: {_line(error)}. Save it with model.save(...).") from error


def _keras_text(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size / 2**20 for info in archive.infolist()}
        if sizes.get("config.json", 0) > MOST_TEXT_MB or sum(sizes.values()) > MOST_ZIP_MB:
            raise IntegrityError(
                f"{path}: unpacks to {sum(sizes.values()):,.0f} MiB, {sizes.get('config.json', 0):,.0f} of them"
                f" architecture; {MOST_ZIP_MB:,} and {MOST_TEXT_MB} are allowed."
            )
        return archive.read("config.json")


def _h5_text(path: Path) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        if text is None:
            raise DataError(
                f"{path}: holds weights only, no architecture. Build the model in Python, load them with"
                " model.load_weights(...), then call edgeml.export(model, ...) or save it with model.save(...)."
            )
        if len(text) > MOST_TEXT_MB * 2**20:
            raise IntegrityError(f"{path}: {len(text) / 2**20:,.0f} MiB of architecture; {MOST_TEXT_MB} are allowed.")
        return text


def _metadata(path: Path) -> bytes:
    beside = path / "keras_metadata.pb"
    return beside.read_bytes() if beside.is_file() else b""


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _dicts(inner)


def _refuse_code(path: Path, parts: Sequence[dict[str, Any]]) -> None:
    for part in parts:
        if _holds_code(part):
            name = (part.get("config") or {}).get("name")
            raise IntegrityError(
                f"{path}: holds Python code (Lambda layer{f' {name!r}' if name else ''}), which is not run. Write that"
                " step as a layer or with keras.ops, and save the model again."
            )


def _holds_code(part: dict[str, Any]) -> bool:
    """Tell a Lambda layer whose function is byte code; one that is named is looked up like any class."""
    if part.get("class_name") != "Lambda":
        return part.get("class_name") == "__lambda__"
    function = (part.get("config") or {}).get("function")
    return not (isinstance(function, str) or (isinstance(function, dict) and function.get("class_name") == "function"))


# ---- Keras 2


def _by_way_of_keras_2(path: Path, known: dict[str, Any]) -> Any:
    """Let tf_keras read the model and write it again as an .h5 file that Keras 3 takes."""
    import tf_keras

    try:
        old = tf_keras.models.load_model(path, custom_objects=known, compile=False)
    except FAILURES as error:
        raise _refusal(path, error) from error
    if not isinstance(old, tf_keras.Model) or not getattr(old, "_is_graph_network", False):
        raise DataError(
            f"{path}: a SavedModel without a Keras model in it: what it computes is known to TensorFlow alone. Save the"
            " model with model.save('model.keras')."
        )
    slashed = {layer.name for layer in old._flatten_layers() if "/" in layer.name}
    if slashed:
        weights = old.get_weights()
        old = type(old).from_config(_renamed(old.get_config(), slashed), custom_objects=known)
        old.set_weights(weights)
    with tempfile.TemporaryDirectory() as place:
        beside = Path(place) / "model.h5"
        old.save(beside, include_optimizer=False)
        new = _loaded(beside, known)
    _check_twin(path, old, new)
    return new


def _renamed(config: Any, slashed: set[str]) -> Any:
    """Return a config with the names in ``slashed`` spelled without a slash, wherever they stand."""
    if isinstance(config, dict):
        return {key: _renamed(value, slashed) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_renamed(value, slashed) for value in config)
    return config.replace("/", "_") if isinstance(config, str) and config in slashed else config


def _check_twin(path: Path, old: Any, new: Any) -> None:
    """Hold what Keras 3 computes against what tf_keras does, on random inputs.

    Raises:
        DataError: they differ.
    """
    import keras

    rng = np.random.default_rng(0)
    rows = [rng.uniform(0, 1, (TWIN_ROWS, *(size or 8 for size in t.shape[1:]))).astype(t.dtype) for t in new.inputs]
    fed = rows if len(rows) > 1 else rows[0]
    want = [np.asarray(part) for part in keras.tree.flatten(old.predict(fed, verbose=0))]
    have = [np.asarray(part) for part in keras.tree.flatten(new.predict(fed, verbose=0))]
    error = max(float(np.abs(a - b).max() / (np.ptp(a) or 1.0)) for a, b in zip(want, have, strict=True))
    if not error <= TWIN_ERROR:
        raise DataError(f"{path}: Keras 3 computes something else than Keras 2 did ({error:.1e} of the output range).")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
