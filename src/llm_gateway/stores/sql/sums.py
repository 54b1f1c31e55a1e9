"""Rows added up by hour and day, holder, model, provider and tags, in the transaction that inserts them: so the sums are exact.

Law: what a row adds to its sums is said here alone; whoever adds rows up otherwise (asking.py) is held against it by a test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import repeat
from operator import add as add_
from operator import and_, itemgetter, or_
from typing import Any

from msgspec import Struct
from sqlalchemy import Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_gateway.stores.sql.rows import Column, Rows
from llm_gateway.stores.sql.tables import DIMENSIONS, SUMS, daily, hourly, tag_sets

Made = Callable[[Any, tuple[str, ...]], Any]  # the insert that it begins with, and its columns -> the statement
HOUR, DAY = 3_600_000, 86_400_000
GRAINS: tuple[tuple[Table, int], ...] = ((hourly, HOUR), (daily, DAY))
ADDED = (*SUMS, "ms")
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


async def bulk(connection: AsyncConnection, made: Made, table: Table, names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """`made`: the statement, of an INSERT into `table` with these columns. It is written once, and given to the driver with many rows as it is:
    a third of the time, since no type of ours needs a second look on its way."""
    text, places = _written(connection.dialect, made, table, names)
    if places is not None:
        rows = [tuple([row[place] for place in places]) for row in rows]
    await connection.exec_driver_sql(text, rows)


@lru_cache(128)
def _written(dialect: Dialect, made: Made, table: Table, names: tuple[str, ...]) -> tuple[str, tuple[int, ...] | None]:
    """The text, and where each of its parameters stands among `names`; None if just as they do."""
    compiled: Any = made(load_insert(dialect.name)(table), names).compile(dialect=dialect, column_keys=list(names))
    places = tuple([names.index(name) for name in compiled.positiontup])
    return str(compiled), None if places == tuple(range(len(names))) else places


def plain(statement: Any, _names: tuple[str, ...]) -> Any:
    return statement


class Sums(Struct, frozen=True):
    """What rows add: (hour, *DIMENSIONS) -> a number for each of `names`, which are those of ADDED that are not 0 everywhere."""

    names: tuple[str, ...]
    hours: dict[tuple[Any, ...], tuple[Any, ...]]


def measures(rows: Rows) -> dict[str, Column]:
    """What each row adds, by name, without what none of them does. Of an attempt that was not the reply: its tokens and cost, and no request."""
    columns, count = rows.columns, rows.count
    found = {name: columns[name] for name in (*PLAIN, "estimated") if name in columns}
    found["requests"] = requests = [not parent for parent in columns["parent"]] if "parent" in columns else [True] * count
    if "parent" in columns:
        found["absorbed"] = [not request for request in requests]
    if "ms" in columns:
        found["ms"] = columns["ms"] if all(requests) else [ms if request else 0.0 for ms, request in zip(columns["ms"], requests, strict=True)]
    if "cached" in columns:
        found["cached"] = list(map(and_, columns["cached"], requests))
    outcome = columns.get("outcome", ("",) * count)
    if outcome.count("ok") < count:
        found["failed"] = [said != "ok" and request for said, request in zip(outcome, requests, strict=True)]
    if "cache_write_5m" in columns or "cache_write_1h" in columns:
        found["cache_write"] = list(map(add_, _or_zeros(rows, "cache_write_5m"), _or_zeros(rows, "cache_write_1h")))
    for name in ("cost", "saved"):
        if name in columns:
            found[name] = [amount or 0 for amount in columns[name]]
    cost = columns.get("cost", (None,) * count)
    if None in cost:
        used = map(or_, _or_zeros(rows, "input"), _or_zeros(rows, "output"))
        found["unpriced"] = [amount is None and tokens > 0 for amount, tokens in zip(cost, used, strict=True)]
    return found


def _or_zeros(rows: Rows, name: str) -> Column:
    return rows.columns.get(name) or (0,) * rows.count


def added_up(rows: Rows) -> Sums:
    """By hour and dimensions: column by column, each group's part of it at once."""
    found = measures(rows)
    names = tuple([name for name in ADDED if name in found])
    columns = [found[name] for name in names]
    groups: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    hours = [at - at % HOUR for at in rows.columns["at"]] if rows.count else []
    for number, key in enumerate(zip(hours, *[rows.columns.get(name, repeat("")) for name in DIMENSIONS], strict=False)):
        groups[key].append(number)
    return Sums(names, {key: _of(columns, numbers) for key, numbers in groups.items()})


def _of(columns: list[Column], numbers: list[int]) -> tuple[Any, ...]:
    if len(numbers) == 1:
        return tuple([+column[numbers[0]] for column in columns])
    those = itemgetter(*numbers)
    return tuple([sum(those(column)) for column in columns])


async def add(connection: AsyncConnection, sums: Sums) -> None:
    """Adds them to the hours and days they are of, and notes their tags."""
    for table, length in GRAINS:
        await bulk(connection, _adding, table, ("start", "place", *DIMENSIONS, *sums.names), _rows(sums, length))
    latest: dict[str, int] = {}
    for hour, *_, tags in sums.hours:
        latest[tags] = max(hour, latest.get(tags, 0))
    await _tags(connection, latest)


def _adding(statement: Any, names: tuple[str, ...]) -> Any:
    table, new = statement.table, statement.excluded
    adding = {name: table.c[name] + new[name] for name in names if name in ADDED}
    return statement.on_conflict_do_update(index_elements=["start", "place"], set_=adding)


def _rows(sums: Sums, length: int) -> list[tuple[Any, ...]]:
    """By hour or day and dimensions; in one order everywhere, so that two replicas never wait for each other in a circle."""
    found: dict[tuple[int, bytes], tuple[Any, ...]] = {}
    for (hour, *dimensions), added in sums.hours.items():
        key = hour - hour % length, _place(tuple(dimensions))
        before = found.get(key)
        total = added if before is None else tuple(map(add_, before[2 + len(DIMENSIONS) :], added))
        found[key] = (*key, *dimensions, *total)
    return [found[key] for key in sorted(found)]


@lru_cache(1024)
def _place(dimensions: tuple[str, ...]) -> bytes:
    return sha256("\0".join(dimensions).encode()).digest()[:16]


async def _tags(connection: AsyncConnection, sets: dict[str, int]) -> None:
    """sets: of tags, and when each was met last."""
    seen = sorted((tags, tag, at - at % DAY) for tags, at in sets.items() if tags for tag in set(tags.split(",")))
    if seen:
        await bulk(connection, _latest, tag_sets, ("tags", "tag", "seen"), seen)


def _latest(statement: Any, _names: tuple[str, ...]) -> Any:
    new = statement.excluded
    return statement.on_conflict_do_update(index_elements=["tags", "tag"], set_={"seen": new.seen}, where=tag_sets.c.seen < new.seen)
