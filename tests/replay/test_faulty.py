"""Each fault is what its name says, seen from a raw socket."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from replay.faulty import COMPLETION, END, FAULTS, WORDS, FaultyUpstream, faulty, refused_port

REQUEST = b'{"model":"m","stream":true}'


async def converse(port: int, path: str = "/v1/chat/completions", body: bytes = REQUEST, patience: float = 0.4) -> tuple[bytes, str]:
    """What came, and how it ended: `eof`, `reset` or `open`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    seen, end = b"", "open"
    try:
        async with asyncio.timeout(patience):
            while data := await reader.read(1 << 20):
                seen += data
            end = "eof"
    except ConnectionResetError:
        end = "reset"
    except TimeoutError:
        pass
    writer.transport.abort()
    return seen, end


@pytest.mark.parametrize(
    ("fault", "holds", "lacks", "end"),
    [
        ("ok", b"[DONE]", b"error", "open"),
        ("reset_at_once", b"", b"HTTP", "reset"),
        ("close_at_once", b"", b"HTTP", "eof"),
        ("rst_midstream", b"three", b"[DONE]", "reset"),
        ("cut_midstream", b"three", b"0\r\n\r\n", "eof"),
        ("cut_mid_event", b"two", b"three", "eof"),
        ("clean_end_without_finish", b"0\r\n\r\n", b"[DONE]", "open"),
        ("close_delimited_stream", b"[DONE]", b"chunked", "eof"),
        ("close_delimited", COMPLETION, b"content-length", "eof"),
        ("stall", b"", b"HTTP", "open"),
        ("stall_after_head", b"200", b"data", "open"),
        ("stall_midstream", b"three", b"[DONE]", "open"),
        ("status:429,retry-after=30", b"retry-after: 30", b"200", "open"),
        ("error_in_200", b'{"error"', b"One", "open"),
        ("error_midstream", b'{"error"', b"[DONE]", "open"),
        ("role_only_then_cut", b'"content": ""', b"One", "eof"),
        ("html", b"<html>", b"choices", "open"),
        ("truncated_json", COMPLETION[:50], b"usage", "open"),
        ("short_body", COMPLETION, b"chunked", "eof"),
        ("gzipped", b"content-encoding: gzip", b"choices", "open"),
        ("informational", b"HTTP/1.1 103", b"error", "open"),
        ("endless_line:1", b"data: ", b"\n\n", "eof"),
        ("bad_framing", b"content-length: 5", b"error", "open"),
        ("then_close", b"[DONE]", b"connection: close", "eof"),
    ],
)
async def test_faults(fault: str, holds: bytes, lacks: bytes, end: str) -> None:
    async with faulty() as upstream:
        body = json.dumps({"model": f"fault-{fault}", "stream": True}).encode()
        seen, ended = await converse(upstream.port, body=body)
    assert holds in seen
    assert lacks not in seen
    assert ended == end


async def test_slow_bytes_arrive_whole() -> None:
    async with faulty("slow_bytes:0.0001") as upstream:
        seen, _ = await converse(upstream.port, patience=5)
    assert seen.endswith(b"0\r\n\r\n")
    assert all(each in seen for each in (*WORDS, *END))


async def test_a_gzip_bomb_is_small_on_the_wire() -> None:
    async with faulty("gzip_bomb") as upstream:
        seen, _ = await converse(upstream.port, patience=2)
    assert 10_000 < len(seen) < 200_000


async def test_a_script_plays_in_turn_and_then_serves_well() -> None:
    async with faulty("status:503", "html") as upstream:
        replies = [(await converse(upstream.port))[0][:12] for _ in range(3)]
        kinds = [(await converse(upstream.port))[0] for _ in range(1)]
    assert replies == [b"HTTP/1.1 503", b"HTTP/1.1 200", b"HTTP/1.1 200"]
    assert b"[DONE]" in kinds[0]


async def test_a_fault_in_the_path() -> None:
    async with faulty() as upstream:
        seen, _ = await converse(upstream.port, "/fault/status:500/v1/chat/completions", b"")
    assert seen.startswith(b"HTTP/1.1 500")


async def test_a_leaving_client_is_noticed_even_in_a_stall() -> None:
    async with faulty("stall") as upstream:
        started = time.perf_counter()
        await converse(upstream.port, patience=0.1)
        await asyncio.wait_for(upstream.gone.wait(), 1)
        assert time.perf_counter() - started < 1
        await settled(upstream)


async def settled(upstream: FaultyUpstream) -> None:
    async with asyncio.timeout(1):
        while upstream.open:
            await asyncio.sleep(0.005)


def test_a_refused_port_refuses() -> None:
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(("127.0.0.1", refused_port()))


def test_every_fault_says_what_it_is() -> None:
    undescribed = [name for name, fault in FAULTS.items() if not fault.__doc__ and "stall" not in name and "error" not in name]
    assert undescribed == []
