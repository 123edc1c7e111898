"""Decision trees among the finalists: fitted within each share of the budget, kept as the Keras graphs they become.

From there on they are finalists like any other: weighed on the blend split, compiled into one graph, proven.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeml import trees
from edgeml.kinds import kind_of
from edgeml.records import Event
from edgeml.run_folder import Arrays, RunFolder
from edgeml.search.candidates import Candidate


def fit(run: RunFolder, arrays: Mapping[str, Arrays], on_event: Callable[[Event], None]) -> list[Candidate]:
    """Fit the decision trees that the recipe lets in, of every share of the budget; the best are kept as Keras files.

    A size whose bound is over its share is not fitted.
    """
    config, found = run.recipe, dict[str, Candidate]()
    if not config.ensemble.trees:
        return []
    x = arrays["train"][0]
    for share in sorted(config.search.member_share, reverse=True):
        fitted = trees.candidates(
            config.ensemble.trees, arrays["train"], arrays["validation"], config.budget.scaled(share),
            seed=config.search.seed, files=config.export.files,
        )  # fmt: skip
        for one, estimator in fitted:
            if one.id in found:
                continue
            model = trees.compiled(estimator, x.shape[1:], kind_of(x.shape[1:]).sample)
            model.save(run.path("finalists", one.id, "model.keras"))
            found[one.id] = Candidate(
                one.id, one.kind, share, one.hyperparameters, one.cost, "completed", metrics=one.metrics,
                seconds=one.seconds,
            )  # fmt: skip
            accuracy = one.metrics["val_accuracy"]
            on_event(Event("trees", f"{one.id}, {one.cost.params:,} params, val {accuracy:.3f}"))
    for kind in config.ensemble.trees:
        if kind not in {one.space for one in found.values()}:
            on_event(Event("trees", f"{kind}: no size fits the budget; none joins"))
    return list(found.values())
