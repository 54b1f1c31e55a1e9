"""Many workers' counters as one Prometheus page.

Law: a counter never goes back. A worker reports totals since its own start; when it is replaced, what it had counted is
kept as a base and added to what its successors count. Gauges are summed over the living, except `_max` ones, and ratios
and generations, of which the largest is shown.
Source: Prometheus text format 0.0.4 and OpenMetrics 1.0 (which names counter families without `_total` and ends in EOF).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llm_gateway.telemetry.families import FAMILIES, Family
from llm_gateway.telemetry.metrics import Families, Value

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_LARGEST = ("_max", "_ratio", "_generation", "_info")


class Report(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def families(self) -> Families: ...


class Merger:
    """Holds the last report of every living worker and the counters of the dead."""

    def __init__(self) -> None:
        self._living: dict[tuple[int, int], Families] = {}
        self._dead: Families = {}

    def feed(self, report: Report) -> None:
        self._living[report.index, report.pid] = report.families

    def forget(self, index: int, pid: int) -> None:
        """The worker is gone: its counters stay, its gauges go."""
        last = self._living.pop((index, pid), None)
        if last is not None:
            counters = {name: values for name, values in last.items() if _family(name).type != "gauge"}
            _add(self._dead, counters)

    def merged(self) -> Families:
        total: Families = {}
        _add(total, self._dead)
        for families in self._living.values():
            _add(total, families)
        return total

    def render(self, extra: Mapping[str, Mapping[str, float]], *, openmetrics: bool = False) -> str:
        """The page. `extra`: families of the operator's own."""
        total = self.merged()
        _add(total, {name: dict(values) for name, values in extra.items()})
        lines: list[str] = []
        for name, family in FAMILIES.items():
            shown = name.removesuffix("_total") if openmetrics and family.type == "counter" else name
            lines += [f"# HELP {shown} {family.help}", f"# TYPE {shown} {family.type}"]
            values = total.get(name) or ({"": 0} if family.bare else {})
            for labels, value in sorted(values.items()):
                lines += (
                    _histogram(name, family, labels, value) if isinstance(value, list) else [_line(name, labels, value)]
                )
        if openmetrics:
            lines.append("# EOF")
        return "\n".join(lines) + "\n"


def _family(name: str) -> Family:
    return FAMILIES.get(name) or Family("gauge", "")


def _add(total: Families, families: Families) -> None:
    for name, values in families.items():
        into = total.setdefault(name, {})
        largest = name.endswith(_LARGEST)
        for labels, value in values.items():
            into[labels] = _sum(into.get(labels), value, largest=largest)


def _sum(old: Value | None, new: Value, *, largest: bool) -> Value:
    if old is None:
        return list(new) if isinstance(new, list) else new
    if isinstance(new, list):
        return [a + b for a, b in zip(old, new, strict=True)] if isinstance(old, list) else list(new)
    if isinstance(old, list):
        return old
    return max(old, new) if largest else old + new


def _line(name: str, labels: str, value: float) -> str:
    shown = f"{value:.15g}"
    return f"{name}{{{labels}}} {shown}" if labels else f"{name} {shown}"


def _histogram(name: str, family: Family, labels: str, value: list[float]) -> list[str]:
    lines, running = [], 0
    head = f"{labels}," if labels else ""
    *counts, total = value
    for bound, count in zip([*map(str, family.buckets), "+Inf"], counts, strict=True):
        running += int(count)
        lines.append(f'{name}_bucket{{{head}le="{bound}"}} {running}')
    tail = f"{{{labels}}}" if labels else ""
    return [*lines, f"{name}_count{tail} {running}", f"{name}_sum{tail} {total:.9g}"]
