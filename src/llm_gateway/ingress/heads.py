"""Heads that were let pass before. An SDK sends the same one with every request of its life, but for the length of the body.

Law: what is remembered is a head that the parser and every check of ours let pass, byte for byte; only the digits of
Content-Length may differ when it comes again. Nothing about who asks is remembered: keys are looked at each time. Heads with
anything unusual (no length or two, Expect, Transfer-Encoding, Upgrade, Connection other than keep-alive, lines that end otherwise
than in CRLF) are parsed each time, and so are those of connections that never repeat themselves.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange, Route

if TYPE_CHECKING:
    from llm_gateway.ingress.http1 import Connection

LENGTH = b"\r\nContent-Length: "  # as most clients write it
STRANGER = 8  # heads in a row that were not known: this client does not repeat itself
MOST_HEADS = 1024
LONGEST = 4 << 10
MOST_DIGITS = 18  # of a length; the parser has its own opinion on longer ones
UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade"))
_AT, _END = len(LENGTH), b"\r\n\r\n"


class Head(Struct, frozen=True, gc=False):
    """What an Exchange begins with. `headers`: with some length, the right one is put in its place; `request_id`: "" where the
    client named none; `extra`: lines of its reply, for browsers."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    route: Route
    params: tuple[str, ...]
    request_id: str
    extra: bytes


class Heads:
    """By what stands before the digits of Content-Length and what stands after them."""

    __slots__ = ("get", "known")

    def __init__(self) -> None:
        self.known: dict[tuple[bytes, bytes], Head] = {}
        self.get = self.known.get

    def __repr__(self) -> str:
        return f"<Heads: {len(self.known)}>"

    def learn(self, x: Exchange, raw: bytes, *, named: bool) -> bytes:
        """Remembers a head that was let pass. raw: from its first byte to before its empty line; named: the client gave the request's
        id. Returns the line of Content-Length to look for, b"" if this head is not one to remember."""
        headers = x.headers
        length = headers.get(b"content-length")
        fields = len(headers)
        if (
            length is None or len(raw) > LONGEST or UNUSUAL & headers.keys()
            or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive"
            or not raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r") == fields
        ):  # fmt: skip
            return b""
        at = raw.lower().find(LENGTH.lower())
        line = raw[at : at + len(LENGTH)]
        start = at + len(LENGTH)
        if at < 0 or raw.find(line) != at or raw[start : start + len(length) + 2] not in (length + b"\r\n", length):
            return b""
        if len(self.known) >= MOST_HEADS:
            self.known.clear()
        self.known[raw[:start], raw[start + len(length) :]] = Head(
            x.method, x.path, x.query, headers.copy(), x.route, x.params, x.request_id if named else "", x.extra
        )
        return line

    def forget(self) -> None:
        """What is let pass has changed."""
        self.known.clear()


def begin(connection: Connection, view: memoryview, nbytes: int) -> Exchange | None:
    """The request whose head stands in `view` and was let pass before, with what there is of its body; `connection.wanted` bytes of it are
    missing. None: it is to be parsed."""
    server = connection.server
    buffer = server.buffer
    end = buffer.find(_END, 0, nbytes)
    at = buffer.find(connection.spelling, 0, end) + _AT
    if end < 0 or at < _AT or not server.unguarded or connection.trusted:
        return None
    eol = buffer.find(b"\r\n", at, end + 2)
    length = bytes(view[at:eol])
    head = server.heads.get((bytes(view[:at]), bytes(view[eol:end])))
    if head is None or not length.isdigit() or len(length) > MOST_DIGITS:
        connection.strange += 1
        return None
    size, body = int(length), bytes(view[end + 4 : nbytes])
    missing = size - len(body)
    if missing < 0 or size > server.config.max_body or server.body_bytes > server.body_memory:
        return None
    started = perf_counter()
    identity = server.next_id()
    headers = head.headers.copy()
    headers[b"content-length"] = length
    x = Exchange(
        id=identity, client=connection, route=head.route, method=head.method, path=head.path, query=head.query, params=head.params,
        headers=headers, known=head, peer=connection.peer, request_id=head.request_id or identity, started=started,
        wall=started + server.epoch, attempts=[], extra=head.extra, body=body,
    )  # fmt: skip
    try:
        server.again(x)
    except Fault:
        return None  # refused where all refusals are
    connection.strange, connection.mark, connection.wanted = 0, 0.0, missing
    if not missing:
        x.bytes_in = x.held = size
        server.body_bytes += size
    return x


def learn(connection: Connection, x: Exchange) -> None:
    """Remembers the head that was parsed and let pass just now, if all of it stood in one read."""
    server, reading = connection.server, connection.reading
    end = server.buffer.find(_END, 0, len(reading))
    if end > 0 and connection.head_bytes == len(reading) and server.unguarded and not connection.trusted and not x.http10:
        line = server.heads.learn(x, bytes(reading[:end]), named=x.request_id is not x.id)
        connection.spelling = line or connection.spelling
