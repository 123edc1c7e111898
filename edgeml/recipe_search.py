"""A recipe's search from Python, with callbacks of one's own: what ``edgeml search`` does.

    recipe = "recipes/digits.yaml"
    candidates = edgeml.run_search(recipe, callbacks=[keras.callbacks.EarlyStopping(patience=3), mine.Notes()])

The run that it leaves goes on like any other: ``edgeml export runs/digits``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edgeml import pipeline, recipe_file, run_folder
from edgeml.records import Event
from edgeml.search import space
from edgeml.search.candidates import Candidate
from edgeml.search.engine import InProcess


def run_search(
    recipe: str | Path,
    root: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Any] = (),
    finalists: bool = False,
    in_process: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> list[Candidate]:
    """Search as a recipe says; return the trials by number, or the trained finalists if they are asked for.

    Each network gets deep copies of the callbacks, as with KerasTuner: what one is to remember belongs into a file.
    Finalists follow a cosine schedule, so a callback that sets the learning rate fails there.

    Args:
        recipe: a recipe's file.
        root: the run's folder; ``runs/<name>`` if it is left out.
        overrides: ``key=value``, as with ``--set``.
        callbacks: Keras callbacks for every trial and finalist; child processes get them as pickles.
        finalists: train the best candidates to the end, too.
        in_process: train in this process, one network after the other: any callback will do, memory and time of a trial
            are not limited, and a network that crashes takes this process with it.
        resume: go on with the run that is there.
        overwrite: replace the run that is there.
        on_event: is told of every trial and epoch.

    Raises:
        UsageError: the folder is occupied, or callbacks cannot go to a child process.
        RecipeError, DataError, BudgetError, TrialsError: as with ``edgeml search``.
    """
    read = recipe_file.read(Path(recipe), list(overrides))
    place = Path("runs") / read.name if root is None else Path(root)
    run = run_folder.begin(place, read, resume=resume, overwrite=overwrite, keep_finished=False)
    try:
        arrays = pipeline.prepare(run, on_event)
        here = InProcess(run, space.of_run(run, arrays), arrays, callbacks=callbacks) if in_process else None
        with closing(here or pipeline.engine_of(run, callbacks)) as engine:
            candidates = pipeline.search(run, arrays, engine, on_event)
            return pipeline.train_finalists(run, engine, candidates, on_event) if finalists else candidates
    finally:
        run.close()
