"""Whose key this is. Pure but for its table.

Law: keys are compared as HMAC-SHA-256 digests of the whole token under the server's secret, looked up, never scanned: no
timing tells how much of a guess was right, and the table holds nothing that opens a door. What a look-up found is remembered,
by digest and by whole Authorization header, in memory only, until a reload or a change of who may do what (`forget`): 2.2 us less a
request, 60 us where it would be a look into the key table. What is remembered was right when it was looked up; expiry and addresses
are looked at each time.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from llm_gateway.admission.directory import Directory
from llm_gateway.admission.holders import Holders
from llm_gateway.admission.tokens import BEGINNING, Tokens
from llm_gateway.core import sigv4
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.sigv4 import Request
from llm_gateway.core.tenancy import Key, place, signer

NAMES = (b"x-api-key", b"api-key", b"x-goog-api-key")
LONGEST = 8192  # a key, or a token with many claims
MOST_KNOWN = 10_000
ANYONE = Principal("anonymous", "default")
PREFIX = "sk-gw-"  # of keys that were made at run time
AWS_PREFIX = "AKGW"

_Name = TypeVar("_Name")
_Value = TypeVar("_Value")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Keys:
    """`written`: the configuration's keys, which come before those of the directory; `tokens`: of whoever bears none."""

    def __init__(
        self, secret: bytes, written: Iterable[Key], holders: Holders, *,
        directory: Directory | None = None, tokens: Tokens | None = None, required: bool = True,
    ) -> None:  # fmt: skip
        self._secret = secret
        self._written = {each.digest or place(signer(each.aws)): each for each in written}
        self._holders = holders
        self._directory = directory if directory is not None else Directory()
        self._tokens = tokens if tokens is not None and tokens.issuers else None
        self._required = required
        self._known: dict[bytes, Principal] = {}  # by Authorization
        self._found: dict[bytes, Principal] = {}  # by digest
        self._networks: dict[tuple[str, ...], tuple[Network, ...]] = {}

    def __repr__(self) -> str:
        return f"<Keys: {len(self._written)}{'' if self._required else ', not required'}>"

    def principal(self, headers: Mapping[bytes, bytes], query: bytes = b"", peer: str = "", wall: float = 0.0) -> Principal:
        """Who asks. peer: the client's address; wall: Unix seconds. Raises Fault UNAUTHENTICATED, FORBIDDEN, or OVERLOADED where it is
        not known yet who may."""
        authorization = headers.get(b"authorization")
        if authorization is not None:
            known = self._known.get(authorization)
            if known is not None:
                if known.expires or known.ips:
                    self._check(known, peer, wall)
                return known
        found = self._identify(headers, query, authorization, wall)
        if found is None:
            if not self._required:
                return ANYONE
            raise self._stranger(headers, query)
        if found.expires or found.ips:
            self._check(found, peer, wall)
        return found

    def named(self, key: str) -> Principal | None:
        """Of the configuration's keys, by name or id. Raises Fault FORBIDDEN where it is disabled."""
        found = next((each for each in self._written.values() if key in (each.name, each.id)), None)
        return self._holders.principal(found) if found is not None else None

    def placed(self, at: bytes, wall: float) -> Principal | None:
        """Of the key table's, wherever it asks from. Raises Fault UNAUTHENTICATED, FORBIDDEN where it was revoked, is disabled or has expired."""
        found = self._resolve(at)
        if found is not None and found.expires:
            self._check(replace(found, ips=()), "", wall)
        return found

    def forget(self) -> None:
        """Who may do what has changed."""
        self._known.clear()
        self._found.clear()

    def verify(self, x: Exchange) -> None:
        """Checks the AWS signature of a request whose body is in. Raises Fault UNAUTHENTICATED."""
        path, query = x.path.decode("latin-1"), x.query.decode("latin-1")
        request = Request(x.method.decode("latin-1"), path, query, x.headers, x.body_hash or sigv4.body_hash(x.body))
        secret = aws_secret(self._secret, sigv4.access_key(x.headers) or "")
        wrong = sigv4.verify(request, secret, x.wall)
        if wrong is not None:
            raise Fault(Kind.UNAUTHENTICATED, wrong)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _identify(self, headers: Mapping[bytes, bytes], query: bytes, authorization: bytes | None, wall: float) -> Principal | None:
        key = token(headers, query)
        if key is not None:
            digest = hmac.digest(self._secret, key, "sha256")
            found = self._resolve(digest)
            if found is None and self._tokens is not None and key.startswith(BEGINNING):
                found = self._holders.principal(self._tokens.verify(key, wall))
                self._remember(self._found, digest, found)
                return found  # by its digest alone: tokens are long, and there may be many
            if found is not None:
                if found.id and authorization is not None and authorization[7:] == key:  # not whatever else ends so, at any length
                    self._remember(self._known, authorization, found)
                return found
        access_key = sigv4.access_key(headers) if authorization is not None else None
        return self._resolve(place(signer(access_key))) if access_key is not None else None

    def _resolve(self, at: bytes) -> Principal | None:
        found = self._found.get(at)
        if found is None:
            key = self._written.get(at) or self._directory.key(at)
            if key is None:
                return None
            if key.disabled:
                raise Fault(Kind.UNAUTHENTICATED, "This API key was revoked. Ask the gateway's operator for one.", code="revoked_api_key")
            found = self._holders.principal(key)
            self._remember(self._found, at, found)
        return found

    def _check(self, found: Principal, peer: str, wall: float) -> None:
        if found.expires and wall >= found.expires:
            if not found.id:
                raise Fault(Kind.UNAUTHENTICATED, "The token has expired; get a new one.", code="expired_token")
            raise Fault(Kind.UNAUTHENTICATED, "This API key has expired. Ask the gateway's operator for one.", code="expired_api_key")
        if found.ips and not self._within(peer, found.ips):
            raise Fault(Kind.FORBIDDEN, "This API key may not be used from your address.", code="address_not_allowed")

    def _within(self, peer: str, allowed: tuple[str, ...]) -> bool:
        networks = self._networks.get(allowed)
        if networks is None:
            networks = tuple(map(ipaddress.ip_network, allowed))
            self._remember(self._networks, allowed, networks)
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:  # a Unix socket
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in networks)

    def _stranger(self, headers: Mapping[bytes, bytes], query: bytes) -> Fault:
        key, access_key = token(headers, query), sigv4.access_key(headers) if b"authorization" in headers else None
        made_here = (key or b"").startswith(PREFIX.encode()) or (access_key or "").startswith(AWS_PREFIX)
        if made_here and self._directory.awaited and not self._directory.confirmed:
            return Fault(Kind.OVERLOADED, "The gateway is starting and does not know its keys yet; try again.", code="starting", retry_after=1.0)
        if access_key is not None:
            return Fault(Kind.UNAUTHENTICATED, "Unknown AWS access key id. Check it, or ask the gateway's operator for one.")
        if key is None:
            return Fault(Kind.UNAUTHENTICATED, "No API key. Send it as `Authorization: Bearer KEY` (or x-api-key, api-key).",
                         code="missing_api_key")  # fmt: skip
        return Fault(Kind.UNAUTHENTICATED, "Unknown API key. Check the key, or ask the gateway's operator for one.")

    def _remember(self, where: dict[_Name, _Value], name: _Name, value: _Value) -> None:
        if len(where) >= MOST_KNOWN:
            where.clear()
        where[name] = value


def aws_secret(secret: bytes, key_id: str) -> str:
    """The secret access key that belongs to an access key id: computed, never stored."""
    return base64.b64encode(hmac.digest(secret, b"aws\0" + key_id.encode(), "sha256")).decode()[:40]


def token(headers: Mapping[bytes, bytes], query: bytes = b"") -> bytes | None:
    """The client's key from whichever header its SDK uses, or `?key=`; None if there is none."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer " and len(authorization) < LONGEST:
        key = authorization[7:].strip()
        if key:
            return key
    for name in NAMES:
        named = headers.get(name)
        if named and len(named) < LONGEST:
            return named
    if query:
        for pair in query.split(b"&"):
            if pair.startswith(b"key=") and 4 < len(pair) < LONGEST:
                return unquote_to_bytes(pair[4:])
    return None
