"""The table of malformed.py against the running server, whole and cut at every byte."""

from __future__ import annotations

import contextlib

import pytest

from ingress.gateway import Gateway, Peer, Upstreams, request
from ingress.malformed import BODY, CASES, CHUNKED, OK, Case, chunks, post

CUT = {
    "CL then TE",
    "a trailer",
    "two spaces before the path",
    "chunked",
    "folded Transfer-Encoding",
    "gzip before chunked",
    "plain",
}


def test_the_table_is_long_and_its_names_are_unique():
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_malformed_is_refused_once_and_the_upstream_sees_nothing(
    gateway: Gateway, upstreams: Upstreams, case: Case
):
    before = len(upstreams.faulty.received)
    with gateway.connect() as client:
        with contextlib.suppress(ConnectionError):  # it may be cut while we still send
            client.send(case.data)
        check(client, case)
    assert len(upstreams.faulty.received) - before == (case.status == OK)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in CUT], ids=lambda case: case.name)
def test_the_cut_changes_nothing(gateway: Gateway, case: Case):
    for at in range(1, len(case.data)):
        with gateway.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.drip(case.data, at)
            check(client, case)


def check(client: Peer, case: Case) -> None:
    reply = client.reply()
    assert reply.status == case.status, reply
    if case.status != OK:
        error = reply.json()["error"]
        assert error["message"]
        assert error["type"]
        if case.closes:
            assert reply.headers["connection"] == "close"
            assert client.all() == b""  # one refusal, then the end


@pytest.mark.parametrize("first", [b"POST /v1/chat", b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nX-A: b"])
def test_what_other_clients_sent_before_does_not_count(gateway: Gateway, first: bytes):
    """The read buffer is shared between connections: it still holds the last one's bytes."""
    whole = request("good", headers=("X-Spaces: a  b  c", "X-A: b"))
    gateway.ask(request("good", padding="  " * 1000))
    with gateway.connect() as client:
        client.drip(post("Content-Length: 0").replace(b"POST /v1/chat", first, 1)[: len(first)] or first, len(first))
        client.close()
    for at in (5, 14, 30, whole.index(b"  ") + 1):
        gateway.ask(request("good", padding="  " * 1000))
        with gateway.connect() as client:
            client.drip(whole, at)
            assert client.reply().status == OK


def test_a_request_without_host_does_not_open_the_way_for_an_empty_one(gateway: Gateway):
    """The last good Host is remembered between connections; none at all is good in HTTP/1.0."""
    without = request("good", version="1.0").replace(b"Host: gateway\r\n", b"")
    assert gateway.ask(without).status == OK
    assert gateway.ask(request("good").replace(b"Host: gateway", b"Host:")).status == 400


def test_trailers_do_not_join_the_next_head(gateway: Gateway):
    smuggled = chunks(end=b"0\r\nAuthorization: Bearer sk-wire\r\n\r\n")
    with gateway.connect() as client:
        client.send(post(CHUNKED, body=smuggled), post(f"Content-Length: {len(BODY)}", base=("Host: gateway",)))
        assert client.reply().status == 400
        assert client.all() == b""


def test_a_head_that_begins_behind_a_body_is_checked_like_any(gateway: Gateway):
    good, bad = (
        post(f"Content-Length: {len(BODY)}"),
        post(f"Content-Length: {len(BODY)}", line="POST  /v1/chat/completions HTTP/1.1"),
    )
    for split in (len(good) + 3, len(good) + 40, len(good) + len(bad)):
        with gateway.connect() as client:
            client.drip(good + bad, split)
            assert client.reply().status == OK
            assert client.reply().status == 400
            assert client.all() == b""


def test_a_million_tiny_chunks_cost_their_bytes_not_forty_times_as_much(gateway: Gateway):
    body = BODY[:-1] + b" " * 400_000 + b"}"
    before = gateway.rss()
    with gateway.connect() as client:
        client.send(post(CHUNKED, body=b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"))
        assert client.reply().status == OK
    assert gateway.rss() - before < 12 << 20
