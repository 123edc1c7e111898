"""Ensembles: who joins, with what weight, and how they become one graph."""

from edgeml.ensemble.apart import taken_apart
from edgeml.ensemble.charge import mixture
from edgeml.ensemble.choice import Blend, Choice, choose
from edgeml.ensemble.diversity import Diversity, pairwise
from edgeml.ensemble.graph import compile_ensemble, fold_ensemble, is_side_by_side, side_by_side
from edgeml.ensemble.means import MEANS, blend, log_loss, losses
from edgeml.ensemble.weights import METHODS, fit_weights, held_out

__all__ = [
    "MEANS", "METHODS", "Blend", "Choice", "Diversity", "blend", "choose", "compile_ensemble", "fit_weights",
    "fold_ensemble", "held_out", "is_side_by_side", "log_loss", "losses", "mixture", "pairwise", "side_by_side",
    "taken_apart",
]  # fmt: skip
