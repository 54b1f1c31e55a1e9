"""Principals by JWT (RFC 7519): who vouches for whom, checked with the issuers' public keys.

Law: what a token says of itself chooses nothing but which issuer's rules it is judged by: the algorithm must be one that the configuration
lists (RFC 8725 section 3.1), the key one of the issuer's own and of that algorithm's kind, found by `kid`, or one of the few that the file gives
without; `jku`, `jwk` and `x5u` are never looked at, and no symmetric key is ever a key here. `exp`, `iss` and `aud` are required. No token
stands in a message.

Verifying takes 100 us or so, so that `auth.Keys` remembers what was found, until the token's end or a change of keys.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.issuers import Issuer, fits
from llm_gateway.core.tenancy import INFERENCE, Key, Scope

BEGINNING = b"eyJ"  # of every JWT: `{"` in base64
PUBLIC = frozenset({"RSA", "EC", "OKP"})
PAUSE = 10.0  # seconds between two questions for an issuer's newest keys
PATIENCE = 2 * PAUSE  # until an answer is given up
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_KEPT = "@|.+-_:"  # of a user's name, as it is; what else may stand there is escaped
LONGEST_USER = 200
LATEST = 1 << 48  # Unix seconds; some issuers write their tokens' end as text, or as far away as they can

Jwk = dict[str, Any]


def load_jwt() -> ModuleType:
    """Imports 0.1 s worth of library: only who has issuers pays."""
    import jwt  # noqa: PLC0415

    return jwt


class Signing(Struct):
    """A public key of an issuer. `pinned`: the file gives it; `made`: what the library made of it, by algorithm."""

    jwk: Jwk
    pinned: bool
    made: dict[str, Any] = {}


class Tokens:
    """ask: told of an issuer whose newest keys are wanted."""

    def __init__(self, ask: Callable[[str], object]) -> None:
        self._ask = ask
        self._issuers: dict[str, Issuer] = {}
        self._sets: dict[str, list[Signing]] = {}
        self._said: dict[str, str] = {}  # the sets as they were told
        self._asked: dict[str, float] = {}
        self._waiting: set[str] = set()  # issuers whose newest keys are on their way
        self._jwt: ModuleType | None = None

    def __repr__(self) -> str:
        return f"<Tokens of {len(self._issuers)} issuers, {sum(map(bool, self._sets.values()))} with keys>"

    @property
    def issuers(self) -> int:
        return len(self._issuers)

    def load(self) -> ModuleType:
        if self._jwt is None:
            self._jwt = load_jwt()
        return self._jwt

    def adopt(self, issuers: tuple[Issuer, ...]) -> None:
        """Judges by these from now on. Keys that were fetched stay, of issuers whose keys still are."""
        before, self._issuers = self._issuers, {each.issuer: each for each in issuers}
        static = {each.issuer: each.jwks for each in issuers if each.jwks}
        fetched = {each.issuer for each in issuers if each.fetched and each.issuer in before and before[each.issuer].fetched}
        self._said = {name: said for name, said in self._said.items() if name in fetched} | static
        self._read()

    def learn(self, sets: Mapping[str, str]) -> bool:
        """Issuer -> its JWK set, as it is now. False where nothing is new."""
        self._waiting -= sets.keys()
        fresh = {name: said for name, said in sets.items() if name in self._issuers and self._issuers[name].fetched and self._said.get(name) != said}
        self._said |= fresh
        if fresh:
            self._read()
        return bool(fresh)

    def verify(self, token: bytes, wall: float) -> Key:
        """Whose token it is. Raises Fault UNAUTHENTICATED; FORBIDDEN where it is good and says nobody; OVERLOADED until keys are known."""
        jwt = self.load()
        try:
            header = jwt.get_unverified_header(token)
            issuer = self._issuers[_claimed_issuer(token)]
        except (jwt.InvalidTokenError, ValueError, KeyError):
            raise _refused("The token is no JWT of an issuer that is known here.") from None
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise _refused("The token is signed in a way that is not accepted here.")
        return record(issuer, self._claims(token, issuer, header.get("kid"), algorithm, wall))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        self._sets = {name: [*_signing(self._said.get(name, ""), pinned=False), *_signing(of.pinned, pinned=True)] for name, of in self._issuers.items()}

    def _claims(self, token: bytes, issuer: Issuer, kid: object, algorithm: str, wall: float) -> dict[str, Any]:
        """What it says, if one of the issuer's keys that it may be signed with says that it is."""
        jwt = self.load()
        named, tried = self._candidates(issuer, kid, algorithm)
        for key in tried:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, self._made(key, algorithm), algorithms=[algorithm], audience=list(issuer.audience), issuer=issuer.issuer,
                    leeway=issuer.leeway, options={"require": ["exp", "iss", "aud"]},
                )  # fmt: skip
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                raise _refused("The token has expired; get a new one.", "expired_token") from None
            except jwt.InvalidTokenError as error:
                raise _refused(_WRONG.get(type(error).__name__, FORGED)) from None
            return claims
        if not named and issuer.fetched:
            self._want(issuer.issuer, wall)
        raise _refused(FORGED if tried else "The token is signed with a key that its issuer does not list.")

    def _candidates(self, issuer: Issuer, kid: object, algorithm: str) -> tuple[bool, list[Signing]]:
        """Whether the token names one of them, and those it may be signed with: of a set, and of those that the file gives by name, a token has
        to name one where there are several."""
        known = self._sets[issuer.issuer]
        nameless = [each for each in known if each.pinned and "kid" not in each.jwk]
        if kid is None:
            of_set = [each for each in known if not each.pinned]
            by_name = [each for each in known if each.pinned and "kid" in each.jwk]
            named = len(of_set) == 1
            found = [*(of_set if named else ()), *(by_name if len(by_name) == 1 else ()), *nameless]
        else:
            found = [each for each in known if each.jwk.get("kid") == kid]
            named = bool(found)
            found = found or nameless
        return named, [each for each in found if fits(each.jwk, (algorithm,))]

    def _made(self, key: Signing, algorithm: str) -> Any:
        made = key.made.get(algorithm)
        if made is None:
            jwt = self.load()
            try:
                made = key.made[algorithm] = jwt.PyJWK(key.jwk, algorithm)
            except (jwt.InvalidKeyError, jwt.PyJWKError):
                raise _refused("The token is signed with a key that cannot be used.") from None
        return made

    def _want(self, issuer: str, wall: float) -> None:
        """Has the newest keys fetched, once in a while; until they are here nobody knows whether the token is good. Returns where they are,
        and do not hold its key."""
        since = abs(wall - self._asked.get(issuer, -PATIENCE))
        if since >= (PATIENCE if issuer in self._waiting else PAUSE):
            self._asked[issuer] = wall
            self._waiting.add(issuer)
            self._ask(issuer)
        elif issuer not in self._waiting:
            return
        raise Fault(Kind.OVERLOADED, "The keys of the token's issuer are being fetched; try again.", code="signing_keys_unknown", retry_after=1.0)


