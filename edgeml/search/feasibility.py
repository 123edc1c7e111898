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
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from edgeml import costs
from edgeml.devices.profile import Prediction, Profile
from edgeml.errors import BudgetError, NotMeasuredError
from edgeml.operators import Operator
from edgeml.precisions import DEFAULT_FILES, File
from edgeml.records import Budget, Cost, Limit

Values = Mapping[str, Any]
Identity = tuple[tuple[str, Any], ...]
Profiles = Mapping[Limit, Profile]
RECENT = 1_000  # refused networks whose needs are remembered (2 kB each): a search draws fifteen for each it trains
PATIENCE = 1_000  # networks in a row that may be refused for being small; then the space has few others, and they may


def identity(values: Values) -> Identity:
    """Return what tells one network from another: the hyper-parameters without KerasTuner's own."""
    return tuple(sorted((name, value) for name, value in values.items() if not name.startswith("tuner/")))


@dataclass(frozen=True)
class Needs:
    """What a network needs: its cost, its predicted latency per limit; ``unknown``: why one cannot be predicted."""

    cost: Cost
    predicted: Mapping[Limit, Prediction] = field(default_factory=dict)
    unknown: str = ""


class Feasibility:
    """The judge of a search: what hyper-parameters need, of accepted and recent ones kept; refusals per budget key."""

    def __init__(
        self,
        operators: Callable[[Values], tuple[Operator, ...]],
        budget: Budget,
        shares: Sequence[Fraction] = (Fraction(1),),
        least_use: float = 0.0,
        *,
        files: Sequence[File] = DEFAULT_FILES,
        in_turn: bool = True,
        counted: Sequence[str] = (),
        profiles: Profiles | None = None,
    ) -> None:
        self._operators = operators
        self.profiles: Profiles = profiles or {}
        self._files = files
        self._keys = {*budget.keys, *counted}
        self._least_use = least_use
        self._in_turn = in_turn
        self.shares = tuple(shares)
        self._limits = budget.latency
        self._budgets = {share: budget.scaled(share) for share in shares}
        self._patience = dict.fromkeys(self.shares, PATIENCE)
        self._recent: dict[Identity, Needs] = {}
        self._granted: dict[Identity, tuple[Fraction, Needs]] = {}
        self._smallest: tuple[Identity, Needs] | None = None
        self.refused: Counter[str] = Counter()

    def needs(self, values: Values) -> Needs:
        """Return what the network of these hyper-parameters needs; arena and files only where they are asked for."""
        key = identity(values)
        if key in self._granted:
            return self._granted[key][1]
        if key not in self._recent:
            needs = self._counted(values)
            if self._smallest is None or _size(needs) < _size(self._smallest[1]):
                self._smallest = key, needs
            if len(self._recent) == RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[key] = needs
        return self._recent[key]

    def _counted(self, values: Values) -> Needs:
        operators = self._operators(values)
        cost = costs.cost(operators, self._files, self._keys)
        try:
            return Needs(cost, {limit: profile.predict(operators) for limit, profile in self.profiles.items()})
        except NotMeasuredError as error:
            return Needs(cost, unknown=str(error))

    def cost(self, values: Values) -> Cost:
        """Return the cost of the network of these hyper-parameters."""
        return self.needs(values).cost

    def keep_shares_for(self, smallest: Iterable[Values]) -> None:
        """Drop the shares that none of the smallest networks fits: no trial could ever use them.

        Raises:
            BudgetError: no share is left.
        """
        found = [self.needs(values) for values in smallest]
        kept = tuple(share for share in self.shares if not all(self.violations(share, needs) for needs in found))
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
        needs = self.needs(values)
        share = self._turn(trial) if self._in_turn else self._least_share(needs)
        violations = self.violations(share, needs)
        if not violations and self._patience[share] and self.use(share, needs) < self._least_use:
            self._patience[share] -= 1
            violations = ["least_use"]
        self.refused.update(line.split()[0] for line in violations)
        if not violations:
            self._patience[share] = PATIENCE
            self._granted[identity(values)] = share, needs
        return not violations

    def violations(self, share: Fraction, needs: Needs) -> list[str]:
        """Return one line per limit of a share of the budget that is broken, once the formulas' errors are added."""
        if needs.unknown:
            return [f"not_measured ({needs.unknown})"]
        return self._budgets[share].violations(costs.charged(needs.cost), self._safe_ms(share, needs))

    def use(self, share: Fraction, needs: Needs) -> float:
        """Return how far a network fills a share of the budget."""
        return self._budgets[share].use(costs.charged(needs.cost), self._safe_ms(share, needs))

    def _safe_ms(self, share: Fraction, needs: Needs) -> dict[Limit, float]:
        scaled = self._budgets[share].latency
        return {own: needs.predicted[limit].safe_ms
                for limit, own in zip(self._limits, scaled, strict=True) if limit in needs.predicted}  # fmt: skip

    def _turn(self, trial: int) -> Fraction:
        return self.shares[trial % len(self.shares)]

    def _least_share(self, needs: Needs) -> Fraction:
        fitting = [share for share in self.shares if not self.violations(share, needs)]
        return min(fitting, default=max(self.shares))

    def smallest(self) -> tuple[Values, Needs] | None:
        """Return the network with the fewest parameters (then MACs) seen so far, if any was."""
        return None if self._smallest is None else (dict(self._smallest[0]), self._smallest[1])

    def none_fits(self) -> BudgetError:
        """Return the error for a budget that nothing seen fits."""
        smallest = self.smallest()
        if smallest is None:
            return BudgetError("budget: no network of the space could be built. Repair the build function.")
        values, needs = smallest
        share, cost = max(self.shares), needs.cost
        reason = "; ".join(self.violations(share, needs)) or "it was not drawn again"
        words = ", ".join(f"{name}={value}" for name, value in values.items())
        of = "" if share == 1 else f" (at member_share {share})"
        return BudgetError(
            f"budget: no network of the space fits{of}; the smallest seen needs {cost.params:,} params and"
            f" {cost.macs:,} MACs ({reason}; {words}). Raise the budget or take a smaller space."
        )


def _size(needs: Needs) -> tuple[int, int]:
    return needs.cost.params, needs.cost.macs
