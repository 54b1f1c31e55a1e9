"""Usage rows added up by provider and model: what `llm-gateway journal` prints below them. Pure.

Money is added in whole nano-USD and shown in USD; rows without a price are counted, never taken for free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

NANO = 1_000_000_000


class Total(Struct):
    requests: int = 0
    failed: int = 0
    input: int = 0
    output: int = 0
    cost: int = 0
    unpriced: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """row: as `journal.read` yields it; fields at their default are absent."""
        self.requests += 1
        self.failed += row.get("outcome", "ok") != "ok"
        self.input += row.get("input", 0)
        self.output += row.get("output", 0)
        cost = row.get("cost")
        if cost is not None:
            self.cost += cost
        elif "input" in row or "output" in row:
            self.unpriced += 1


class Summary:
    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], Total] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        key = (row.get("provider", "-"), row.get("upstream_model") or row.get("model") or "-")
        self.totals.setdefault(key, Total()).add(row)

    def lines(self) -> Iterator[str]:
        """A table, the most expensive first, and a last line for all together."""
        ranked = sorted(self.totals.items(), key=lambda item: (-item[1].cost, -item[1].requests, item[0]))
        rows = [(f"{provider}/{model}", total) for (provider, model), total in ranked]
        rows.append(("total", _sum(total for _, total in rows)))
        width = max(len(name) for name, _ in rows)
        yield f"{'model':{width}}  {'requests':>9} {'failed':>7} {'input':>12} {'output':>12} {'USD':>14} {'unpriced':>9}"
        for name, each in rows:
            yield (
                f"{name:{width}}  {each.requests:>9} {each.failed:>7} {each.input:>12} {each.output:>12} "
                f"{each.cost / NANO:>14.6f} {each.unpriced:>9}"
            )


def _sum(totals: Iterable[Total]) -> Total:
    whole = Total()
    for each in totals:
        whole = Total(*(getattr(whole, name) + getattr(each, name) for name in Total.__struct_fields__))
    return whole
