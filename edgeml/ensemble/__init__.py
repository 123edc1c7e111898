"""Ensembles: who joins, with what weight, and how they become one graph."""

from edgeml.ensemble.choice import Choice, choose
from edgeml.ensemble.graph import compile_ensemble, fold_ensemble, side_by_side
from edgeml.ensemble.weights import blend, fit_weights, log_loss

__all__ = ["Choice", "blend", "choose", "compile_ensemble", "fit_weights", "fold_ensemble", "log_loss", "side_by_side"]
