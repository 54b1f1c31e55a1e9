"""Questions about usage: sums by whatever they are asked by, and the rows themselves.

Law: sums come from the days and hours that lie wholly within the time asked for, and from rows at its two ends only; all of it from rows
where something is asked that sums do not know. Either way the figures are the same. Times are Unix milliseconds, `until` is not part of it.

A request with several tags counts for each of them when it is asked by tag; never twice in the total.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.stores.sql.engine import reading
from llm_gateway.stores.sql.sums import DAY, HOUR, PLAIN
from llm_gateway.stores.sql.tables import SUMS, daily, hourly, tag_sets, usage

# What may be asked by, and the columns that tell one group from another: a project or user is one of its tenant.
BY: dict[str, tuple[str, ...]] = {
    "tenant": ("tenant",), "project": ("tenant", "project"), "user": ("tenant", "user"), "key": ("tenant", "key_id"), "model": ("model",),
    "provider": ("provider",), "upstream_model": ("provider", "upstream_model"), "tag": ("tag",), "day": ("day",), "hour": ("hour",),
}  # fmt: skip
LENGTHS = {"day": DAY, "hour": HOUR}
FILTERS = ("tenant", "project", "user", "key", "model", "provider", "upstream_model", "tag", "status", "outcome", "request_id", "session")
OF_ROWS_ALONE = frozenset({"status", "outcome", "request_id", "session"})
MEASURES = (*SUMS, "ms")
Found = dict[str, Any]  # a row, or a group and its sums, by name
COLUMNS = tuple(column.name for column in usage.c)


class Question(Struct, frozen=True):
    """`where`: any of several values for each name of FILTERS; a status is a number such as 429, or 4xx. `rows_from`: older rows may be gone."""

    since: int
    until: int
    by: tuple[str, ...] = ()
    where: dict[str, tuple[str, ...]] = {}
    rows_from: int = 0
    limit: int = 100
    offset: int = 0

    def settled(self) -> Question:
        """The time it can be answered for: whole hours where rows are gone, and what rows there are where nothing else would do."""
        since, until = self.since, self.until
        if self.of_rows:
            since = max(since, self.rows_from)
        else:
            since -= since % HOUR if since < self.rows_from else 0
            until += -until % HOUR if until < self.rows_from else 0
        return Question(since, max(since, until), self.by, self.where, self.rows_from, self.limit, self.offset)

    @property
    def of_rows(self) -> bool:
        return not OF_ROWS_ALONE.isdisjoint(self.where)

    def parts(self) -> Iterator[tuple[Table, int, int]]:
        """Where to look for which part of the time."""
        first, last = self.since + -self.since % HOUR, self.until - self.until % HOUR
        if self.of_rows or first >= last:
            yield usage, self.since, self.until
            return
        yield usage, self.since, first
        day, night = first + -first % DAY, last - last % DAY
        if day >= night or "hour" in self.by:
            yield hourly, first, last
        else:
            yield from ((hourly, first, day), (daily, day, night), (hourly, night, last))
        yield usage, last, self.until


class Answer(Struct, frozen=True):
    """`groups`: of the labels asked by, then of MEASURES; `more`: there are others behind them."""

    question: Question
    groups: list[Found]
    total: Found
    more: bool


async def ask(engine: AsyncEngine, question: Question) -> Answer:
    question = question.settled()
    async with reading(engine) as connection:
        groups = await _groups(connection, question)
        total = (await connection.execute(_summed(question, ()))).mappings().one()
    return Answer(question, groups[: question.limit], _whole(total), len(groups) > question.limit)


async def page(engine: AsyncEngine, question: Question, after: tuple[int, str] | None, *, newest_first: bool = True) -> list[Found]:
    """At most `limit` rows, behind the one with that time and id."""
    key = tuple_(usage.c.at, usage.c.id)
    chosen = select(usage).where(usage.c.at >= question.since, usage.c.at < question.until, *_conditions(usage, question))
    if after is not None:
        border = tuple_(literal(after[0], usage.c.at.type), literal(after[1], usage.c.id.type))
        chosen = chosen.where(key < border if newest_first else key > border)
    order = (usage.c.at.desc(), usage.c.id.desc()) if newest_first else (usage.c.at, usage.c.id)
    async with reading(engine) as connection:
        found = await connection.execute(chosen.order_by(*order).limit(question.limit))
        return [dict(each) for each in found.mappings()]


async def _groups(connection: AsyncConnection, question: Question) -> list[Found]:
    labels = tuple(dict.fromkeys(label for each in question.by for label in BY[each]))
    if not labels:
        return []
    summed = _summed(question, labels).subquery()
    times = [summed.c[label] for label in labels if label in LENGTHS]
    rest = [summed.c[label] for label in labels if label not in LENGTHS]
    chosen = select(summed).order_by(*times, summed.c.cost.desc(), summed.c.requests.desc(), *rest)
    found = await connection.execute(chosen.limit(question.limit + 1).offset(question.offset))
    return [_whole(each) for each in found.mappings()]


def _summed(question: Question, labels: tuple[str, ...]) -> Select[Any]:
    parts = [_part(table, since, until, question, labels) for table, since, until in question.parts() if since < until]
    if not parts:
        parts = [_part(usage, 0, 0, question, labels)]
    inner = union_all(*parts).subquery()
    sums = [func.coalesce(func.sum(inner.c[name]), 0).label(name) for name in MEASURES]
    # A key's name is told beside its id, since it is what people know it by.
    names = [func.max(inner.c.key).label("key")] if "key_id" in labels else []
    columns = [inner.c[label] for label in labels]
    return select(*columns, *names, *sums).group_by(*columns)


def _part(table: Table, since: int, until: int, question: Question, labels: tuple[str, ...]) -> Select[Any]:
    time = table.c.at if table is usage else table.c.start
    source: FromClause = table
    columns: list[ColumnElement[Any]] = []
    for label in labels:
        if label in LENGTHS:
            columns.append((time - time % LENGTHS[label]).label(label))
        elif label == "tag":
            source = table.outerjoin(tag_sets, tag_sets.c.tags == table.c.tags)
            columns.append(func.coalesce(tag_sets.c.tag, "").label("tag"))
        else:
            columns.append(table.c[label])
    if "key_id" in labels:
        columns.append(table.c.key)
    measures = _of_rows() if table is usage else [table.c[name] for name in MEASURES]
    return select(*columns, *measures).select_from(source).where(time >= since, time < until, *_conditions(table, question))


def _of_rows() -> list[ColumnElement[Any]]:
    """As sums.py adds rows up."""
    c = usage.c
    request = c.parent == ""
    said: dict[str, ColumnElement[Any]] = {
        "requests": _one(request),
        "failed": _one(and_(request, c.outcome != "ok")),
        "cached": _one(and_(request, c.cached)),
        "absorbed": _one(c.parent != ""),
        "unpriced": _one(and_(c.cost.is_(None), or_(c.input > 0, c.output > 0))),
        "estimated": _one(c.estimated),
        "cache_write": c.cache_write_5m + c.cache_write_1h,
        "cost": func.coalesce(c.cost, 0),
        "saved": func.coalesce(c.saved, 0),
        "ms": case((request, c.ms), else_=0.0),
        **{name: c[name] for name in PLAIN},
    }
    return [said[name].label(name) for name in MEASURES]


def _one(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _conditions(table: Table, question: Question) -> Iterator[ColumnElement[bool]]:
    for name, values in question.where.items():
        if name == "tag":
            yield table.c.tags.in_(select(tag_sets.c.tags).where(tag_sets.c.tag.in_(values)))
        elif name == "key":
            yield or_(table.c.key_id.in_(values), table.c.key.in_(values))
        elif name == "status":
            yield or_(false(), *(_status(value) for value in values))
        else:
            yield table.c[name].in_(values)


def _status(value: str) -> ColumnElement[bool]:
    if value.endswith("xx"):
        first = int(value[0]) * 100
        return usage.c.status.between(first, first + 99)
    return usage.c.status == int(value)


def _whole(found: Any) -> Found:
    """Sums of PostgreSQL are decimals."""
    return {name: float(value) if name == "ms" else int(value) if name in SUMS or name in LENGTHS else value for name, value in found.items()}
