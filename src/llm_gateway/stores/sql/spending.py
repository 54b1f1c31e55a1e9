"""What each holder has spent in the present window of each period, added up with the rows, in their transaction.

Law: a window that is over gives way to the next, and what comes late for one that is over changes nothing. Nano-USD; windows and their
names are those of policies/windows.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import get_args

from sqlalchemy import and_, case, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.core.tenancy import Period, key_id, project_id, tenant_id, user_id
from llm_gateway.policies.windows import window
from llm_gateway.stores.sql.engine import reading
from llm_gateway.stores.sql.rows import Row
from llm_gateway.stores.sql.sums import HOUR, bulk, insertion
from llm_gateway.stores.sql.tables import spend

PERIODS: tuple[Period, ...] = get_args(Period)


def holders(row: Row) -> list[str]:
    """Whose money it was: of key, user, project, tenant those that there are."""
    tenant, project, user, key = row["tenant"], row["project"], row["user"], row["key_id"]
    found = [key_id(key)] if key else []
    found += [user_id(tenant, user)] if user else []
    found += [project_id(tenant, project)] if project else []
    return [*found, tenant_id(tenant)] if tenant else found


async def book(connection: AsyncConnection, rows: Iterable[Row], now: int) -> None:
    """now: Unix milliseconds."""
    known: dict[int, list[tuple[Period, str]]] = {}
    amounts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row["cost"]:
            hour = row["at"] - row["at"] % HOUR  # no window is shorter
            windows = known.get(hour)
            if windows is None:
                windows = known[hour] = [(period, window(period, hour / 1000)) for period in PERIODS]
            for holder in holders(row):
                for period, name in windows:
                    amounts[holder, period, name] = amounts.get((holder, period, name), 0) + row["cost"]
    if not amounts:
        return
    statement = insertion(connection, spend)
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["holder", "period"],
        set_={
            "amount": case((spend.c.window == new.window, spend.c.amount + new.amount), else_=new.amount),
            "window": new.window,
            "changed": new.changed,
        },
        where=spend.c.window <= new.window,
    )
    values = [
        {"holder": holder, "period": period, "window": name, "amount": amount, "changed": now}
        for (holder, period, name), amount in sorted(amounts.items())
    ]
    await bulk(connection, statement, values)


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
