"""What TensorBoard shows of a network: scalars, hyper-parameters, histograms, and the embedding of samples.

    <folder>/events.out.tfevents.…      every epoch: its metrics; weights and activations as histograms; HParams
    <folder>/events.out.tfevents.….end  of a network whose process was ended from outside: it failed
    <folder>/projector_config.pbtxt     with tensors.tsv, metadata.tsv and sprite.png: what the classifier sees

Written by TensorBoard's own code, which needs no TensorFlow, so it is the same on every backend. The format of event
files: TFRecords of ``Event`` protocol buffers (tensorboard/compat/proto/event.proto).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 256  # whose activations are looked at
LAYERS = 6  # whose activations are shown, spread over the depth
SPRITE_PIXELS = 64  # largest side of a sample in the sprite; TensorBoard takes sprites of up to 8,192 pixels


@dataclass(frozen=True)
class Samples:
    """Samples to look at: ``(N, …)``, as a sprite if they are images; each one's class, and the range of values."""

    x: NDArray[Any]
    names: Sequence[str]
    value_range: tuple[float, float]


class Board:
    """What TensorBoard reads of one network, in ``folder``, which is emptied first.

    The callback writes every epoch; ``end`` writes what came of the network, so it has to be called however training
    ends. The status of a session without an end is unknown; ``end_lost`` ends one from another process.
    """

    def __init__(self, folder: Path, hyperparameters: Mapping[str, Any], samples: Samples) -> None:
        self._folder, self._hyperparameters, self._samples = folder, hyperparameters, samples
        self._events: _Events | None = None
        self._probe: _Probe | None = None
        self._epoch = 0

    def begin(self) -> Any:
        """Begin the session; return the Keras callback of its network."""
        import keras

        shutil.rmtree(self._folder, ignore_errors=True)  # of a trial that was tried before
        self._folder.mkdir(parents=True)
        board, events = self, _Events(self._folder)
        self._events = events
        events.start(self._folder.name, self._hyperparameters)

        class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
            """Writes at every epoch."""

            def on_train_begin(self, logs: Any = None) -> None:
                board._probe = self._probe = _Probe(self.model)

            def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
                board._epoch = epoch
                for name, value in (logs or {}).items():
                    events.scalar(name, float(value), epoch)
                for weight in self.model.weights:
                    events.histogram(f"weights/{weight.path}", weight.numpy(), epoch)
                for name, values in self._probe.activations(board._samples.x).items():
                    events.histogram(f"activations/{name}", values, epoch)

        return Recorder()

    def end(self, scores: Mapping[str, float] | None, *, embedding: bool = False) -> None:
        """End a session that has begun, with ``score/<name>`` for each of ``scores``; None: the network has none.

        ``embedding`` of the samples, by the weights as they are now.
        """
        if self._events is None:
            return
        for name, value in (scores or {}).items():
            self._events.scalar(f"score/{name}", value, self._epoch)
        self._events.end(is_success=scores is not None)
        if embedding and self._probe is not None:
            write_embedding(self._folder, self._probe.embedding(self._samples.x), self._samples)


def folder_of(root: Path, name: str, *, is_finalist: bool = False) -> Path:
    """Return the folder of a trial or finalist of the run in ``root``."""
    return root / "tensorboard" / (f"finalist_{name}" if is_finalist else name)


def end_lost(folder: Path) -> None:
    """End the session in ``folder``, if there is one, as failed: its process was killed before it could.

    In a file of its own, which TensorBoard reads after the other: that one may end in half a record.
    """
    if folder.is_dir():
        _Events(folder, suffix=".end").end(is_success=False)


