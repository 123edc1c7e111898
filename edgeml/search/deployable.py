"""What the targets of a recipe cannot take, found in lists of operators before a network is trained.

    networks of the space, drawn ─┐
    what averages members ────────┴─► operators ─► check_operators of each target that makes a program

Where a target has no such function, or judges by more than operators, its ``check`` of the file has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeml import ensemble, plugins
from edgeml.errors import TargetError
from edgeml.operators import Operator
from edgeml.recipe import Recipe
from edgeml.search.space import Space

DRAWS = 200  # networks of a space that are looked at
FEWEST = 2  # members, and classes, that show what a mean is made of


def check(recipe: Recipe, networks: Space) -> None:
    """Refuse a space, or a mean of members, that a target of the recipe cannot take.

    Raises:
        TargetError: which layer of which space, or which mean, why, and what to change.
    """
    if not _judges(recipe):
        return
    for values in networks.drawn(DRAWS, recipe.search.seed):
        for error in _refusals(recipe, networks.operators(values)).values():
            raise TargetError(f"search.space: {networks.name_of(values)}: {error}") from error
    mean, allowed = recipe.ensemble.mean, means(recipe)
    if recipe.ensemble.max_members > 1 and mean not in ("auto", *allowed):
        refused = ", ".join(_refusals(recipe, ensemble.mixture(FEWEST, FEWEST, mean)))
        raise TargetError(
            f"ensemble.mean: got {mean}, which {refused} cannot take; {', '.join(('auto', *allowed))} are allowed."
            f" Write one of them, or leave {refused} out of export.targets."
        )


def means(recipe: Recipe) -> tuple[str, ...]:
    """Return the means of members that all targets of a recipe can take."""
    return tuple(mean for mean in ensemble.MEANS if not _refusals(recipe, ensemble.mixture(FEWEST, FEWEST, mean)))


def _judges(recipe: Recipe) -> list[str]:
    """Name the targets that judge by operators."""
    targets = dict.fromkeys(target for target, _ in recipe.export.programs)
    return [name for name in targets if hasattr(plugins.get("targets", name), "check_operators")]


def _refusals(recipe: Recipe, operators: Sequence[Operator]) -> dict[str, TargetError]:
    """Return by name the targets that cannot take a network, and what each says."""
    found = {}
    for name in _judges(recipe):
        try:
            plugins.get("targets", name).check_operators(operators)
        except TargetError as error:
            found[name] = error
    return found
