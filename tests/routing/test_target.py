"""The request a target gets: bytes, headers by rank, and what is remembered of them."""

from __future__ import annotations

import pytest

from llm_gateway.core.types import Usage
from llm_gateway.formats.contract import Outgoing
from llm_gateway.routing.target import MOST_HEADS, Limits
from routing.conftest import asked

CHAT = Outgoing(b'{"model":"gpt-4o"}', "/chat/completions")
CONFIG = """
providers:
  openai: {base_url: "http://127.0.0.1:8001", api_key: sk-o, headers: {X-Team: blue, User-Agent: ours}}
  plain: {type: openai, base_url: "http://[::1]:8001/v1", api_key: sk-p}
  azure: {base_url: "https://example.openai.azure.com", api_key: k, deployments: {gpt-4o: eu}}
"""


@pytest.fixture
def target(table):
    made = table(CONFIG)
    return lambda model: made.course(asked(model))[1].target


def test_the_whole_request(target) -> None:
    assert target("openai/gpt-4o").request(CHAT, 0.0) == (
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        b"host: 127.0.0.1:8001\r\n"
        b"content-type: application/json\r\n"
        b"accept-encoding: identity\r\n"
        b"authorization: Bearer sk-o\r\n"
        b"x-team: blue\r\n"
        b"user-agent: ours\r\n"
        b"content-length: 18\r\n"
        b"\r\n"
        b'{"model":"gpt-4o"}'
    )


def test_an_ipv6_host_is_bracketed_and_we_have_a_name(target) -> None:
    request = target("plain/gpt-4o").request(CHAT, 0.0)
    assert b"host: [::1]:8001\r\n" in request
    assert b"user-agent: llm-gateway\r\n" in request


def test_each_body_goes_with_its_own_length(target) -> None:
    one = target("openai/gpt-4o")
    for body in (b"{}", b'{"a":1}', b"{}"):
        request = one.request(Outgoing(body, "/chat/completions"), 0.0)
        assert request.endswith(b"content-length: %d\r\n\r\n%b" % (len(body), body))


def test_the_configurations_header_wins_over_the_clients(target) -> None:
    asked = Outgoing(b"{}", "/chat/completions", headers=((b"x-team", b"red"), (b"openai-beta", b"x")))
    request = target("openai/gpt-4o").request(asked, 0.0)
    assert request.count(b"x-team") == 1
    assert b"x-team: blue\r\n" in request
    assert b"openai-beta: x\r\n" in request


def test_what_clients_vary_is_remembered_within_bounds(target) -> None:
    one = target("openai/gpt-4o")
    for number in range(3 * MOST_HEADS):
        asked = Outgoing(b"{}", "/chat/completions", headers=((b"openai-beta", b"%d" % number),))
        assert b"openai-beta: %d\r\n" % number in one.request(asked, 0.0)
    assert len(one._heads) <= MOST_HEADS


def test_a_provider_that_rewrites_bodies_does_so_every_time(target) -> None:
    one = target("azure/gpt-4o")
    for _ in range(3):
        assert one.request(CHAT, 0.0).endswith(b'content-length: 14\r\n\r\n{"model":"eu"}')


def test_who_answered_is_told_in_visible_ascii(target) -> None:
    lines = target("openai/gpt-4o\r\nevil: 1é").lines
    assert lines == b"x-gateway-provider: openai\r\nx-gateway-model: gpt-4o??evil: 1??\r\n".replace(b": 1", b":?1")


def test_a_target_prints_without_its_key(target) -> None:
    assert repr(target("openai/gpt-4o")) == "<Target openai/gpt-4o key 0>"


def test_an_aliases_limit_for_the_first_chunk() -> None:
    assert Limits(10, 20, 30, 4).within(1.5) == Limits(10, 20, 1.5, 4)


NOW = 1_795_176_000.0  # 20 November 2026


def test_the_tier_a_reply_names_is_the_tier_it_is_billed_by(target) -> None:
    one = target("openai/gpt-6-sol")
    usage = {tier: Usage(input=1000, output=100, tier=tier) for tier in (None, "flex", "priority", "batch", "unheard-of")}
    cost = {tier: one.price(each, NOW) for tier, each in usage.items()}
    assert cost == {None: 3_000_000, "flex": 1_500_000, "priority": 6_000_000, "batch": 1_500_000, "unheard-of": 3_000_000}


def test_prices_of_tiers_change_with_the_others(target) -> None:
    one, usage = target("openai/gpt-6-sol"), Usage(input=1000, output=100, tier="flex")
    assert one.price(usage, 1_791_763_200 - 1) == 3_000_000, "the day before flex has a price"
    assert one.price(usage, 1_791_763_200 + 100) == 1_500_000


def test_replies_of_a_model_that_goes_say_so(table) -> None:
    made = table(CONFIG + "catalogue: {openai/ours: {deprecated: true}, openai/gpt-4: {deprecated: false}}")
    lines = {name: made.course(asked(f"openai/{name}"))[1].target.lines for name in ("ours", "gpt-3.5-turbo", "gpt-4", "gpt-4o")}
    told = {name for name, each in lines.items() if b"x-gateway-deprecated: true\r\n" in each}
    assert told == {"ours", "gpt-3.5-turbo"}
