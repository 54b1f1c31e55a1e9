"""How replies look on the wire: heads with the gateway's own headers, whole replies, refusals. Pure but for the Exchange.

Law: never a header of the upstream's that was not chosen; never two lengths; a HEAD gets the head alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange
from llm_gateway.core.headers import STATUS_LINES, echoable, render, status_line
from llm_gateway.formats.contract import Format, Outgoing

JSON = b"application/json"
UPSTREAM_IDS = (b"x-request-id", b"request-id", b"apim-request-id", b"x-amzn-requestid")


def dollars(cost: int) -> bytes:
    """Nano-USD as a decimal in USD, without exponent or trailing zeros."""
    return (b"%.9f" % (cost / 1e9)).rstrip(b"0").rstrip(b".")


def upstream_id(headers: Mapping[bytes, bytes]) -> str:
    for name in UPSTREAM_IDS:
        value = headers.get(name)
        if value is not None and echoable(value):
            return value.decode()
    return ""


def head(x: Exchange, content_type: bytes, framing: bytes, now: float, more: bytes = b"") -> bytes:
    """A reply's head. framing: the line that says its length; now: perf_counter; more: whole header lines."""
    target = x.target
    ours = b""
    if target is not None:
        ours = b"%bx-gateway-attempts: %d\r\nx-gateway-fallbacks: %d\r\n" % (target.lines, x.tries, x.fallbacks)
        if x.upstream_id:
            ours += b"x-gateway-upstream-request-id: %b\r\n" % x.upstream_id.encode()
        if x.upstream_ms:
            theirs = b"%.1f" % x.upstream_ms
            # Ours is what was before the first attempt and after the last one, not what failed in between.
            ours_ms = (now - x.upstream_started + x.first_sent - x.started) * 1e3 - x.upstream_ms
            overhead = b"%.3f" % ours_ms
            ours += (
                b"x-gateway-upstream-ms: %b\r\nx-gateway-overhead-ms: %b\r\nserver-timing: upstream;dur=%b, gateway;dur=%b\r\n"
                % (theirs, overhead, theirs, overhead)
            )
        if x.cost is not None:
            ours += b"x-gateway-cost: %b\r\n" % dollars(x.cost)
        if x.dropped:
            ours += b"x-gateway-dropped-params: %b\r\n" % _visible(", ".join(x.dropped))
    if x.route.id_header:
        ours += b"%b: %b\r\n" % (x.route.id_header, x.request_id.encode())
    return b"%bcontent-type: %b\r\n%bx-request-id: %b\r\n%b%b%b%b\r\n" % (
        STATUS_LINES.get(x.status) or status_line(x.status), content_type, framing, x.request_id.encode(), ours, x.extra, more,
        b"" if x.keep_alive else b"connection: close\r\n",
    )  # fmt: skip


def _visible(text: str) -> bytes:
    """As a header's value may be: clients choose some of these names, line ends and all."""
    return bytes(b if 0x20 <= b < 0x7F else 0x3F for b in text[:1024].encode("ascii", "replace"))


def whole(x: Exchange, body: bytes, content_type: bytes, now: float, more: bytes = b"") -> bytes:
    """A whole reply, head and body."""
    x.bytes_out = len(body)
    top = head(x, content_type, b"content-length: %d\r\n" % len(body), now, more)
    return top if x.method == b"HEAD" else top + body


def refusal(x: Exchange, fault: Fault, form: Format, now: float) -> bytes:
    """The reply that tells of a fault, in the shape of the API the client speaks."""
    outgoing = form.write_error(fault, x.request_id)
    x.status = outgoing.status
    extra = [pair for pair in outgoing.headers if pair[0] != b"content-type"]
    kind = next((value for name, value in outgoing.headers if name == b"content-type"), JSON)
    return whole(x, outgoing.body, kind, now, render(extra))


def plain(x: Exchange, outgoing: Outgoing, now: float, more: bytes = b"") -> bytes:
    """A whole reply of ours or of a crossing."""
    x.status = outgoing.status
    return whole(x, outgoing.body, JSON, now, more + render(p for p in outgoing.headers if p[0] != b"content-type"))