class _Events:
    """An event file; of several in a folder, TensorBoard reads one after the other, by name."""

    def __init__(self, folder: Path, suffix: str = "") -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = Event
        self._file = (folder / f"events.out.tfevents.{int(time.time())}.edgeml{suffix}").open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def start(self, name: str, hyperparameters: Mapping[str, Any]) -> None:
        """Write hyper-parameters; without a name of its own, a finalist would be averaged with its trial."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        known = {name: value if isinstance(value, (bool, int, float)) else str(value)
                 for name, value in hyperparameters.items()}  # fmt: skip
        self._write(summary=hparams_pb(known, trial_id=name))
        self._file.flush()  # its process may be killed before it writes more

    def scalar(self, name: str, value: float, step: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(summary=scalar_pb(name, value), step=step)

    def histogram(self, name: str, values: NDArray[Any], step: int) -> None:
        """Write a histogram of the finite values."""
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb

        self._write(summary=histogram_pb(name, values[np.isfinite(values)]), step=step)
        self._file.flush()

    def end(self, *, is_success: bool) -> None:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.summary_v2 import _summary_pb

        status = api_pb2.STATUS_SUCCESS if is_success else api_pb2.STATUS_FAILURE
        info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
        self._write(summary=_summary_pb(metadata.SESSION_END_INFO_TAG, data))
        self._file.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


class _Probe:
    """Looks into a network: a Keras model, or a scaling in front of one."""

    def __init__(self, model: Any) -> None:
        import keras

        nested = [layer for layer in model.layers if isinstance(layer, keras.Model)]
        self._network = nested[0] if nested else model
        self._before = model.layers[1 : model.layers.index(nested[0])] if nested else []
        layers = [layer for layer in self._network.layers if not isinstance(layer, keras.layers.InputLayer)]
        acts = [layer for layer in layers if isinstance(layer, (keras.layers.Activation, keras.layers.ReLU))] or layers
        places = sorted({round(place) for place in np.linspace(0, len(acts) - 1, LAYERS)})
        self._shown = [acts[place] for place in places]
        dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
        penultimate = dense[-1].input if dense else layers[-1].input
        outputs = [*(layer.output for layer in self._shown), penultimate]
        self._model = keras.Model(self._network.inputs, outputs)

    def activations(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip((layer.name for layer in self._shown), self._outputs(images), strict=False))

    def embedding(self, images: NDArray[Any]) -> NDArray[Any]:
        return self._outputs(images)[-1].reshape(len(images), -1)

    def _outputs(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        import keras

        x = keras.ops.convert_to_tensor(np.asarray(images, "float32"))
        for layer in self._before:
            x = layer(x)
        return [keras.ops.convert_to_numpy(output) for output in self._model(x, training=False)]


def write_embedding(folder: Path, vectors: NDArray[Any], samples: Samples) -> None:
    """Write what TensorBoard's projector reads: a vector, a class and an image per sample."""
    np.savetxt(folder / "tensors.tsv", vectors, fmt="%.6g", delimiter="\t")
    names = [" ".join(name.split()) for name in samples.names]
    (folder / "metadata.tsv").write_text("\n".join(names) + "\n", "utf-8")
    sprite = _sprite(samples)
    shown = ""
    if sprite is not None:
        image, height, width = sprite
        image.save(folder / "sprite.png")
        shown = f'  sprite {{ image_path: "sprite.png" single_image_dim: {width} single_image_dim: {height} }}\n'
    config = f'embeddings {{\n  tensor_name: "penultimate"\n  tensor_path: "tensors.tsv"\n{shown}'
    (folder / "projector_config.pbtxt").write_text(f'{config}  metadata_path: "metadata.tsv"\n}}\n', "utf-8")


def _sprite(samples: Samples) -> tuple[Any, int, int] | None:
    """Lay the images out in rows of a square, with the height and width of one; None if they have no colours."""
    from PIL import Image

    images = np.asarray(samples.x, "float32")
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        return None
    every = math.ceil(max(images.shape[1:3]) / SPRITE_PIXELS)
    images = images[:, ::every, ::every]
    low, high = samples.value_range
    pixels = np.clip(255 * (images - low) / max(high - low, 1e-12), 0, 255).astype("uint8")
    count, height, width, channels = pixels.shape
    side = math.ceil(math.sqrt(count))
    sheet = np.zeros((side, side, height, width, channels), "uint8")
    sheet.reshape(-1, height, width, channels)[:count] = pixels
    rows = sheet.transpose(0, 2, 1, 3, 4).reshape(side * height, side * width, channels)
    return Image.fromarray(rows[..., 0] if channels == 1 else rows), height, width
