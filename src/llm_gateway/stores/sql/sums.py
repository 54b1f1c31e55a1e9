"""Rows added up by hour and day, holder, model, provider and tags, in the transaction that inserts them: so the sums are exact.

Law: what a row adds to its sums is said here alone; whoever adds rows up otherwise (asking.py) is held against it by a test.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_gateway.stores.sql.rows import Row
from llm_gateway.stores.sql.tables import DIMENSIONS, SUMS, daily, hourly, tag_sets

HOUR, DAY = 3_600_000, 86_400_000
GRAINS: tuple[tuple[Table, int], ...] = ((hourly, HOUR), (daily, DAY))
PLAIN = ("input", "output", "cache_read", "reasoning", "audio_input", "audio_output", "image_input", "image_output", "searches", "bytes_in", "bytes_out")


def load_insert(dialect: str) -> Any:
    """Only that of the database there is: PostgreSQL's takes a twentieth of the operator's start."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415

        return insert
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite  # noqa: PLC0415

    return insert_sqlite


def insertion(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT that can say what to do about a row that is there; both databases say it alike."""
    return load_insert(connection.dialect.name)(table)


async def bulk(connection: AsyncConnection, statement: Any, rows: list[Row]) -> None:
    """An INSERT of many rows, which name the same columns, given to the driver as it is: a third of the time, since no type of ours needs
    a second look on its way."""
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    names = compiled.positiontup
    await connection.exec_driver_sql(str(compiled), [tuple([row[name] for name in names]) for row in rows])


def sums(row: Row) -> Row:
    """What one row adds. Of an attempt that was not the reply: its tokens and cost, and no request."""
    request = not row["parent"]
    cost = row["cost"]
    return {
        **{name: row[name] for name in PLAIN},
        "requests": int(request),
        "failed": int(request and row["outcome"] != "ok"),
        "cached": int(request and row["cached"]),
        "absorbed": int(not request),
        "unpriced": int(cost is None and bool(row["input"] or row["output"])),
        "estimated": int(row["estimated"]),
        "cache_write": row["cache_write_5m"] + row["cache_write_1h"],
        "cost": cost or 0,
        "saved": row["saved"] or 0,
        "ms": row["ms"] if request else 0.0,
    }


async def add(connection: AsyncConnection, rows: Iterable[Row]) -> None:
    """Adds them to the hours and days they are of, and notes their tags."""
    rows = list(rows)
    for table, length in GRAINS:
        statement = insertion(connection, table)
        names = (*SUMS, "ms")
        statement = statement.on_conflict_do_update(
            index_elements=["start", "place"], set_={name: table.c[name] + statement.excluded[name] for name in names}
        )
        await bulk(connection, statement, _added(rows, length))
    await _tags(connection, rows)


def _added(rows: list[Row], length: int) -> list[Row]:
    """By hour or day and dimensions; in one order everywhere, so that two replicas never wait for each other in a circle."""
    found: dict[tuple[int, bytes], Row] = {}
    for row in rows:
        start = row["at"] - row["at"] % length
        dimensions = {name: row[name] for name in DIMENSIONS}
        key = start, sha256("\0".join(dimensions.values()).encode()).digest()[:16]
        sum_ = found.get(key)
        if sum_ is None:
            found[key] = {"start": start, "place": key[1], **dimensions, **sums(row)}
        else:
            for name, value in sums(row).items():
                sum_[name] += value
    return [found[key] for key in sorted(found)]


async def _tags(connection: AsyncConnection, rows: list[Row]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["tags"]:
            day = row["at"] - row["at"] % DAY
            for tag in row["tags"].split(","):
                seen[row["tags"], tag] = max(day, seen.get((row["tags"], tag), 0))
    if seen:
        statement = insertion(connection, tag_sets)
        statement = statement.on_conflict_do_update(
            index_elements=["tags", "tag"], set_={"seen": statement.excluded.seen}, where=tag_sets.c.seen < statement.excluded.seen
        )
        await bulk(connection, statement, [{"tags": tags, "tag": tag, "seen": day} for (tags, tag), day in sorted(seen.items())])
