"""Blend weights, fitted on data that no member was trained on and the search never saw.

    arithmetic   p = Σ wᵢ pᵢ
    geometric    p = softmax(Σ wᵢ log pᵢ)      the weighted mean of logits

Weights are softmax-parametrised, so they are positive and sum to one. Both losses are convex in the weights: one start
finds the least. What weights are worth is told by rows that they were not fitted on (``folds``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
EPSILON = 1e-7  # as Keras clips probabilities before the logarithm
FOLDS = 5


def blend(probabilities: Float, weights: Float, mean: str = "arithmetic") -> Float:
    """Average ``probabilities`` (M, N, K) with ``weights`` (M,) into (N, K)."""
    if mean == "arithmetic":
        return np.asarray(np.tensordot(weights, probabilities, axes=1))
    logs = np.tensordot(weights, np.log(np.maximum(probabilities, EPSILON)), axes=1)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def losses(probabilities: Float, labels: NDArray[np.int64]) -> Float:
    """Return the log-loss of each row of (N, K)."""
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], EPSILON, 1.0)))


def log_loss(probabilities: Float, labels: NDArray[np.int64]) -> float:
    """Return the mean log-loss of (N, K)."""
    return float(losses(probabilities, labels).mean())


def fit_weights(
    probs: Float,
    labels: NDArray[np.int64],
    method: str = "nelder-mead",
    *,
    mean: str = "arithmetic",
) -> Float:
    """Fit weights (M,) to member probabilities (M, N, K) and labels (N,).

    Methods: ``uniform``; ``nelder-mead``: log-loss over softmax parameters (Nelder & Mead 1965).

    Raises:
        ValueError: an unknown method, or arrays that do not belong together.
    """
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 3 or len(probs) == 0 or probs.shape[1:2] != np.shape(labels):
        raise ValueError(
            f"probs: got shape {probs.shape} for labels of shape {np.shape(labels)};"
            " (members, samples, classes) and (samples,) class indices are due"
        )
    if not np.all(np.isfinite(probs)):
        raise ValueError("probs: got NaN or infinite values; drop the member that diverged")
    if method not in ("nelder-mead", "uniform"):
        raise ValueError(f"method: got '{method}'; nelder-mead or uniform is allowed")
    members = len(probs)
    if method == "uniform" or members == 1:
        return np.full(members, 1.0 / members)
    return _nelder_mead(probs, labels, mean)


def _nelder_mead(probs: Float, labels: NDArray[np.int64], mean: str) -> Float:
    from scipy.optimize import minimize

    free = len(probs) - 1  # the last parameter is fixed at 0: softmax only knows differences

    def loss(parameters: Float) -> float:
        return log_loss(blend(probs, _softmax(parameters), mean), labels)

    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 200 * free, "adaptive": True}
    return _softmax(minimize(loss, np.zeros(free), method="Nelder-Mead", options=options).x)


def _softmax(parameters: Float) -> Float:
    full = np.append(parameters, 0.0)
    powers = np.exp(full - full.max())
    return np.asarray(powers / powers.sum())


def folds(labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Return the fold of each row (N,): 5 of them, stratified by class."""
    fold = np.empty(len(labels), np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    return fold
