"""The windows that budgets and daily limits are counted in: those of the UTC calendar. Pure; weeks begin on Monday (ISO 8601)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf

from llm_gateway.core.tenancy import Period

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window(period: Period, wall: float) -> str:
    """Its name, in the order of time within a period: "2026-11-27T01", "2026-11-27", "2026-W48", "2026-11", "" for total.
    wall: Unix seconds."""
    now = EPOCH + timedelta(seconds=wall)
    match period:
        case "hour":
            return f"{now:%Y-%m-%dT%H}"
        case "day":
            return f"{now:%Y-%m-%d}"
        case "week":
            year, week, _ = now.isocalendar()
            return f"{year:04}-W{week:02}"
        case "month":
            return f"{now:%Y-%m}"
        case "total":
            return ""


def ends(period: Period, wall: float) -> float:
    """When the present one is over, in Unix seconds; inf for total."""
    if period == "total":
        return inf
    now = EPOCH + timedelta(seconds=wall)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "hour":
            end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        case "day":
            end = day + timedelta(days=1)
        case "week":
            end = day + timedelta(days=7 - day.weekday())
        case _:
            end = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (end - EPOCH).total_seconds()
