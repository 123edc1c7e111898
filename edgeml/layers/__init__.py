"""Layers that Keras lacks; importing them lets Keras load models that have them."""

from edgeml.layers.batch_renormalization import BatchRenormalization
from edgeml.layers.tree_ensemble import TreeEnsemble

__all__ = ["BatchRenormalization", "TreeEnsemble"]
