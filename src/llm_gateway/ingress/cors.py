"""Cross-origin rules for browsers (https://fetch.spec.whatwg.org/#http-cors-protocol). Pure; off unless configured."""

from __future__ import annotations

from collections.abc import Mapping

METHODS = b"GET, POST, DELETE, OPTIONS"
EXPOSED = b"x-request-id, x-gateway-provider, x-gateway-model, x-gateway-cost, retry-after"


def lines(headers: Mapping[bytes, bytes], origins: tuple[str, ...], max_age: int) -> bytes:
    """Header lines for a reply to these request headers; b"" where the origin is not allowed."""
    origin = headers.get(b"origin")
    if origin is None or not ("*" in origins or origin.decode("latin-1") in origins):
        return b""
    allowed = b"access-control-allow-origin: %b\r\nvary: origin\r\naccess-control-expose-headers: %b\r\n" % (
        origin,
        EXPOSED,
    )
    asked = headers.get(b"access-control-request-method")
    if asked is None:
        return allowed
    wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
    return allowed + (
        b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\naccess-control-max-age: %d\r\n"
        % (METHODS, wanted, max_age)
    )
