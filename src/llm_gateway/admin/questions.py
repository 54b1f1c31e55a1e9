"""Query strings -> questions about usage, and answers -> JSON. For the admin API and for the command line.

Law: pure; `now` is an argument. ValueError says what is wrong with a parameter, by its name. Money is told in whole nano-USD and, for
reading, in USD.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_gateway.stores.sql.asking import BY, FILTERS, LENGTHS, MEASURES, Answer, Found, Question
from llm_gateway.stores.sql.sums import DAY

NANO = 1_000_000_000
MOST = 1000
DAYS = 30  # asked for if nothing is said
MONEY = ("cost", "saved")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STATUS = re.compile(r"[1-9]\d\d|[1-9]xx")
_TABLED = ("since", "until", "limit")


def question(said: Mapping[str, list[str]], now: float, usage_days: int, *, paged: str = "offset") -> Question:
    """said: each parameter's values; words between commas are values of their own. now: Unix seconds. paged: by what more is asked for,
    `offset` or `cursor`, if it is."""
    known = {*_TABLED, *FILTERS, *{"offset": ("group_by", "offset"), "cursor": ("cursor",)}.get(paged, ("format",))}
    unknown = [name for name in said if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0][:100]}: is no parameter; these there are: {', '.join(sorted(known))}")
    by = tuple(dict.fromkeys(words(said.get("group_by", ()))))
    wrong = [each for each in by if each not in BY]
    if wrong:
        raise ValueError(f"group_by: `{wrong[0]}` is nothing to group by; these there are: {', '.join(BY)}")
    until = moment(one(said, "until"), now, "until") or int(now * 1000) + 1
    since = moment(one(said, "since"), now, "since")
    since = until - DAYS * DAY if since is None else since
    if since > until:
        raise ValueError("since: is after `until`")
    where = {name: words(said[name]) for name in FILTERS if name in said}
    for value in where.get("status", ()):
        if not _STATUS.fullmatch(value):
            raise ValueError(f"status: `{value}` is no status; write 429, or 4xx for all of them")
    rows_from = int(now * 1000) - usage_days * DAY
    limit, offset = _number(said, "limit", 100, MOST), _number(said, "offset", 0, 10_000_000)
    return Question(since, until, by, where, rows_from + -rows_from % DAY, max(1, limit), offset)


def words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word.strip() for value in values for word in value.split(","))


def moment(text: str, now: float, name: str) -> int | None:
    """Unix milliseconds; None if nothing is said. A time, a day (its start, UTC), or 30m, 24h, 7d ago."""
    if not text:
        return None
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            at = int(now * 1000) - timedelta(**{_UNITS[ago[2]]: int(ago[1])}) // timedelta(milliseconds=1)
        else:
            found = datetime.fromisoformat(text)
            at = ((found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
        if at < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: `{text}` is no time; write 2026-01-31, 2026-01-31T12:00Z, 30m, 24h or 7d") from None
    return at


def stamp(at: int) -> str:
    """Unix milliseconds as RFC 3339."""
    return f"{EPOCH + timedelta(milliseconds=at):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def sums(answer: Answer) -> dict[str, Any]:
    asked = answer.question
    return {
        "since": stamp(asked.since),
        "until": stamp(asked.until),
        "group_by": list(asked.by),
        "data": [_group(each) for each in answer.groups],
        "total": _group(answer.total),
        "next_offset": asked.offset + asked.limit if answer.more else None,
    }


def _group(found: Found) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in found.items():
        if name in LENGTHS:
            shown[name] = stamp(value)[: 10 if name == "day" else 13] + ("" if name == "day" else ":00Z")
        elif name in MONEY:
            shown |= {f"{name}_nano_usd": value, f"{name}_usd": value / NANO}
        elif name in MEASURES or value is not None:
            shown[name] = round(value, 3) if name == "ms" else value
    return shown


def row(found: Found) -> dict[str, Any]:
    """A row as people read it: times and tags written out, money in nano-USD and USD (null: unpriced)."""
    shown: dict[str, Any] = {"ts": stamp(found["at"])}
    for name, value in found.items():
        if name in MONEY:
            shown |= {f"{name}_nano_usd": value, f"{name}_usd": None if value is None else value / NANO}
        elif name == "tags":
            shown[name] = value.split(",") if value else []
        elif name != "at":
            shown[name] = value
    return shown


def cursor(found: Found) -> str:
    """Of the last row of a page: where the next one begins."""
    return base64.urlsafe_b64encode(f"{found['at']} {found['id']}".encode()).decode()


def behind(said: Mapping[str, list[str]]) -> tuple[int, str] | None:
    text = one(said, "cursor")
    if not text:
        return None
    try:
        at, _, identity = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        if not 0 <= int(at) < 2**62:
            raise ValueError
        return int(at), identity
    except ValueError:
        raise ValueError("cursor: is none that this gateway gave") from None


def one(said: Mapping[str, list[str]], name: str) -> str:
    """Empty if it is not there. ValueError where it is said twice."""
    values = said.get(name, [])
    if len(values) > 1:
        raise ValueError(f"{name}: is given {len(values)} times")
    return values[0].strip() if values else ""


def _number(said: Mapping[str, list[str]], name: str, usual: int, most: int) -> int:
    text = one(said, name)
    if not text:
        return usual
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise ValueError(f"{name}: expected a number up to {most}")
    return int(text)
