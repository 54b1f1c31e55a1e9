"""What an upstream's own rate-limit headers say of the next call. Pure.

    x-ratelimit-remaining-requests: 0          x-ratelimit-reset-requests: 6m0s          (OpenAI, Groq, Mistral, Together …)
    anthropic-ratelimit-tokens-remaining: 0    anthropic-ratelimit-tokens-reset: 2026-01-01T00:00:00Z

Law: acts only on what is used up; whoever has room left says so with any other number. Sources: platform.openai.com "Rate limits",
docs.claude.com "Rate limits: response headers".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

PAIRS = (
    (b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
    (b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
    (b"anthropic-ratelimit-requests-remaining", b"anthropic-ratelimit-requests-reset"),
    (b"anthropic-ratelimit-tokens-remaining", b"anthropic-ratelimit-tokens-reset"),
    (b"anthropic-ratelimit-input-tokens-remaining", b"anthropic-ratelimit-input-tokens-reset"),
    (b"anthropic-ratelimit-output-tokens-remaining", b"anthropic-ratelimit-output-tokens-reset"),
)
LONGEST = 300.0  # a day's quota is found out about by a 429; here only what soon comes back is waited for
UNSAID = 1.0
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def pause(headers: Mapping[bytes, bytes], now: float) -> float:
    """Seconds until the upstream takes another call by what it says itself; 0: now. now: Unix seconds."""
    waits = [_until(headers.get(reset), now) for remaining, reset in PAIRS if headers.get(remaining) == b"0"]
    return min(max(waits, default=0.0), LONGEST)


def _until(reset: bytes | None, now: float) -> float:
    """A span (`1s`, `6m0s`, `20ms`), plain seconds, Unix seconds, or a moment of RFC 3339."""
    text = (reset or b"").decode("latin-1").strip()
    if not text:
        return UNSAID
    span = _SPAN.fullmatch(text)
    if span is not None:
        hours, minutes, seconds, ms = (float(each or 0) for each in span.groups())
        return hours * 3600 + minutes * 60 + seconds + ms / 1e3
    try:
        number = float(text)
    except ValueError:
        try:
            number = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            return UNSAID
    if not 0 <= number < 1e11:
        return UNSAID
    return max(0.0, number - now) if number > 1e9 else number
