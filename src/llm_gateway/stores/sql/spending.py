"""What each holder has spent in the present window of each period, added up with the rows, in their transaction.

Law: a window that is over gives way to the next, and what comes late for one that is over changes nothing. Nano-USD; windows and their
names are those of policies/windows.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, get_args

from sqlalchemy import and_, case, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.core.tenancy import Period, key_id, project_id, tenant_id, user_id
from llm_gateway.policies.windows import window
from llm_gateway.stores.sql.engine import reading
from llm_gateway.stores.sql.sums import Sums, bulk
from llm_gateway.stores.sql.tables import spend

PERIODS: tuple[Period, ...] = get_args(Period)


def holders(tenant: str, project: str, user: str, key: str) -> list[str]:
    """Whose money it was: of key, user, project, tenant those that there are."""
    found = [key_id(key)] if key else []
    found += [user_id(tenant, user)] if user else []
    found += [project_id(tenant, project)] if project else []
    return [*found, tenant_id(tenant)] if tenant else found


async def book(connection: AsyncConnection, sums: Sums, now: int) -> None:
    """now: Unix milliseconds."""
    if "cost" not in sums.names:
        return
    place = sums.names.index("cost")
    costs: dict[tuple[int, str, str, str, str], int] = {}
    for (hour, tenant, project, user, key, *_), added in sums.hours.items():  # no window is shorter
        whose = hour, tenant, project, user, key
        costs[whose] = costs.get(whose, 0) + added[place]
    amounts: dict[tuple[str, str, str], int] = {}
    for (hour, *whose_), cost in costs.items():
        if cost:
            for period, name in _windows(hour):
                for holder in holders(*whose_):
                    amounts[holder, period, name] = amounts.get((holder, period, name), 0) + cost
    if amounts:
        values = [(*whose, amount, now) for whose, amount in sorted(amounts.items())]
        await bulk(connection, _spent, spend, ("holder", "period", "window", "amount", "changed"), values)


@lru_cache(64)
def _windows(hour: int) -> tuple[tuple[Period, str], ...]:
    """Those that an hour (Unix milliseconds) is of."""
    return tuple([(period, window(period, hour / 1000)) for period in PERIODS])


def _spent(statement: Any, _names: tuple[str, ...]) -> Any:
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["holder", "period"],
        set_={
            "amount": case((spend.c.window == new.window, spend.c.amount + new.amount), else_=new.amount),
            "window": new.window,
            "changed": new.changed,
        },
        where=spend.c.window <= new.window,
    )


async def present(engine: AsyncEngine, now: float) -> AsyncIterator[tuple[str, str, int]]:
    """(claim's name, window, amount) of all that was spent in a window that is not over at `now` (Unix seconds)."""
    still = [and_(spend.c.period == str(period), spend.c.window >= window(period, now)) for period in PERIODS]
    chosen = select(spend.c.holder, spend.c.period, spend.c.window, spend.c.amount).where(or_(*still))
    async with reading(engine) as connection:
        async for holder, period, name, amount in await connection.stream(chosen):
            yield f"{holder} budget {period}", name, amount


async def spent(engine: AsyncEngine, now: float) -> dict[str, tuple[str, int]]:
    """The same by the claim's name (core.tenancy.Claim.name)."""
    return {name: (of, amount) async for name, of, amount in present(engine, now)}
