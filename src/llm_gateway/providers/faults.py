"""From an upstream's error reply to a Fault as seen from our side: its 401 is our key's trouble, never the caller's. Pure.

The shape's own reader says what the body means and whether a same-shape client may have it as it came; here the same words
get the meaning they have coming from an upstream. A rate limit's words are not passed on: they name our account and tell
what others use of it. Retry-After is read (RFC 9110 section 10.2.3: seconds or a date; `retry-after-ms` as OpenAI and Azure send it).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.contract import Format
from llm_gateway.policies.quota import pause
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
RATE_LIMITED = "The provider's rate limit for this gateway is reached; try again later."


def read_fault(form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
    """The Fault for an error reply. `now`: Unix seconds, for Retry-After as a date."""
    fault = form.read_error(status, body)
    fault.kind = FROM_UPSTREAM.get(fault.kind, fault.kind)
    fault.status = status
    fault.retry_after = retry_after(headers, now)
    if fault.kind is Kind.UPSTREAM_RATE_LIMIT:
        fault.message = RATE_LIMITED
        if fault.retry_after is None:
            fault.retry_after = pause(headers, now) or None
    return fault


def retry_after(headers: Mapping[bytes, bytes], now: float) -> float | None:
    """Seconds to wait, or None. Never raises: upstreams write anything."""
    milliseconds, plain = headers.get(b"retry-after-ms"), headers.get(b"retry-after")
    if milliseconds is not None:
        seconds = clamp_retry_after(_number(milliseconds, 1e-3))
        if seconds is not None:
            return seconds
    if plain is None:
        return None
    if plain.strip()[:1].isalpha():
        return clamp_retry_after(_until(plain, now))
    return clamp_retry_after(_number(plain, 1.0))


def _number(text: bytes, unit: float) -> float | None:
    try:
        return float(text) * unit
    except ValueError:
        return None


def _until(date: bytes, now: float) -> float | None:
    """Seconds until an HTTP date, 0 for one that has passed."""
    try:
        moment = parsedate_to_datetime(date.decode("ascii"))
        if moment.tzinfo is None:  # "-0000": UTC, by RFC 5322
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError, TypeError, IndexError):  # what email.utils makes of odd dates
        return None
