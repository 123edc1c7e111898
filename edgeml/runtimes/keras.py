"""Keras itself: the reference that every file is compared with."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, IntegrityError
from edgeml.runtimes import Arrays, Made, Signature, Tensor, range_of

SUFFIX = ".keras"
LIBRARY = "keras"
BATCH = 64  # all activations of a batch are held at once


def version() -> str:
    """Return name, version and backend."""
    import keras

    return f"keras {keras.__version__} ({keras.backend.backend()})"


def open_model(path: Path, threads: int = 1) -> Reference:
    """Open a ``.keras`` file."""
    return Reference(load(path))


def load(path: Path) -> Any:
    """Load a ``.keras`` file of our own, uncompiled, with ``safe_mode`` on; what others saved goes through ``foreign``.

    Raises:
        DataError: not a Keras model, or one with classes that are unknown here.
        IntegrityError: it holds Python code (a Lambda layer), which is not run.
    """
    import keras

    import edgeml.layers  # noqa: F401  (finalists may have them)

    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not a Keras model (a .keras file is a zip archive). Save it with model.save(...).")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:300]
        if "lambda" in reason.lower() and "safe" in reason.lower():
            raise IntegrityError(f"{path}: holds Python code (Lambda layer), which is not run: {reason}") from error
        raise DataError(f"{path}: Keras cannot load it: {reason}") from error


def functional(model: Any) -> Any:
    """Return a Sequential model as the functional one that it is, with names of its outputs; others as they are."""
    import keras

    if not isinstance(model, keras.Sequential):
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def output_names(model: Any) -> list[str]:
    """Return what a model calls its outputs: the keys of the dict that it returns, else its output layers' names."""
    model = functional(model)
    returned = getattr(model, "_outputs_struct", None)
    if type(returned) is dict and len(returned) == len(model.outputs):
        return sorted(map(str, returned))  # as Keras flattens it
    found: list[str] = []
    for name in model.output_names:  # of a layer that is called twice it is the same
        again = sum(other == name or other.startswith(f"{name}_") for other in found) if name in found else 0
        found.append(f"{name}_{again}" if again else name)
    return found


def leaves(model: Any, *inside: str) -> dict[str, Any]:
    """Return the layers of a model by name, those of models inside it by path: ``member_0/conv_1``."""
    found: dict[str, Any] = {}
    for layer in getattr(model, "layers", ()):  # a stand-in for a model has none
        path = (*inside, layer.name)
        found |= leaves(layer, *path) if hasattr(layer, "layers") else {"/".join(path): layer}
    return found


class Reference:
    """A Keras model behind the ``Loaded`` protocol."""

    def __init__(self, model: Any) -> None:
        self._model = model = functional(model)
        self.runtime = version()
        names = output_names(model)
        self.signature = Signature(
            tuple(Tensor(t.name, tuple(t.shape), str(t.dtype)) for t in model.inputs),
            tuple(Tensor(n, tuple(t.shape), str(t.dtype)) for n, t in zip(names, model.outputs, strict=True)),
        )

    def predict(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run all rows, in inference mode."""
        rows = len(next(iter(inputs.values())))
        parts = [self._run({n: v[i : i + BATCH] for n, v in inputs.items()}) for i in range(0, rows, BATCH)]
        names = [t.name for t in self.signature.outputs]
        return {n: np.concatenate([part[i] for part in parts]) for i, n in enumerate(names)}

    def _run(self, batch: Arrays) -> list[NDArray[np.float32]]:
        import keras

        fed = [np.asarray(batch[t.name], t.dtype) for t in self.signature.inputs]
        result = self._model(keras.tree.pack_sequence_as(self._model.input, fed), training=False)
        return [np.asarray(keras.ops.convert_to_numpy(output), np.float32) for output in keras.tree.flatten(result)]

    def single(self, inputs: Arrays, rows: int = 1) -> Callable[[], None]:
        """Prepare one inference on the first rows."""
        batch = {name: values[:rows] for name, values in inputs.items()}

        def call() -> None:
            self._run(batch)

        return call

    def layers(self, inputs: Arrays) -> list[Made]:
        """Return what every layer makes of all rows, in the order of calls; those of models inside models, too."""
        import keras

        found: list[Made] = []

        def note(name: str, layer: Any, entered: Any, left: Any) -> None:
            arrays, outputs = ([_array(t) for t in keras.tree.flatten(side) if keras.ops.is_tensor(t)]
                               for side in (entered, left))  # fmt: skip
            for output in outputs:
                found.append(Made(name, type(layer).__name__, range_of(arrays), output.astype(np.float32)))

        with _overheard(self._model, note):
            self._run(inputs)
        return found


def _array(tensor: Any) -> NDArray[Any]:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


@contextmanager
def _overheard(model: Any, note: Callable[[str, Any, Any, Any], None]) -> Iterator[None]:
    """Tell ``note`` of every call of a layer: its name, the layer, what enters and what leaves it."""
    heard = {id(layer): (name, layer) for name, layer in leaves(model).items()}.values()  # each once

    def listening(name: str, layer: Any) -> Callable[..., Any]:
        own = layer.call

        def call(*args: Any, **options: Any) -> Any:
            result = own(*args, **options)
            note(name, layer, args, result)
            return result

        return call

    for name, layer in heard:
        object.__setattr__(layer, "call", listening(name, layer))  # Keras tracks what is set in its own way
    try:
        yield
    finally:
        for _, layer in heard:
            object.__delattr__(layer, "call")
