"""Clustering: every kernel keeps a few distinct values, which are learned, and each weight takes the nearest of them.

    w ≈ c[k],  k = argminⱼ |w - c[j]|        gradients go to c, and straight through to w, which may change its cluster

Han, Mao & Dally 2015, arXiv 1510.00149, section 3; the centroids start as k-means++ draws them. On a folded model, so
that what is counted is what ships: batch normalization folded in later would give every channel values of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeml.compression import toolkit
from edgeml.compression.fine_tuning import fine_tune, wrapped_twin
from edgeml.compression.records import LeftAlone, Step, Training
from edgeml.twin import back

EPOCHS = 5
LEARNING_RATE = 3e-4


def cluster(model: Any, clusters: int, training: Training) -> tuple[Step, list[LeftAlone]]:
    """Cluster the kernels of dense layers and convolutions of a folded model, in place; zeros there are stay zeros."""
    tfmot = toolkit.load()
    epochs = training.epochs or EPOCHS

    def wrap(layer: Any) -> Any:
        keeps_zeros = bool((layer.kernel.numpy() == 0).any())
        found = tfmot.clustering.keras.cluster_weights(layer, clusters, preserve_sparsity=keeps_zeros)
        if found is None:  # what tfmot 0.8.1 answers to a layer of Keras 3
            raise TypeError(f"tfmot did not cluster {layer.name}")
        return found

    def reason(layer: Any) -> str | None:
        weights = int(np.count_nonzero(layer.kernel.numpy()))
        return f"{weights} weights that are not zero, no more than clusters" if weights <= clusters else None

    clustered, left = wrapped_twin(model, "cluster", wrap, reason)
    losses = fine_tune(clustered, model, training, "cluster", epochs=epochs, learning_rate=LEARNING_RATE)
    back(tfmot.clustering.keras.strip_clustering(clustered), model)
    return Step("cluster", f"{clusters} values in each kernel", epochs, LEARNING_RATE, losses), left
