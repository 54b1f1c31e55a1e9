"""Heads of replies, and what the gateway answers by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from egress.test_cancel import Browser
from ingress.gateway import DONE, Gateway, provider, refused, request, running, snapshot
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.egress.respond import dollars, head, refusal, upstream_id, whole
from llm_gateway.formats.openai_chat import OpenAIChat

KEYED = b"Host: a\r\nAuthorization: Bearer sk-wire\r\n"


def exchange(**more: object) -> Exchange:
    return Exchange(
        id="i",
        request_id="r",
        client=Browser(),
        route=Route("chat", "openai_chat", "c"),
        status=200,
        attempts=[],
        **more,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, b"0"),
        (1, b"0.000000001"),
        (1_000_000_000, b"1"),
        (1_500_000_000, b"1.5"),
        (123_000_000_001, b"123.000000001"),
    ],
)
def test_cost_is_a_decimal_without_exponent(nano: int, text: bytes):
    assert dollars(nano) == text


def test_a_head_reply_is_the_head_alone_with_the_length_of_the_body():
    get, asked = (
        whole(exchange(), b"12345", b"text/plain", 0.0),
        whole(exchange(method=b"HEAD"), b"12345", b"text/plain", 0.0),
    )
    assert get == asked + b"12345"
    assert b"content-length: 5\r\n" in asked


def test_an_upstreams_id_is_repeated_only_if_it_is_harmless():
    assert upstream_id({b"request-id": b"req_1"}) == "req_1"
    for bad in (b"", b"a b", b"a\r\nb", b"\xff", b"x" * 300):
        assert upstream_id({b"x-request-id": bad}) == ""


def test_dropped_parameters_cannot_break_the_head():
    x = exchange(dropped=("a\u20ac",))

    class Target:
        lines = b""

    x.target = Target()
    assert b"x-gateway-dropped-params: a?\r\n" in head(x, b"a/b", b"", 0.0)


def test_a_refusal_says_what_it_was_told_to():
    fault = Fault(Kind.RATE_LIMIT, "Slow down.", retry_after=2.0)
    fault.headers = ((b"x-more", b"1"),)
    said = refusal(exchange(), fault, OpenAIChat(), 0.0)
    assert said.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"retry-after: 2\r\n" in said.lower()
    assert b"x-more: 1\r\n" in said


# -- local ---------------------------------------------------------------------------------------------------------------


def test_health_is_the_briefs_json(gateway: Gateway):
    health = gateway.ask(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").json()
    assert list(health) == ["status", "version", "uptime_seconds", "providers", "dependencies"]
    assert {each["name"] for each in health["providers"]} == {"faulty", "again", "scripted", "claude", "down"}
    assert set(health["providers"][0]) == {"name", "healthy", "latency_ms"}
    assert set(health["dependencies"]) == {"redis", "disk_space_gb"}
    for path in (b"live", b"ready"):
        assert gateway.ask(b"GET /health/%b HTTP/1.1\r\nHost: a\r\n\r\n" % path).json() == {"status": "ok"}


def test_health_is_told_also_where_the_disk_is_gone(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    with running(snapshot(folder, (provider("down", refused()),))) as gateway:
        gateway.folder = folder.rename(tmp_path / "gone")
        told = gateway.ask(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert told.status == 200, told
        assert told.json()["dependencies"]["disk_space_gb"] == 0.0


def test_models_are_listed_in_the_callers_shape(gateway: Gateway):
    listed = gateway.ask(b"GET /v1/models HTTP/1.1\r\n" + KEYED + b"\r\n").json()
    assert listed["object"] == "list"
    assert "connect" in {each["id"] for each in listed["data"]}
    other = gateway.ask(b"GET /v1/models HTTP/1.1\r\n" + KEYED + b"anthropic-version: 2023-06-01\r\n\r\n").json()
    assert (other["has_more"], other["data"][0]["type"], other["first_id"]) == (False, "model", other["data"][0]["id"])


@pytest.mark.parametrize(
    ("name", "status"),
    [(b"connect", 200), (b"faulty%2Fanything", 200), (b"faulty/anything", 200), (b"nobody", 404), (b"%ff", 404)],
)
def test_one_model_is_looked_up_by_its_encoded_name(gateway: Gateway, name: bytes, status: int):
    assert gateway.ask(b"GET /v1/models/%b HTTP/1.1\r\n" % name + KEYED + b"\r\n").status == status


def test_ids_go_through_or_are_replaced(gateway: Gateway):
    assert gateway.ask(request("again/m", headers=("X-Request-ID: mine-1",))).headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 300, "\u00e4"):
        assert (
            gateway.ask(request("again/m").replace(b"Host:", f"X-Request-ID: {bad}\r\nHost:".encode(), 1)).headers[
                "x-request-id"
            ]
            != bad
        )
    assert (
        gateway.ask(request("again/m", path="/v1/messages", headers=("X-Request-ID: m",))).headers["request-id"] == "m"
    )


def test_a_streams_head_says_what_no_proxy_may_buffer(gateway: Gateway):
    reply = gateway.ask(request("again/m", stream=True))
    assert (reply.headers["content-type"], reply.headers["cache-control"], reply.headers["x-accel-buffering"]) == (
        "text/event-stream",
        "no-cache",
        "no",
    )
    assert reply.body.endswith(DONE)
