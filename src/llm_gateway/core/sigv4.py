"""AWS Signature Version 4, both ways: signing what we send, and checking what was signed for us.

Law: pure; time is an argument (Unix seconds). The path is encoded once more on top of how it is sent, as every service but
S3 wants it. Nothing here says why in words that would help to forge: a caller gets a reason to show, never a signature.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

Not taken: signatures in the query (presigned URLs) and the asymmetric SigV4A; no client of a model API uses them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from msgspec import Struct

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW = 15 * 60  # seconds that a signature's time may be away from ours, either way
_STAMP = "%Y%m%dT%H%M%SZ"
_SCOPE_END = "aws4_request"
_HEX = re.compile(r"[0-9a-f]{64}")
_STAMPED = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
# The schemes differ in spaces after the commas; AWS takes any.
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<key>[^/,\s]{1,128})/(?P<date>\d{8})/(?P<region>[^/,\s]{1,64})/(?P<service>[^/,\s]{1,64})"
    r"/aws4_request\s*,\s*SignedHeaders=(?P<headers>[^,\s]{1,8192})\s*,\s*Signature=(?P<signature>[0-9a-f]{64})\s*",
    re.ASCII,
)


class Credentials(Struct, frozen=True):
    key: str
    secret: str
    session: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.key})"


class Request(Struct, frozen=True):
    """path, query: as they stand in the request line. headers: lower case names. body_sha256: of the body, in hex."""

    method: str
    path: str
    query: str
    headers: Mapping[bytes, bytes]
    body_sha256: str


class Scope(Struct, frozen=True):
    """What a signature is good for, beside its day."""

    region: str
    service: str = "bedrock"


class _Claim(Struct, frozen=True):
    """An Authorization header, taken apart."""

    key: str
    date: str
    scope: Scope
    headers: tuple[str, ...]
    signature: str


def body_hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def sign(request: Request, credentials: Credentials, scope: Scope, now: float) -> tuple[tuple[bytes, bytes], ...]:
    """The headers to add. All headers of the request are signed, so it should hold `host` and what must not change."""
    stamp = datetime.fromtimestamp(now, UTC).strftime(_STAMP)
    added = {b"x-amz-date": stamp.encode()}
    if credentials.session:
        added[b"x-amz-security-token"] = credentials.session.encode()
    headers = {**request.headers, **added}
    names = tuple(sorted(str(name, "latin-1") for name in headers))
    claim = _Claim(credentials.key, stamp[:8], scope, names, "")
    signature = _signature(_canonical(request, headers, names), claim, stamp, credentials.secret)
    told = f"{ALGORITHM} Credential={credentials.key}/{_scope(claim)}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return (*added.items(), (b"authorization", told.encode()))


def access_key(headers: Mapping[bytes, bytes]) -> str | None:
    """Who says to have signed; None where nobody did, or not in a way that can be read."""
    claim = _claim(headers)
    return claim.key if claim is not None else None


def verify(request: Request, secret: str, now: float) -> str | None:
    """None for a signature that holds; else what is wrong, fit to be shown to the caller."""
    claim = _claim(request.headers)
    if claim is None:
        return "The Authorization header is not an AWS Signature Version 4."
    stamp = str(request.headers.get(b"x-amz-date", b""), "latin-1")
    if (wrong := _mistimed(stamp, claim, now)) is not None:
        return wrong
    if not {"host", "x-amz-date"} <= set(claim.headers):
        return "The signature must cover the headers 'host' and 'x-amz-date'."
    if any(name.encode("latin-1", "replace") not in request.headers for name in claim.headers):
        return "The signature covers a header that the request does not have."
    told = str(request.headers.get(b"x-amz-content-sha256", b""), "latin-1")
    if told and told not in {UNSIGNED, request.body_sha256}:
        return "The body is not the one that was signed."
    expected = _signature(_canonical(request, request.headers, claim.headers), claim, stamp, secret)
    if not hmac.compare_digest(expected, claim.signature):
        return "The request signature does not match. Check the secret access key and what changed on the way."
    return None


def _claim(headers: Mapping[bytes, bytes]) -> _Claim | None:
    found = _AUTHORIZATION.fullmatch(str(headers.get(b"authorization", b""), "latin-1"))
    if found is None:
        return None
    names = tuple(found["headers"].split(";"))
    if list(names) != sorted({name.lower() for name in names}):
        return None
    return _Claim(found["key"], found["date"], Scope(found["region"], found["service"]), names, found["signature"])


def _mistimed(stamp: str, claim: _Claim, now: float) -> str | None:
    if _STAMPED.fullmatch(stamp) is None:
        return "The header 'x-amz-date' must be a time like 20250131T235959Z."
    try:
        signed = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return "The header 'x-amz-date' must be a time like 20250131T235959Z."
    if stamp[:8] != claim.date:
        return "The signature's scope is of another day than 'x-amz-date'."
    if signed < now - SKEW:
        return "The signature has expired: its time is more than 15 minutes ago. Check the clock."
    if signed > now + SKEW:
        return "The signature is not valid yet: its time is more than 15 minutes ahead. Check the clock."
    return None


def _canonical(request: Request, headers: Mapping[bytes, bytes], names: tuple[str, ...]) -> bytes:
    told = str(headers.get(b"x-amz-content-sha256", b""), "latin-1")
    head = f"{request.method.upper()}\n{_path(request.path)}\n{_query(request.query)}\n"
    lines = [b"%b:%b\n" % (name.encode("latin-1"), _trimmed(headers[name.encode("latin-1")])) for name in names]
    payload = told if told == UNSIGNED or _HEX.fullmatch(told) else request.body_sha256
    return b"%b%b\n%b\n%b" % (head.encode(), b"".join(lines), ";".join(names).encode("latin-1"), payload.encode())


def _trimmed(value: bytes) -> bytes:
    return b" ".join(value.split())


def _path(path: str) -> str:
    """Without dot segments and empty ones (RFC 3986 section 5.2.4), and encoded once more."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment and segment != ".":
            kept.append(segment)
    last = "/" if path.endswith("/") and kept else ""
    return quote(f"/{'/'.join(kept)}{last}", safe="/~-._")


def _query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&")) if query else ()
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _scope(claim: _Claim) -> str:
    return f"{claim.date}/{claim.scope.region}/{claim.scope.service}/{_SCOPE_END}"


def _signature(canonical: bytes, claim: _Claim, stamp: str, secret: str) -> str:
    text = f"{ALGORITHM}\n{stamp}\n{_scope(claim)}\n{hashlib.sha256(canonical).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for step in (claim.date, claim.scope.region, claim.scope.service, _SCOPE_END):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
