"""What replies of every JSON shape share: their headers.

Law: pure; no shape's words.
"""

from __future__ import annotations

from math import ceil

from llm_gateway.core.errors import Fault, Kind

JSON_HEADERS = ((b"content-type", b"application/json"),)
_FUTILE = frozenset({Kind.UPSTREAM_QUOTA, Kind.PAYMENT, Kind.UPSTREAM_AUTH, Kind.UPSTREAM_TLS, Kind.UPSTREAM_NO_MODEL})


def error_headers(fault: Fault) -> tuple[tuple[bytes, bytes], ...]:
    """Content type, when to come again, and `x-should-retry: false` where the SDKs' own retrying would cure nothing."""
    headers = [*JSON_HEADERS]
    if fault.retry_after is not None:
        headers.append((b"retry-after", b"%d" % ceil(fault.retry_after)))
        headers.append((b"retry-after-ms", b"%d" % ceil(fault.retry_after * 1000)))
    if fault.kind in _FUTILE:
        headers.append((b"x-should-retry", b"false"))
    return (*headers, *fault.headers)
