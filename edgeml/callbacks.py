"""Keras callbacks: a proven bundle of the best epoch, kept while a model trains."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from edgeml import bundle
from edgeml.errors import UsageError
from edgeml.model_export import export

HIGHER_IS_BETTER = re.compile(r"acc|auc|precision|recall|f1|f_?beta|iou|r2")


class ExportBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Export the model after every epoch that is better than all before; the folder always holds a whole bundle.

    An export takes seconds to minutes, and training waits for it; ``from_epoch`` leaves the early ones out.

    Args:
        out: the bundle's folder; what is there is replaced when the next bundle is proven.
        monitor: a metric of the epoch.
        mode: ``min``, ``max``, or ``auto``: ``max`` for metrics named after accuracy, AUC, precision, recall, F1, IoU.
        from_epoch: the first epoch, from 0, that may be exported.
        options: further arguments of ``edgeml.export``; operators are timed only with ``profile=True``.

    Raises:
        UsageError: an unknown mode; an occupied folder; an epoch without that metric.
    """

    def __init__(
        self, out: str | Path, monitor: str = "val_loss", mode: str = "auto", from_epoch: int = 0, **options: Any
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise UsageError(f"ExportBest: mode '{mode}'; auto, min and max are allowed.")
        rises = mode == "max" or (mode == "auto" and HIGHER_IS_BETTER.search(monitor) is not None)
        self.sign = 1.0 if rises else -1.0
        self.out, self.monitor, self.from_epoch, self.options = Path(out), monitor, from_epoch, options
        self.best: float | None = None
        self.best_epoch: int | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Refuse an occupied folder before anything is trained."""
        del logs
        bundle.check_place(self.out)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Export the model if this epoch is the best."""
        found = dict(logs or {})
        if self.monitor not in found:
            known = ", ".join(sorted(found)) or "none"
            raise UsageError(f"ExportBest: no metric '{self.monitor}' after epoch {epoch}; there are {known}.")
        value = float(found[self.monitor])
        is_better = self.best is None or self.sign * value > self.sign * self.best
        if epoch < self.from_epoch or math.isnan(value) or not is_better:
            return
        export(self.model, self.out, **{"profile": False, **self.options})
        self.best, self.best_epoch = value, epoch
