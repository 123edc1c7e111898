"""What a recipe must keep beyond the types of its keys: how keys of one section, or of two, go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from edgeml import precisions
from edgeml.recipe import LATENCY, MAXIMISED, PLATEAU_PATIENCE, SEVERAL, Export, Recipe, Search, Splits, Train
from edgeml.recipe_defaults import default_oracle
from edgeml.records import Budget
from edgeml.strict_yaml import Node

HOST_FLOAT32 = ("host", "float32")
HELD_OUT_BELOW = 0.9  # validation + blend + test: train gets the rest


def _check_shares(splits: Splits, node: Node) -> None:
    """Leave something to train on."""
    shares = {"validation": splits.validation, "blend": splits.blend, "test": splits.test}
    numbers = {name: share for name, share in shares.items() if isinstance(share, float)}
    total = round(sum(numbers.values()), 9)
    if total >= HELD_OUT_BELOW:
        last = list(node.value.values())[-1]  # of the file, or the override that made it too much
        found = " + ".join(f"{name} {share:g}" for name, share in numbers.items())
        raise dataclasses.replace(last, path=node.path).error(
            f"{found} = {total:g}; a sum below {HELD_OUT_BELOW} is allowed. Leave more to train on."
        )


def _check_objectives(search: Search, node: Node) -> None:
    """Several objectives need an oracle that takes them, and something to learn: the accuracy."""
    if search.objectives is None:
        return
    given = node.value["objectives"]
    learned = [name for name in search.objectives if name in MAXIMISED]
    if not learned:
        raise given.error(
            f"got {', '.join(search.objectives)}; a list with {search.objective} is allowed. Add {search.objective}:"
            " a cost alone is least for the smallest network."
        )
    if learned != [search.objective]:
        raise given.error(
            f"got {' and '.join(learned)}; search.objective, {search.objective}, and costs are allowed. Name the same"
            " one in both."
        )
    oracle = search.oracle if "oracle" in node.value else default_oracle(search.epochs)
    if len(search.objectives) > 1 and oracle not in SEVERAL:
        raise given.error(
            f"got {len(search.objectives)} for the oracle {oracle}; several are allowed for"
            f" {', '.join(SEVERAL)}. Write 'oracle: {SEVERAL[0]}', or leave this key out."
        )


def _check_limits(budget: Budget, node: Node) -> None:
    """One limit for each device, runtime and precision: of two, one says nothing."""
    places = [limit.where for limit in budget.latency]
    again = next((place for place, where in enumerate(places) if where in places[:place]), None)
    if again is not None:
        raise (
            node.value["latency"]
            .value[again]
            .error(f"{places[again]} has a limit already; one each is allowed. Keep the smaller max_ms.")
        )


def _check_recipe(recipe: Recipe, node: Node) -> None:
    """Hold keys of one section against those of another."""
    _check_latency(recipe, node)
    if recipe.ensemble.distill and recipe.ensemble.max_members == 1:
        given = node.value["ensemble"].value["distill"]
        raise given.error(
            "got true with max_members 1; a network learns from two or more. Raise it, or leave this out."
        )
    if recipe.ensemble.trees:
        _check_trees(recipe, node)


def _check_trees(recipe: Recipe, node: Node) -> None:
    """Decision trees are float32 only, and no profile says how long they take: they are timed, here."""
    given = node.value["ensemble"].value["trees"]
    other = next((limit for limit in recipe.budget.latency if (limit.device, limit.precision) != HOST_FLOAT32), None)
    written = next((word for word in recipe.export.precision if word != "float32"), None)
    found = (
        f"export.precision {written}" if written
        else "budget.arena_bytes, of an int8 file," if recipe.budget.arena_bytes is not None
        else f"a latency limit on {other.where}" if other
        else "compress, which trees have no kernels for," if recipe.compress.is_asked else None
    )  # fmt: skip
    if found:
        raise given.error(
            f"got {', '.join(recipe.ensemble.trees or ())} with {found}; trees are float32 only, and timed on this"
            " machine: 'export: {precision: float32}' and limits on host in float32 are allowed. Write that, or leave"
            " this key out."
        )


def _check_latency(recipe: Recipe, node: Node) -> None:
    """Latency as an objective is that of a device, which a limit names."""
    if LATENCY in (recipe.search.objectives or ()) and not recipe.budget.latency:
        given = node.value["search"].value["objectives"]
        raise given.error(
            "got latency, and no budget.latency; a limit there says of which device, runtime and precision. Add one,"
            " with a large max_ms if it should not bind."
        )


def _check_export(export: Export, node: Node) -> None:
    """Every precision is some target's, and every target writes a file."""
    reason = precisions.refusal(export.targets, export.precision)
    if reason:
        given = node.value.get("precision") or node.value["targets"]  # the other one is the default
        raise given.error(reason)


def _check_early_stopping(train: Train, node: Node) -> None:
    """A cosine schedule has its best weights at its end; a plateau has to be waited for."""
    if train.early_stopping is None:
        return
    given = node.value["early_stopping"]
    if train.schedule == "cosine":
        raise given.error(
            f"got {train.early_stopping} with schedule cosine, whose rate is zero only at the end; schedule plateau or"
            " constant is allowed. Leave this key out, or write 'schedule: plateau'."
        )
    if train.schedule == "plateau" and train.early_stopping <= PLATEAU_PATIENCE:
        raise given.error(
            f"got {train.early_stopping} with schedule plateau, which lowers the rate after {PLATEAU_PATIENCE} epochs;"
            f" more than {PLATEAU_PATIENCE} are allowed. Try {2 * PLATEAU_PATIENCE}."
        )


CHECKS: Mapping[Any, Callable[[Any, Node], None]] = {
    Splits: _check_shares,
    Budget: _check_limits,
    Search: _check_objectives,
    Export: _check_export,
    Train: _check_early_stopping,
    Recipe: _check_recipe,
}