def _signing(said: str, *, pinned: bool) -> list[Signing]:
    """Of a JWK set, those that signatures are verified with."""
    found = msgspec.json.decode(said).get("keys", ()) if said else ()
    return [Signing(each, pinned) for each in found if isinstance(each, dict) and each.get("kty") in PUBLIC and each.get("use", "sig") == "sig"]


def record(issuer: Issuer, claims: dict[str, Any]) -> Key:
    """Who the claims of a good token say. Raises Fault FORBIDDEN."""
    for name, wanted in issuer.required.items():
        if wanted not in _words(_claim(claims, name)):
            raise _nobody(f"Its claim `{name}` is not what is asked for here.")
    said = issuer.claims
    tenant = issuer.tenant or _claim(claims, said.tenant)
    project = (_claim(claims, said.project) or "") if said.project else ""
    user = _claim(claims, said.user)
    if not isinstance(tenant, str) or not _NAME.fullmatch(tenant):
        raise _nobody(f"Its claim `{said.tenant}` names no tenant.")
    if not isinstance(project, str) or (project and not _NAME.fullmatch(project)):
        raise _nobody(f"Its claim `{said.project}` names no project.")
    if not isinstance(user, str) or not 0 < len(user) <= LONGEST_USER:
        raise _nobody(f"Its claim `{said.user}` names no user.")
    name = quote(user, safe=_KEPT)
    return Key(
        id="", name=name, tenant=tenant, project=project, user=name, expires=min(int(claims["exp"]), LATEST) + issuer.leeway, scopes=_scopes(issuer, claims),
    )  # fmt: skip


def _scopes(issuer: Issuer, claims: dict[str, Any]) -> tuple[Scope, ...]:
    if not issuer.roles:
        return INFERENCE
    held: list[Scope] = [scope for role in _words(_claim(claims, issuer.claims.roles)) for scope in issuer.roles.get(role, ())]
    if not held:
        raise _nobody("It has no role that may do anything here.")
    return tuple(dict.fromkeys(held))


def _claim(claims: dict[str, Any], name: str) -> Any:
    """By its whole name, else by a path of names."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [each for each in value if isinstance(each, str)]
    return [value, *value.split()] if isinstance(value, str) else [str(value).lower()] if isinstance(value, bool | int) else []


def _claimed_issuer(token: bytes) -> str:
    """Raises ValueError, KeyError."""
    payload = token.split(b".")[1] if token.count(b".") == 2 else b""
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (binascii.Error, msgspec.DecodeError, RecursionError) as error:
        raise ValueError from error
    if not isinstance(claims, dict) or not isinstance(claims["iss"], str):
        raise ValueError  # noqa: TRY004  whatever is wrong with it is one thing
    return str(claims["iss"])


def _refused(message: str, code: str = "invalid_token") -> Fault:
    return Fault(Kind.UNAUTHENTICATED, message, code=code)


def _nobody(message: str) -> Fault:
    return Fault(Kind.FORBIDDEN, f"The token is good, but says nobody who may be here. {message}", code="token_not_sufficient")


FORGED = "The token's signature is not its issuer's."
_WRONG = {
    "ImmatureSignatureError": "The token is not valid yet.",
    "InvalidIssuedAtError": "The token is not valid yet.",
    "InvalidAudienceError": "The token is for somebody else: its `aud` is not this gateway.",
    "InvalidIssuerError": "The token is no JWT of an issuer that is known here.",
    "MissingRequiredClaimError": "The token lacks a claim: `exp`, `iss` and `aud` are needed.",
}
