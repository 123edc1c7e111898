"""Blend weights, fitted on data that no member was trained on and the search never saw.

    nelder-mead   least log-loss over softmax parameters (Nelder & Mead 1965), begun again where it ended
    greedy        a bag that takes the best member again and again; weights are shares of it (Caruana et al. 2004)
    random        the best of many Dirichlet draws, even weights among them: first flat, then around the best so far
    uniform       even weights, nothing is fitted

Weights are never negative and sum to one. The log-loss of an arithmetic or geometric mean is convex in them, that of
the exponential one is not: there further starts lean towards each member. What weights are worth is told by rows that
they were not fitted on (``folds``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgeml.ensemble.means import EPSILON, MEANS, SUM_TOLERANCE, Float, blend, log_loss

FOLDS = 5
RESTARTS = 4  # a simplex may collapse before the least is reached: from there a fresh one goes on
LEAST_PROGRESS = 1e-7  # of log-loss, for which another restart is worth it
EDGE = 0.5  # of the first simplex; SciPy's own around 0 is 0.00025 wide, and ends there where the loss is flat
LEAN = 2.0  # softmax parameter of the member that a further start leans to
DEAD = 1e-4  # a weight below it changes nothing that log-loss sees, and would ship its whole network
BAG = 50  # draws of greedy selection
DRAWS = 500  # of random search, in stages:
SHARPNESS = (0, 10, 100, 1000)  # how closely a stage's draws lie around the best before it
Labels = NDArray[np.int64]
Loss = Callable[[Float], float]  # of weights (M,)


def fit_weights(
    probs: Float, labels: Labels, method: str = "nelder-mead", *, mean: str = "arithmetic", seed: int = 0
) -> Float:
    """Fit weights (M,) to member probabilities (M, N, K) and labels (N,).

    Methods: nelder-mead, greedy, random (drawn with ``seed``), uniform. Means: arithmetic, geometric, exponential.
    Weights below 0.0001 come as 0 where that costs nothing.

    Raises:
        ValueError: an unknown method or mean, or arrays that do not belong together.
    """
    probs = np.asarray(probs, np.float64)
    _check(probs, labels, method, mean)
    members = len(probs)
    if members == 1:
        return np.ones(1)
    loss = _loss_of(probs, labels, mean)
    fitted = METHODS[method](loss, members, mean, seed)
    kept = np.where(fitted < DEAD, 0.0, fitted) / fitted[fitted >= DEAD].sum()
    return kept if loss(kept) <= loss(fitted) + LEAST_PROGRESS else fitted


def _loss_of(probs: Float, labels: Labels, mean: str) -> Loss:
    """Return the log-loss as a function of weights, with all that does not depend on them done before."""
    true = probs[:, np.arange(len(labels)), labels]
    if mean == "arithmetic":  # other classes than the true one do not matter
        return lambda weights: float(-np.log(np.clip(weights @ true, EPSILON, 1.0)).mean())
    terms, finish = MEANS[mean].term(probs), MEANS[mean].finish
    return lambda weights: log_loss(finish(np.tensordot(weights, terms, axes=1)), labels)


def _check(probs: Float, labels: Labels, method: str, mean: str) -> None:
    if probs.ndim != 3 or probs.size == 0 or probs.shape[1:2] != np.shape(labels):
        raise ValueError(
            f"probs: got shape {probs.shape} for labels of shape {np.shape(labels)};"
            " (members, samples, classes) and (samples,) class indices are due"
        )
    if not np.all(np.isfinite(probs)):
        raise ValueError("probs: got NaN or infinite values; drop the member that diverged")
    sums = probs.sum(axis=2)
    if probs.min() < 0 or abs(sums - 1).max() > SUM_TOLERANCE:
        found = f"{probs.min():g}" if probs.min() < 0 else f"rows that sum to {sums.min():g} to {sums.max():g}"
        raise ValueError(f"probs: got {found}; probabilities are due, from 0 to 1, each row with the sum 1")
    given = np.asarray(labels)
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= probs.shape[2]:
        found = f"{given.dtype}" if given.dtype.kind not in "iu" else f"{given.min()} to {given.max()}"
        raise ValueError(f"labels: got {found}; class indices are due, 0 to {probs.shape[2] - 1}")
    for what, word, known in (("method", method, METHODS), ("mean", mean, MEANS)):
        if word not in known:
            raise ValueError(f"{what}: got '{word}'; {', '.join(known)} are allowed")


def _nelder_mead(loss: Loss, members: int, mean: str, _seed: int) -> Float:
    from scipy.optimize import minimize

    free = members - 1  # the last parameter is fixed at 0: softmax only knows differences
    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 200 * free, "adaptive": True}
    starts = [np.zeros(free)]
    if mean == "exponential":
        starts += [*(LEAN * np.eye(free)), np.full(free, -LEAN)]
    found = []
    for start in starts:
        least, at = np.inf, start
        for _ in range(RESTARTS):
            simplex = np.vstack([at, at + EDGE * np.eye(free)])
            result = minimize(
                lambda t: loss(_softmax(t)), at, method="Nelder-Mead", options=options | {"initial_simplex": simplex}
            )
            progress, least, at = least - result.fun, result.fun, result.x
            if progress < LEAST_PROGRESS:
                break
        found.append((least, at))
    return _softmax(min(found, key=lambda pair: pair[0])[1])


def _greedy(loss: Loss, members: int, _mean: str, _seed: int) -> Float:
    bag, bags = np.zeros(members), list[tuple[float, Float]]()
    for drawn in range(1, BAG + 1):
        worth = [loss((bag + one) / drawn) for one in np.eye(members)]
        bag = bag + np.eye(members)[int(np.argmin(worth))]
        bags.append((min(worth), bag / drawn))
    return min(bags, key=lambda pair: pair[0])[1]


def _random(loss: Loss, members: int, _mean: str, seed: int) -> Float:
    rng = np.random.default_rng(seed)
    best = _uniform(loss, members, _mean, seed)
    for sharpness in SHARPNESS:
        drawn = rng.dirichlet(1 + sharpness * best, DRAWS // len(SHARPNESS))
        best = np.asarray(min([best, *drawn], key=loss))
    return best


def _uniform(_loss: Loss, members: int, _mean: str, _seed: int) -> Float:
    return np.full(members, 1.0 / members)


METHODS: Mapping[str, Callable[[Loss, int, str, int], Float]] = {
    "nelder-mead": _nelder_mead,
    "greedy": _greedy,
    "random": _random,
    "uniform": _uniform,
}


def _softmax(parameters: Float) -> Float:
    full = np.append(parameters, 0.0)
    powers = np.exp(full - full.max())
    return np.asarray(powers / powers.sum())


def held_out(probs: Float, labels: Labels, method: str, *, mean: str, seed: int = 0) -> Float:
    """Return each row (N, K) of the members' mean with the weights that the other folds fitted."""
    fold = folds(labels, seed)
    rows = np.empty(probs.shape[1:])
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        rows[held] = blend(probs[:, held], fit_weights(probs[:, rest], labels[rest], method, mean=mean), mean)
    return rows


def folds(labels: Labels, seed: int = 0) -> Labels:
    """Return the fold of each row (N,): 5 of them, stratified by class."""
    fold = np.empty(len(labels), np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    fold[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % FOLDS
    return fold
