"""Attempts that did not become the reply: what they cost, where that can be known."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Attempt, Exchange, Route
from llm_gateway.core.types import Usage
from llm_gateway.egress.absorbed import absorbed, given_up, unheard

CHAT = Route("chat", "openai_chat", "/v1/chat/completions", body=True)
EMBED = Route("embed", "openai_embeddings", "/v1/embeddings", body=True)
BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"word " * 80)


class Target:
    provider, model, key_id = "one", "x", "0"

    def price(self, usage: Usage, now: float) -> int | None:
        return usage.input * 10 + usage.output * 20


def exchange(**fields: Any) -> Exchange:
    return Exchange(**({"id": "1", "client": None, "route": CHAT, "body": BODY} | fields))


def test_an_attempt_that_cost_nothing_is_told_without_a_cost():
    x = exchange()
    assert absorbed(x, Target(), "upstream_connect", 0, 1.5) == Attempt("one", "x", "0", "upstream_connect", 0, 1.5)
    assert x.absorbed == 0


def test_what_was_wasted_is_paid_for_once():
    x = exchange(wasted=Usage(input=3, output=2))
    assert absorbed(x, Target(), "escalated_refusal", 502, 1.0) == Attempt("one", "x", "0", "escalated_refusal", 502, 1.0, 3, 2, 70)
    assert absorbed(x, Target(), "timeout", 0, 1.0).cost == 0
    assert x.absorbed == 70


def test_costs_of_several_attempts_add_up():
    x = exchange(wasted=Usage(input=1))
    absorbed(x, Target(), "timeout", 0, 1.0)
    x.wasted = Usage(input=2)
    absorbed(x, Target(), "timeout", 0, 1.0)
    assert x.absorbed == 30


def test_what_nobody_heard_is_estimated_by_the_prompt_and_what_came():
    usage = unheard(exchange(characters=40))
    assert usage is not None
    assert (usage.input, usage.output, usage.estimated) == (102, 10, True)
    assert unheard(exchange(route=EMBED)) is None


@pytest.mark.parametrize(
    ("fault", "fields", "so"),
    [
        (Fault(Kind.TIMEOUT, "silent"), {}, True),
        (Fault(Kind.TIMEOUT, "it said 504 itself", status=504), {}, False),
        (Fault(Kind.UPSTREAM_CONNECT, "nobody"), {}, False),
        (Fault(Kind.UPSTREAM_CUT, "cut"), {}, False),
        (Fault(Kind.TIMEOUT, "silent"), {"committed": True}, False),
        (Fault(Kind.TIMEOUT, "silent"), {"route": EMBED}, False),
    ],
)
def test_only_who_was_plainly_at_work_is_paid_for(fault, fields, so):
    assert given_up(exchange(**fields), fault) is so
