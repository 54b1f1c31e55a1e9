"""Rows added up by hour and day, holder, model, provider and tags, in the transaction that inserts them: so the sums are exact.

Law: what a row adds to its sums is said here alone; whoever adds rows up otherwise (asking.py) is held against it by a test.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import add as add_
from operator import attrgetter
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from llm_gateway.stores.sql.rows import Row
from llm_gateway.stores.sql.tables import DIMENSIONS, SUMS, daily, hourly, tag_sets

Made = Callable[[Any], Any]  # the insert that it begins with -> the statement
HOUR, DAY = 3_600_000, 86_400_000
GRAINS: tuple[tuple[Table, int], ...] = ((hourly, HOUR), (daily, DAY))
ADDED = (*SUMS, "ms")
_PLAIN = ("input", "output", "cache_read", "reasoning", "audio_input", "audio_output", "image_input", "image_output", "searches", "bytes_in", "bytes_out")
PLAIN = {name: attrgetter(name) for name in _PLAIN}
_at = attrgetter("at")


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


@lru_cache(32)
def _written(dialect: Dialect, made: Made, table: Table, names: tuple[str, ...]) -> tuple[str, tuple[int, ...] | None]:
    """The text, and where each of its parameters stands among `names`; None if just as they do."""
    compiled: Any = made(load_insert(dialect.name)(table)).compile(dialect=dialect, column_keys=list(names))
    places = tuple([names.index(name) for name in compiled.positiontup])
    return str(compiled), None if places == tuple(range(len(names))) else places


def plain(statement: Any) -> Any:
    return statement


def sums(rows: Sequence[Row]) -> dict[str, Any]:
    """What rows of the same dimensions add. Of an attempt that was not the reply: its tokens and cost, and no request."""
    requests = [row for row in rows if not row.parent]
    found: dict[str, Any] = {name: sum(map(get, rows)) for name, get in PLAIN.items()}
    return found | {
        "requests": len(requests),
        "failed": sum([row.outcome != "ok" for row in requests]),
        "cached": sum([row.cached for row in requests]),
        "absorbed": len(rows) - len(requests),
        "unpriced": sum([row.cost is None and bool(row.input or row.output) for row in rows]),
        "estimated": sum([row.estimated for row in rows]),
        "cache_write": sum([row.cache_write_5m + row.cache_write_1h for row in rows]),
        "cost": sum([row.cost or 0 for row in rows]),
        "saved": sum([row.saved or 0 for row in rows]),
        "ms": sum([row.ms for row in requests], 0.0),
    }


async def add(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    """Adds them to the hours and days they are of, and notes their tags."""
    by_hour = _by_hour(rows)
    for table, length in GRAINS:
        await bulk(connection, _adding, table, ("start", "place", *DIMENSIONS, *ADDED), _added(by_hour, length))
    await _tags(connection, {row.tags: row.at for row in sorted(rows, key=_at) if row.tags})


def _adding(statement: Any) -> Any:
    table, new = statement.table, statement.excluded
    return statement.on_conflict_do_update(index_elements=["start", "place"], set_={name: table.c[name] + new[name] for name in ADDED})


def _by_hour(rows: Sequence[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(hour, *dimensions) -> what is added there, as ADDED has it."""
    together: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        at = row.at
        together[
            at - at % HOUR, row.tenant, row.project, row.user, row.key_id, row.key, row.model, row.provider, row.upstream_model, row.tags
        ].append(row)
    return {key: _ordered(sums(several)) for key, several in together.items()}


def _added(by_hour: dict[tuple[Any, ...], tuple[Any, ...]], length: int) -> list[tuple[Any, ...]]:
    """By hour or day and dimensions; in one order everywhere, so that two replicas never wait for each other in a circle."""
    found: dict[tuple[int, bytes], tuple[Any, ...]] = {}
    for (hour, *dimensions), added in by_hour.items():
        key = hour - hour % length, sha256("\0".join(dimensions).encode()).digest()[:16]
        before = found.get(key)
        total = added if before is None else tuple(map(add_, before[2 + len(DIMENSIONS) :], added))
        found[key] = (*key, *dimensions, *total)
    return [found[key] for key in sorted(found)]


def _ordered(found: dict[str, Any]) -> tuple[Any, ...]:
    return tuple([found[name] for name in ADDED])


async def _tags(connection: AsyncConnection, sets: dict[str, int]) -> None:
    """sets: of tags, and when each was met last."""
    seen = sorted((tags, tag, at - at % DAY) for tags, at in sets.items() for tag in set(tags.split(",")))
    if seen:
        await bulk(connection, _latest, tag_sets, ("tags", "tag", "seen"), seen)


def _latest(statement: Any) -> Any:
    new = statement.excluded
    return statement.on_conflict_do_update(index_elements=["tags", "tag"], set_={"seen": new.seen}, where=tag_sets.c.seen < new.seen)
