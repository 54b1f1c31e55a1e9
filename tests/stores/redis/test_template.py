"""A call put together beforehand is the call that hiredis would pack."""

from __future__ import annotations

import pytest

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.resp import Script, pack
from llm_gateway.stores.redis.scripts import keys, letter, tag
from llm_gateway.stores.redis.template import Template

SCRIPT = Script(b"s" * 40, b"return 1")
CLAIMS = (Claim("key:100%", "tokens", 60), Claim("user:a/ü {b}", "budget", 10**15, "week", hard=False))


@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("claims", [CLAIMS, CLAIMS[:1], ()])
@pytest.mark.parametrize("seeds", [None, b"5@1 ?"])
def test_it_is_the_same_call(marker, claims, seeds):
    made = Template(SCRIPT, "acme", claims, marker=marker).fill(b"r%d1", b"1 2", seeds)
    names = [key for claim in claims for key in keys("acme", claim)]
    mark = [f"llmgw:{{{tag('acme')}}}:!r%d1"] if marker else []
    said = [word for claim in claims for word in (letter(claim), claim.limit)]
    words = ["EVALSHA", SCRIPT.sha, len(names) + marker, *names, *mark, *said, "r%d1", "1 2", *([seeds] if seeds is not None else [])]
    assert made == pack(*words)


def test_keys_of_one_tenant_have_one_tag_whatever_its_name():
    assert {key.partition(b"}")[0] for claim in CLAIMS for key in keys("a{b}c", claim)} == {b"llmgw:{" + tag("a{b}c").encode()}
    assert tag("a") != tag("b")


def test_long_names_are_hashed_and_stay_apart():
    first, second = (keys("t", Claim("user:" + "x" * 300 + end, "day", 1))[0] for end in "ab")
    assert len(first) < 100
    assert first != second


def test_soft_budgets_are_told_from_hard_ones():
    periods = ("hour", "day", "week", "month", "total")
    assert [letter(Claim("g", "budget", 1, each)) for each in periods] == [*"hywma"]
    assert [letter(Claim("g", "budget", 1, each, hard=False)) for each in periods] == [*"HYWMA"]
