"""What each layer of the graph costs, and what each kind of layer does together."""

from __future__ import annotations

from collections import defaultdict

from edgeml.report.limits import Row

COSTS = ("params", "macs")


def costs(rows: list[Row]) -> Row:
    """Return the layers, what each kind of them costs together, dearest first, and the totals.

    ``shares`` of the dearest row: for bars. A total is missing where the cost of any layer is not known.
    """
    kinds: defaultdict[str | None, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[row.get("kind")].append(row)
    together = [{"kind": kind, "count": len(own), **totals(own)} for kind, own in kinds.items()]
    return {
        "rows": with_shares(rows),
        "kinds": with_shares(sorted(together, key=lambda row: -(row["macs"] or 0))),
        "totals": totals(rows),
    }


def with_shares(rows: list[Row]) -> list[Row]:
    """Give each row its shares of the largest cost of each sort."""
    most = {key: max((row.get(key) or 0 for row in rows), default=0) for key in COSTS}
    return [
        {**row, "shares": {key: (row.get(key) or 0) / whole for key, whole in most.items() if whole}} for row in rows
    ]


def totals(rows: list[Row]) -> Row:
    """Sum every cost, unless one of its values is unknown."""
    columns = {key: [row.get(key) for row in rows] for key in COSTS}
    return {key: None if None in values or not values else sum(values) for key, values in columns.items()}
