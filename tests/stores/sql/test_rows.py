"""Lines of the journal, of this version and of others, become rows whose sums come out right."""

from __future__ import annotations

import msgspec
import pytest

from llm_gateway.accounting.ledger import Row as Written
from llm_gateway.stores.sql.asking import COLUMNS
from llm_gateway.stores.sql.rows import AT_ONCE, Line, decode, moment
from stores.sql.made import UNSAID, line, rows, table


def test_a_line_becomes_a_row_with_every_column():
    (row,) = rows(line(tags=["a", "b"], cache_write=7, cache_write_1h=3, tier="flex"))
    assert set(vars(row)) == set(COLUMNS)
    assert row.at == 1_795_741_323_004
    assert (row.tags, row.cache_write_5m, row.cache_write_1h, row.tier, row.cost) == ("a,b", 4, 3, "flex", 1000)
    assert (row.tenant, row.project, row.user, row.key_id, row.key) == ("acme", "search", "bob", "k1", "ci")


def test_every_field_that_workers_write_is_known():
    known = {field.name for field in msgspec.structs.fields(Line)}
    assert {field.name for field in msgspec.structs.fields(Written)} == known


def test_what_an_older_gateway_did_not_write_has_its_default():
    (row,) = rows(b'{"ts":"2026-11-27T01:02:03.004Z","id":"a","tenant":"acme","key":null}\n')
    assert (row.tenant, row.key_id, row.prices, row.cost, row.input, row.outcome) == ("acme", "", "", None, 0, "ok")


def test_a_request_that_was_nobodys_is_the_audit_logs():
    assert rows(line(tenant=None, key=None, status=401, outcome="invalid_api_key", more=3)) == []


def test_what_a_newer_gateway_writes_besides_is_left_out():
    (row,) = rows(line(novelty={"a": 1}))
    assert set(vars(row)) == set(COLUMNS)


def test_attempts_that_cost_money_are_rows_of_their_own_and_the_sum_is_the_lines_cost():
    attempts = [
        {"provider": "small", "model": "s", "key": "0", "outcome": "escalated_refusal", "status": 502, "ms": 5.5, "input": 20, "output": 3, "cost": 300},
        {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "status": 0, "ms": 9.0, "input": 20, "cost": 50, "estimated": True},
        {"provider": "down", "model": "d", "key": "0", "outcome": "upstream_connect", "status": 0, "ms": 0.5},
        {"provider": "openai", "model": "gpt-4o", "key": "0", "outcome": "ok", "status": 200, "ms": 7.0},
    ]
    request, sent_back, given_up = rows(line(attempts=attempts, cost=1000))
    assert sum(row.cost for row in (request, sent_back, given_up)) == 1000
    assert (request.cost, request.attempts, request.parent) == (650, 4, "")
    assert (sent_back.id, sent_back.parent, sent_back.provider, sent_back.input, sent_back.cost) == ("a.0", "a", "small", 20, 300)
    assert (given_up.id, given_up.estimated, given_up.outcome, given_up.tenant) == ("a.1", True, "timeout", "acme")


def test_nobody_was_asked_for_a_reply_from_the_cache():
    """As its `x-gateway-attempts` says."""
    (kept,), (asked,), (refused,) = rows(line(cached=True, cost=0)), rows(line()), rows(line(provider=""))
    assert (kept.attempts, asked.attempts, refused.attempts) == (0, 1, 0)


def test_a_request_that_failed_in_the_end_is_unpriced_and_its_attempts_are_not():
    lost = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "status": 0, "ms": 9.0, "input": 20, "cost": 50}
    request, attempt = rows(line(attempts=[lost], cost=None, status=504, outcome="timeout"))
    assert (request.cost, attempt.cost) == (None, 50)


def test_what_postgresql_does_not_take_is_replaced():
    (row,) = rows(line(error="bad\0news", outcome="upstream_error"))
    assert row.error == "bad\ufffdnews"


@pytest.mark.parametrize(
    "broken",
    [
        b"\n", b"{}\n", b'{"ts":"2026-11-27T01:02:03.004Z"}\n', b"not json\n", line(id=""), line(input=-1), line(input=2**63), line(cost=1.5),
        line(ts="yesterday"), line(ts="2026-13-27T01:02:03.004Z"), line(ts="2026-11-27 01:02:03.004Z"), line()[:-20] + b"\n", b"\x00\x00\n",
        line(error="\ud800"), b"[1]\n",
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(broken):
    found, refused = decode([line(id="1"), broken, line(id="2")])
    assert found.columns["id"] == ["1", "2"]
    assert list(refused) == [1]
    assert refused[1]


@pytest.mark.parametrize("ts", ["yesterday", "2026-13-27T01:02:03.004Z", "2026-11-27 01:02:03.004Z", "2026-11-27T01:02:03.+04Z", "2026-11-27T01:02:03.0045"])
def test_what_is_no_time(ts):
    with pytest.raises(ValueError, match="no time"):
        moment(ts)


def test_many_lines_become_the_rows_that_each_of_them_does():
    lost = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "ms": 9.0, "cost": 5}
    lines = [
        line(
            id=f"{n}", attempts=[lost] * (n % 300 == 7), tags=["a"] * (n % 2), cost=n or None, key=None if n % 3 else "ci", cache_write=n % 5,
            tier="flex" if n == 9 else None,
        )
        for n in range(2 * AT_ONCE + 9)
    ]  # fmt: skip
    lines[11:11] = [line(tenant=None, key=None)]
    together = sorted((vars(row) for row in rows(*lines)), key=lambda row: row["id"])
    assert together == sorted((vars(row) for each in lines for row in rows(each)), key=lambda row: row["id"])


def test_a_column_that_nobody_used_is_left_out_and_has_what_the_table_says():
    assert set(table(line()).columns) == {name for name, value in vars(rows(line())[0]).items() if value != UNSAID[name]}
    assert table(line(cost=0)).columns["cost"] == [0], "which is not unknown"


def test_a_line_is_as_it_is_written():
    """msgspec looks for the next field first."""
    assert Line.__struct_fields__ == Written.__struct_fields__
