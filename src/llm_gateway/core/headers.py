"""Header names and values: what may pass, what is written, how values are checked. Pure.

Law: headers are never forwarded raw. A request or reply is re-serialised from what was parsed and chosen (RFC 9110
section 7.6.1 for the hop-by-hop ones).
"""

from __future__ import annotations

from collections.abc import Iterable

REASONS = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required",
    403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type", 417: b"Expectation Failed",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    499: b"Client Closed Request", 500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
    529: b"Overloaded",
}  # fmt: skip

STATUS_LINES = {status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in REASONS.items()}

# Values a client may make us echo or log: visible ASCII, bounded (RFC 9110 section 5.5 allows more; logs should not).
MAX_ECHO = 200


def status_line(status: int) -> bytes:
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status


def echoable(value: bytes) -> bool:
    """Whether a client's value (a request id, a tag) is safe to repeat in headers and logs."""
    return 0 < len(value) <= MAX_ECHO and value.isascii() and value.decode().isprintable() and b" " not in value


def sendable(secret: str) -> bool:
    """Whether it can stand in a header as it is. With a line break in it, it would be headers and requests of its own."""
    return secret.isascii() and secret.isprintable()


def printable(text: str) -> str:
    """Somebody's words, fit for a terminal or for a log that has a line for each event: what would move a cursor or begin a line is escaped."""
    return text if text.isprintable() else "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def render(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines, each with its CRLF."""
    return b"".join([b"%s: %s\r\n" % pair for pair in headers])
