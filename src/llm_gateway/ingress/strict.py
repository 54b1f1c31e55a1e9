"""What a request's head must not say although httptools lets it through: checks on values, and the faults they end in. Pure.

Source: RFC 9112 sections 2, 3 and 6, RFC 9110 sections 7.2, 8.4 and 10.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import httptools

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange

SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"expect",
                     b"content-encoding", b"x-api-key", b"api-key", b"x-goog-api-key", b"idempotency-key"))  # fmt: skip
HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:[]%!$&'()*+,;=")
METHODS = frozenset((b"GET", b"POST", b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"))


def check_host(host: bytes | None, *, http10: bool) -> None:
    """HTTP/1.1 wants one Host, HTTP/1.0 may do without; empty or odd ones are refused."""
    if (host is None and not http10) or (host is not None and not (host and HOST_BYTES.issuperset(host))):
        raise Fault(Kind.INVALID, "Exactly one valid Host header is required.", param="Host")


def check_line(seen: bytes, method: bytes, url: bytes, *, midway: bool) -> None:
    """The request line as it should be written, after at most one empty line (RFC 9112 section 2.2). seen: what was read of the head.

    Behind another request (`midway`) nobody says where it begins: there, a line with more spaces must not be seen at all."""
    if midway:
        target = re.escape(url)
        spaced = rb"%b(  +%b +|  *%b  +)HTTP/" % (re.escape(method), target, target)
        wrong = re.search(spaced, seen) is not None
    else:
        wrong = not 0 <= seen.find(b"%b %b HTTP/" % (method, url)) <= len(b"\r\n")
    if wrong:
        raise Fault(Kind.INVALID, "Malformed HTTP request line: single spaces, and no empty lines before it.")


def check_single(headers: Mapping[bytes, bytes]) -> None:
    """Refuses fields that came twice and may not: the connection joined their lines with a NUL."""
    for name in SINGLE & headers.keys():
        if b"\0" in headers[name]:
            raise Fault(Kind.INVALID, f"Header {name.decode()} may be sent only once.", param=name.decode())


def check_body(headers: Mapping[bytes, bytes], largest: int) -> None:
    """Refuses a body by what the head says of it."""
    length = headers.get(b"content-length")
    if length is not None and size(length) > largest:
        raise too_large(largest)
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Fault(
            Kind.MEDIA_TYPE,
            "Compressed request bodies are not accepted; send it with identity encoding.",
            param="Content-Encoding",
        )
    expect = headers.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Fault(Kind.EXPECTATION, "Only Expect: 100-continue is understood.", param="Expect")


def size(length: bytes) -> int:
    """Of a Content-Length that the parser let pass, with as many zeros as it likes: Python reads no number of 5,000 digits."""
    return int(length.lstrip(b"0") or b"0")


def too_large(limit: int) -> Fault:
    return Fault(Kind.TOO_LARGE, f"The request body is larger than the {limit} bytes allowed here.")


def long_uri(limit: int) -> Fault:
    return Fault(Kind.URI_TOO_LONG, f"At most {limit} bytes of URI are allowed.")


def oversize(url: bytes, longest: int) -> Fault:
    """Of a head that is too large: by its URI, if that is."""
    return long_uri(longest) if len(url) > longest else Fault(Kind.HEADERS_TOO_LARGE, "The request's head is too large.")


def origin_form(x: Exchange) -> bytes:
    """The path of an absolute-form target (RFC 9112 section 3.2.2), or Fault INVALID."""
    if b"#" in x.path or b"#" in x.query:
        raise Fault(Kind.INVALID, "A request target has no fragment.")
    if x.method == b"OPTIONS" and x.path == b"*":
        return b"*"
    if not x.path.lower().startswith((b"http://", b"https://")):
        raise Fault(Kind.INVALID, "A request target is a path, or an absolute http or https URI.")
    try:
        return httptools.parse_url(x.path).path or b"/"
    except httptools.HttpParserInvalidURLError:
        raise Fault(Kind.INVALID, "Malformed request target.") from None
