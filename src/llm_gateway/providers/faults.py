"""From an upstream's error reply to a Fault as seen from our side: its 401 is our key's trouble, never the caller's. Pure.

The shape's own reader says what the body means; here the same words get the meaning they have coming from an upstream,
and Retry-After is read (RFC 9110 section 10.2.3: seconds or a date; `retry-after-ms` as OpenAI and Azure send it).
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.contract import Format
from llm_gateway.policies.retry import clamp_retry_after

FROM_UPSTREAM = {
    Kind.UNAUTHENTICATED: Kind.UPSTREAM_AUTH,
    Kind.FORBIDDEN: Kind.UPSTREAM_AUTH,
    Kind.PAYMENT: Kind.UPSTREAM_QUOTA,
    Kind.NO_MODEL: Kind.UPSTREAM_NO_MODEL,
    Kind.NOT_FOUND: Kind.UPSTREAM_NO_MODEL,
    Kind.METHOD: Kind.UPSTREAM_NO_MODEL,
    Kind.RATE_LIMIT: Kind.UPSTREAM_RATE_LIMIT,
    Kind.CONFLICT: Kind.UPSTREAM_CONFLICT,
    Kind.SLOW_CLIENT: Kind.TIMEOUT,
    Kind.INTERNAL: Kind.UPSTREAM_ERROR,
    Kind.UNAVAILABLE: Kind.OVERLOADED,
}
CALLERS = frozenset({400, 413, 422})


def read_fault(form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
    """The Fault for an error reply. `now`: Unix seconds, for Retry-After as a date."""
    fault = form.read_error(status, body)
    fault.kind = FROM_UPSTREAM.get(fault.kind, fault.kind)
    fault.status = status
    fault.retry_after = retry_after(headers, now)
    if status in CALLERS and fault.kind.blame == "caller":
        fault.body, fault.content_type = body, headers.get(b"content-type")
    return fault


def retry_after(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """Seconds to wait, or None. Never raises: upstreams write anything."""
    milliseconds, plain = headers.get(b"retry-after-ms"), headers.get(b"retry-after")
    try:
        if milliseconds is not None:
            return clamp_retry_after(float(milliseconds) / 1e3)
        if plain is None:
            return None
        text = plain.decode("ascii").strip()
        if text[:1].isalpha():
            return clamp_retry_after(max(0.0, parsedate_to_datetime(text).timestamp() - now))
        return clamp_retry_after(float(text))
    except (ValueError, OverflowError, UnicodeDecodeError, TypeError):
        return None
