"""What may be asked about usage, and how answers read."""

from __future__ import annotations

from calendar import timegm

import pytest

from llm_gateway.admin import questions
from llm_gateway.stores.sql.asking import MEASURES, Answer, Question
from stores.sql.made import line, rows

NOW = float(timegm((2026, 11, 27, 12, 0, 0)))
DAY = 86_400_000


def asked(paged: str = "offset", **said: str | list[str]) -> Question:
    return questions.question({name: [value] if isinstance(value, str) else value for name, value in said.items()}, NOW, 90, paged=paged)


def test_without_a_word_it_is_the_last_thirty_days():
    question = asked()
    assert (question.until - question.since, question.by, question.where) == (30 * DAY, (), {})
    assert question.until == NOW * 1000 + 1


def test_everything_said_is_heard():
    said = {"since": "2026-11-01", "until": "2026-11-27T06:00+02:00", "group_by": "tenant, model", "status": "4xx", "limit": "7", "offset": "14"}
    question = asked(**said, tenant=["acme,blue", "red"])
    assert question.since == timegm((2026, 11, 1, 0, 0, 0)) * 1000
    assert question.until == timegm((2026, 11, 27, 4, 0, 0)) * 1000
    assert (question.by, question.limit, question.offset) == (("tenant", "model"), 7, 14)
    assert question.where == {"tenant": ("acme", "blue", "red"), "status": ("4xx",)}


@pytest.mark.parametrize(("text", "back"), [("90s", 90_000), ("30m", 1_800_000), ("24h", DAY), ("7d", 7 * DAY), ("2w", 14 * DAY)])
def test_times_ago(text, back):
    assert asked(since=text).since == NOW * 1000 - back


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"group": "tenant"}, "group: is no parameter"),
        ({"group_by": "tenant,shoe"}, "group_by: `shoe` is nothing to group by"),
        ({"since": "yesterday"}, "since: `yesterday` is no time"),
        ({"since": "999999w"}, "since: "),
        ({"since": "2026-11-27", "until": "2026-11-26"}, "since: is after"),
        ({"status": "teapot"}, "status: `teapot`"),
        ({"limit": "1001"}, "limit: expected a number up to 1000"),
        ({"limit": "-1"}, "limit: "),
        ({"limit": "²"}, "limit: "),
        ({"since": ["1d", "2d"]}, "since: is given 2 times"),
        ({"cursor": "x"}, "cursor: is no parameter"),
    ],
)
def test_what_cannot_be_asked_is_said_by_name(said, message):
    with pytest.raises(ValueError, match=message):
        asked(**said)


def test_groups_are_for_other_answers_than_rows():
    with pytest.raises(ValueError, match="group_by"):
        asked("cursor", group_by="tenant")


def test_a_cursor_leads_back_to_its_row():
    row = vars(rows(line())[0])
    assert questions.behind({"cursor": [questions.cursor(row)]}) == (row["at"], "a")
    assert questions.behind({}) is None
    for wrong in ("!!!", "AAAA", "YQ=="):
        with pytest.raises(ValueError, match="cursor"):
            questions.behind({"cursor": [wrong]})


def test_money_is_told_to_the_last_nano_usd():
    sums = dict.fromkeys(MEASURES, 0) | {"cost": 1_234_567_890_123_456_789, "saved": 5}
    groups = [{"hour": 3_600_000, "day": 0, "tenant": "acme", **sums}]
    told = questions.sums(Answer(Question(0, 1, ("hour", "day", "tenant"), limit=1), groups, sums, more=True))
    (group,) = told["data"]
    assert (group["cost_nano_usd"], group["saved_usd"], group["tenant"]) == (1_234_567_890_123_456_789, 5e-09, "acme")
    assert (group["hour"], group["day"]) == ("1970-01-01T01:00Z", "1970-01-01")
    assert told["next_offset"] == 1


def test_a_row_reads_as_people_write():
    shown = questions.row(vars(rows(line(tags=["a", "b"]))[0]))
    assert (shown["ts"], shown["tags"], shown["cost_nano_usd"], shown["cost_usd"]) == ("2026-11-27T01:02:03.004Z", ["a", "b"], 1000, 1e-06)
    assert questions.row(vars(rows(line(cost=None))[0]))["cost_usd"] is None


@pytest.mark.parametrize("at", [10**19, -(10**19), -1])
def test_a_cursor_beyond_all_time_is_none(at: int) -> None:
    with pytest.raises(ValueError, match="cursor"):
        questions.behind({"cursor": [questions.cursor({"at": at, "id": "x"})]})
