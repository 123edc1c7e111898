"""Clustering: every kernel keeps a few distinct values, which are learned, and each weight takes the nearest of them.

    w ≈ c[k],  k = argminⱼ |w - c[j]|        gradients go to c, and straight through to w, which may change its cluster

Han, Mao & Dally 2015, arXiv 1510.00149, section 3; the centroids start as k-means++ draws them. On a folded model, so
that what is counted is what ships: batch normalization folded in later would give every channel values of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from edgeml.compression import toolkit
from edgeml.compression.fine_tuning import fine_tune
from edgeml.compression.records import LeftAlone, Step, Training
from edgeml.twin import back, twin

EPOCHS = 5
LEARNING_RATE = 3e-4


def cluster(model: Any, clusters: int, training: Training) -> tuple[Step, list[LeftAlone]]:
    """Cluster the kernels of dense layers and convolutions of a folded model, in place; zeros there are stay zeros."""
    tfmot = toolkit.load()
    epochs = training.epochs or EPOCHS
    plain = twin(model, strip_scaling=True)
    left = [alone for layer in plain.layers if (alone := _left_alone(layer, clusters))]
    refused = {alone.layer for alone in left}

    def wrapped(layer: Any) -> Any:
        if not hasattr(layer, "kernel") or toolkit.ours(layer.name) in refused:
            return layer
        keeps_zeros = bool((layer.kernel.numpy() == 0).any())
        found = tfmot.clustering.keras.cluster_weights(layer, clusters, preserve_sparsity=keeps_zeros)
        if found is None:  # what tfmot 0.8.1 answers to a layer of Keras 3
            raise TypeError(f"tfmot did not cluster {layer.name}")
        return found

    clustered = tf_keras.models.clone_model(plain, clone_function=wrapped)
    losses = fine_tune(clustered, model, training, "cluster", epochs=epochs, learning_rate=LEARNING_RATE)
    back(tfmot.clustering.keras.strip_clustering(clustered), model)
    return Step("cluster", f"{clusters} values in each kernel", epochs, LEARNING_RATE, losses), left


def _left_alone(layer: Any, clusters: int) -> LeftAlone | None:
    """Say why a kernel is not clustered."""
    if not layer.trainable_weights or isinstance(layer, tf_keras.layers.BatchNormalization):
        return None
    if type(layer) not in (tf_keras.layers.Conv2D, tf_keras.layers.Dense):
        return LeftAlone("cluster", toolkit.ours(layer.name), f"{type(layer).__name__}: its few weights matter each")
    weights = int(np.count_nonzero(layer.kernel.numpy()))
    if weights <= clusters:
        return LeftAlone(
            "cluster", toolkit.ours(layer.name), f"{weights} weights that are not zero, no more than clusters"
        )
    return None
