"""Blend weights, fitted on data that no member was trained on and the search never saw.

    arithmetic   p = Σ wᵢ pᵢ
    geometric    p = softmax(Σ wᵢ log pᵢ)      the weighted mean of logits

Weights are softmax-parametrised, so they are positive and sum to one. Every figure that decides something is
cross-fitted: weights fitted on four fifths of the blend split are scored on the fifth that they have not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
EPSILON = 1e-7  # as Keras clips probabilities before the logarithm
FOLDS = 5
RESTARTS = 3


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
    seed: int = 0,
) -> Float:
    """Fit weights (M,) to member probabilities (M, N, K) and labels (N,).

    Methods: ``uniform``; ``nelder-mead``: log-loss over softmax parameters, with restarts (Nelder & Mead 1965).

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
    return _nelder_mead(probs, labels, mean, seed)


def _nelder_mead(probs: Float, labels: NDArray[np.int64], mean: str, seed: int) -> Float:
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    free = len(probs) - 1  # the last parameter is fixed at 0: softmax only knows differences
    starts = [np.zeros(free), *rng.normal(0.0, 1.0, (RESTARTS, free))]

    def loss(parameters: Float) -> float:
        return log_loss(blend(probs, _softmax(parameters), mean), labels)

    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 200 * free}
    best = min((minimize(loss, s, method="Nelder-Mead", options=options) for s in starts), key=lambda r: float(r.fun))
    return _softmax(best.x)


def _softmax(parameters: Float) -> Float:
    full = np.append(parameters, 0.0)
    powers = np.exp(full - full.max())
    return np.asarray(powers / powers.sum())


def cross_fitted(
    probs: Float, labels: NDArray[np.int64], method: str, *, mean: str = "arithmetic", seed: int = 0
) -> Float:
    """Return the log-loss of each row (N,) under weights fitted without it."""
    return losses(cross_blended(probs, labels, method, mean=mean, seed=seed), labels)


def cross_blended(
    probs: Float, labels: NDArray[np.int64], method: str, *, mean: str = "arithmetic", seed: int = 0
) -> Float:
    """Return each row of the average (N, K) by weights fitted without it (5 folds, stratified by class)."""
    fold = np.empty(len(labels), np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    out = np.empty(probs.shape[1:])
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        weights = fit_weights(probs[:, rest], labels[rest], method, mean=mean, seed=seed)
        out[held] = blend(probs[:, held], weights, mean)
    return out
