"""Is a set of hyper-parameters within budget? Answered in less than a millisecond, before anything is built.

Trials are stratified over shares of the budget: trial i may use ``shares[i % len(shares)]`` of every key, so that small
networks (members of an ensemble) and large ones (alone) are searched alike; a share whose networks were all tried is
dropped. A grid, which meets every network once and in order, gives each the smallest share that it fits. Widths
multiply, so most random draws are tiny; ``least_use`` refuses those that leave more of the budget unused, while there
are others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from edgeml import costs
from edgeml.errors import BudgetError
from edgeml.operators import Operator
from edgeml.records import FILES, Budget, Cost, File

Values = Mapping[str, Any]
Identity = tuple[tuple[str, Any], ...]
PATIENCE = 1_000  # networks in a row that may be refused for being small; then the space has few others, and they may
RECENT = 1_000  # refused networks whose cost is remembered (2 kB each): a search draws fifteen for each that it trains


def identity(values: Values) -> Identity:
    """Return what tells one network from another: the hyper-parameters without KerasTuner's own."""
    return tuple(sorted((name, value) for name, value in values.items() if not name.startswith("tuner/")))


class Feasibility:
    """The judge of a search: cost of hyper-parameters, of accepted and recent ones kept; refusals per budget key."""

    def __init__(
        self,
        operators: Callable[[Values], tuple[Operator, ...]],
        budget: Budget,
        shares: Sequence[Fraction] = (Fraction(1),),
        least_use: float = 0.0,
        *,
        files: Sequence[File] = FILES,
        in_turn: bool = True,
        counted: Sequence[str] = (),
    ) -> None:
        self._operators = operators
        self._files = files
        self._keys = {*budget.keys, *counted}
        self._least_use = least_use
        self._in_turn = in_turn
        self.shares = tuple(shares)
        self._budgets = {share: budget.scaled(share) for share in shares}
        self._patience = dict.fromkeys(self.shares, PATIENCE)
        self._recent: dict[Identity, Cost] = {}
        self._granted: dict[Identity, tuple[Fraction, Cost]] = {}
        self._smallest: tuple[Identity, Cost] | None = None
        self.refused: Counter[str] = Counter()

    def cost(self, values: Values) -> Cost:
        """Return what the network of these hyper-parameters needs; arena and files only where they are asked for."""
        key = identity(values)
        if key in self._granted:
            return self._granted[key][1]
        if key not in self._recent:
            cost = costs.cost(self._operators(values), self._files, self._keys)
            if self._smallest is None or _size(cost) < _size(self._smallest[1]):
                self._smallest = key, cost
            if len(self._recent) == RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[key] = cost
        return self._recent[key]

    def keep_shares_for(self, smallest: Iterable[Values]) -> None:
        """Drop the shares that none of the smallest networks fits: no trial could ever use them.

        Raises:
            BudgetError: no share is left.
        """
        found = [self.cost(values) for values in smallest]
        kept = tuple(s for s in self.shares if not all(self._violations(s, cost) for cost in found))
        if not kept:
            raise self.none_fits()
        self.shares = kept

    def drop_share_of(self, trial: int) -> bool:
        """Give up the share of trial number ``trial``, which nothing new was found for; tell if others are left."""
        if len(self.shares) == 1 or not self._in_turn:
            return False
        dry = self._turn(trial)
        self.shares = tuple(share for share in self.shares if share != dry)
        return True

    def share(self, values: Values) -> Fraction:
        """Return the share of the budget that these values, once accepted, were judged by."""
        return self._granted[identity(values)][0]

    def accepts(self, values: Values, trial: int) -> bool:
        """Tell whether the network may be trial number ``trial``; count the refusal if not."""
        cost = self.cost(values)
        share = self._turn(trial) if self._in_turn else self._least_share(cost)
        violations = self._violations(share, cost)
        is_small = self._budgets[share].use(costs.charged(cost)) < self._least_use
        if not violations and self._patience[share] and is_small:
            self._patience[share] -= 1
            violations = ["least_use"]
        self.refused.update(line.split()[0] for line in violations)
        if not violations:
            self._patience[share] = PATIENCE
            self._granted[identity(values)] = share, cost
        return not violations

    def _violations(self, share: Fraction, cost: Cost) -> list[str]:
        return self._budgets[share].violations(costs.charged(cost))

    def _turn(self, trial: int) -> Fraction:
        return self.shares[trial % len(self.shares)]

    def _least_share(self, cost: Cost) -> Fraction:
        fitting = [share for share in self.shares if not self._violations(share, cost)]
        return min(fitting, default=max(self.shares))

    def smallest(self) -> tuple[Values, Cost] | None:
        """Return the network with the fewest parameters (then MACs) seen so far, if any was."""
        return None if self._smallest is None else (dict(self._smallest[0]), self._smallest[1])

    def none_fits(self) -> BudgetError:
        """Return the error for a budget that nothing seen fits."""
        smallest = self.smallest()
        if smallest is None:
            return BudgetError("budget: no network of the space could be built. Repair the build function.")
        values, cost = smallest
        share = max(self.shares)
        reason = "; ".join(self._violations(share, cost)) or "it was not drawn again"
        words = ", ".join(f"{name}={value}" for name, value in values.items())
        of = "" if share == 1 else f" (at member_share {share})"
        return BudgetError(
            f"budget: no network of the space fits{of}; the smallest seen needs {cost.params:,} params and"
            f" {cost.macs:,} MACs ({reason}; {words}). Raise the budget or take a smaller space."
        )


def _size(cost: Cost) -> tuple[int, int]:
    return cost.params, cost.macs
