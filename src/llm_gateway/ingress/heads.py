"""Heads that were let pass before. An SDK sends the same one with every request of its life, but for the length of the body.

Law: what is remembered is a head that the parser and every check of ours let pass, byte for byte; only the digits of
Content-Length may differ when it comes again. Nothing about who asks is remembered: keys are looked at each time. Heads with
anything unusual (no length or two, Expect, Transfer-Encoding, Upgrade, Connection other than keep-alive, lines that end otherwise
than in CRLF) are parsed each time, and so are those of connections that never repeat themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_gateway.core.exchange import Exchange, Route

LENGTH = b"\r\nContent-Length: "  # as most clients write it
MOST_HEADS = 1024
LONGEST = 4 << 10
UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade"))


class Head(Struct, frozen=True, gc=False):
    """What an Exchange begins with. `request_id`: "" where the client named none; `extra`: lines of its reply, for browsers."""

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
            x.method, x.path, x.query, _without_length(headers), x.route, x.params, x.request_id if named else "", x.extra
        )
        return line

    def forget(self) -> None:
        """What is let pass has changed."""
        self.known.clear()


def _without_length(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in headers.items() if name != b"content-length"}
