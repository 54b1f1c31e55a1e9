"""Tokens: who they say is whom is believed only when everything about them is right."""

from __future__ import annotations

import base64
import hmac
import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from admission.signing import AUDIENCE, ISSUER, Signer, jwks, raw, wall
from llm_gateway.admission.auth import Keys
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.admission.tokens import Tokens, record
from llm_gateway.config import pems
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.issuers import Claims, Issuer
from llm_gateway.core.tenancy import Grant, Holder, Limits, Tenant, User, tenant_id, user_id

EC, RSA = Signer("ec"), Signer("rsa", "RS256")


def issuer(**more: Any) -> Issuer:
    return Issuer(**{"issuer": ISSUER, "audience": (AUDIENCE,), "jwks": jwks(EC, RSA), "leeway": 5.0, **more})


def tokens(*issuers: Issuer, asked: list[str] | None = None) -> Tokens:
    made = Tokens((asked if asked is not None else []).append)
    made.adopt(issuers or (issuer(),))
    return made


def refused(made: Tokens, token: bytes, wall: float = 0.0) -> Fault:
    with pytest.raises(Fault) as caught:
        made.verify(token, wall)
    return caught.value


@pytest.mark.parametrize("signer", [EC, RSA], ids=["ES256", "RS256"])
def test_a_good_token_says_who_asks(signer: Signer) -> None:
    found = tokens().verify(signer.token(exp=int(wall()) + 300), 0.0)
    assert (found.tenant, found.user, found.project, found.name, found.id, found.scopes) == ("acme", "bob", "", "bob", "", ("inference",))
    assert 300 <= found.expires - wall() <= 306  # its end, and the leeway


@pytest.mark.parametrize("end", [str(int(wall()) + 86_400), int(wall()) + 86_400.5, 10**400], ids=["text", "fraction", "never"])
def test_an_end_may_be_written_in_other_ways(end: object) -> None:
    assert tokens().verify(EC.token(exp=end), 0.0).expires > wall() + 3600


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (lambda: EC.token(exp=int(wall()) - 10), "expired_token", "expired"),
        (lambda: EC.token(nbf=int(wall()) + 60), "invalid_token", "not valid yet"),
        (lambda: EC.token(iat=int(wall()) + 60), "invalid_token", "not valid yet"),
        (lambda: EC.token(aud="somebody else"), "invalid_token", "aud"),
        (lambda: EC.token(without=("aud",)), "invalid_token", "lacks a claim"),
        (lambda: EC.token(without=("exp",)), "invalid_token", "lacks a claim"),
        (lambda: EC.token(iss="https://another.test"), "invalid_token", "no JWT of an issuer"),
        (lambda: EC.token(without=("iss",)), "invalid_token", "no JWT of an issuer"),
        (lambda: Signer("ec").token(), "invalid_token", "signature"),
        (lambda: Signer("unknown").token(), "invalid_token", "does not list"),
        (lambda: Signer(None).token(), "invalid_token", "does not list"),
        (lambda: EC.token()[:-4] + b"AAAA", "invalid_token", "signature"),
        (lambda: b"eyJ", "invalid_token", "no JWT"),
        (lambda: b"eyJhbGciOiJub25lIn0.eyJ.", "invalid_token", "no JWT"),
        (lambda: b"eyJ.eyJ.eyJ.eyJ.eyJ", "invalid_token", "no JWT"),
    ],
)
def test_whatever_is_wrong_with_it_is_said(made: Callable[[], bytes], code: str, words: str) -> None:
    fault = refused(tokens(), made())
    assert (fault.kind, fault.code) == (Kind.UNAUTHENTICATED, code)
    assert words in fault.message


DEEP = "[" * 2500 + "]" * 2500


@pytest.mark.parametrize(("header", "payload"), [('{"alg":"ES256","a":' + DEEP + "}", "{}"), ('{"alg":"ES256"}', '{"iss":' + DEEP + "}")])
def test_a_token_nested_beyond_all_measure_is_refused_like_any_other(header: str, payload: str) -> None:
    """By whoever comes along: it needs no signature."""
    parts = [base64.urlsafe_b64encode(each.encode()).rstrip(b"=") for each in (header, payload, "signature")]
    assert refused(tokens(), b".".join(parts)).code == "invalid_token"


def test_what_is_no_key_in_a_set_is_none() -> None:
    said = json.dumps({"keys": [5, {"kty": []}, {"kty": "EC", "crv": []}, *json.loads(jwks(EC))["keys"]]})
    assert tokens(issuer(jwks=said)).verify(EC.token(), 0.0).tenant == "acme"


GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "mallory", "tenant": "acme", "exp": 4_000_000_000}


def test_no_signature_is_none() -> None:
    for algorithm in ("none", "None", "NONE", ""):
        assert "not accepted" in refused(tokens(), raw({"alg": algorithm, "kid": "ec"}, GOOD)).message


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    """HS256 by the issuer's public key, in every form that it may be read as (CVE-2015-9235's kind)."""
    public = RSA.private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)):
        unsigned = raw({"alg": "HS256", "kid": "rsa"}, GOOD).rpartition(b".")[0]
        forged = raw({"alg": "HS256", "kid": "rsa"}, GOOD, hmac.digest(secret, unsigned, "sha256"))
        assert "not accepted" in refused(tokens(), forged).message


def test_a_symmetric_key_in_a_set_is_no_key() -> None:
    oct_key = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC0", "kid": "shared", "alg": "HS256"}
    made = tokens(issuer(jwks=jwks(EC, more=(oct_key,)), algorithms=("ES256", "HS256")))
    unsigned = raw({"alg": "HS256", "kid": "shared"}, GOOD).rpartition(b".")[0]
    forged = raw({"alg": "HS256", "kid": "shared"}, GOOD, hmac.digest(b"secret-secret-secret-secret-secret-", unsigned, "sha256"))
    assert "does not list" in refused(made, forged).message


def test_a_token_brings_no_key_of_its_own() -> None:
    mallory = Signer("mallory")
    own = ({"jwk": mallory.public}, {"jku": "https://mallory.test/jwks"}, {"x5u": "https://mallory.test"})
    for header in (*own, {"kid": "../../dev/null"}, {"kid": "' OR 1=1"}):
        asked: list[str] = []
        fault = refused(tokens(asked=asked), mallory.token(headers=header))
        assert (fault.kind, asked) == (Kind.UNAUTHENTICATED, [])


def test_a_key_is_used_for_its_own_algorithm_only() -> None:
    signed = Signer("rsa", "RS256")
    only_ps = {**signed.public, "alg": "PS256"}
    assert "does not list" in refused(tokens(issuer(jwks=jwks(more=(only_ps,)))), signed.token()).message
    crossed = {**EC.public, "kid": "rsa"}
    assert refused(tokens(issuer(jwks=jwks(more=(crossed,)))), RSA.token()).code == "invalid_token"
    for_encryption = {**EC.public, "use": "enc"}
    assert "does not list" in refused(tokens(issuer(jwks=jwks(more=(for_encryption,)))), EC.token()).message


def test_an_algorithm_that_is_not_listed_is_not_accepted() -> None:
    assert "not accepted" in refused(tokens(issuer(algorithms=("ES256",))), RSA.token()).message


def test_where_there_is_one_key_nobody_need_name_it() -> None:
    only = Signer(None)
    assert tokens(issuer(jwks=jwks(only))).verify(only.token(), 0.0).user == "bob"


def test_each_issuer_vouches_by_its_own_rules_alone() -> None:
    other = Signer("ec")
    made = tokens(issuer(tenant="ours"), issuer(issuer="https://other.test", jwks=jwks(other), audience=("elsewhere", "here")))
    assert made.verify(EC.token(tenant="theirs"), 0.0).tenant == "ours"
    assert made.verify(other.token(iss="https://other.test", aud=["x", "here"]), 0.0).tenant == "acme"
    assert "signature" in refused(made, EC.token(iss="https://other.test", aud="here")).message
    assert "signature" in refused(made, other.token()).message


def test_claims_nested_without_end_are_refused() -> None:
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"ES256"}', b'{"iss":"x","a":' + b"[" * 4000, b"x"))
    assert refused(tokens(), token).kind is Kind.UNAUTHENTICATED


@given(st.binary(max_size=300))
def test_no_bytes_are_more_than_refused(text: bytes) -> None:
    for token in (text, b"eyJ" + text, b"eyJhbGciOiJFUzI1NiJ9." + text + b"."):
        assert refused(MADE, token).kind is Kind.UNAUTHENTICATED


MADE = tokens()


# -- keys that the file gives ----------------------------------------------------------------------------------------

EVERY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


def pinned(*keys: tuple[str, str | None], **more: Any) -> Issuer:
    made = [key | ({"kid": kid} if kid is not None else {}) for text, kid in keys for key in pems.read(text)]
    return issuer(**{"jwks": "", "algorithms": EVERY, "pinned": json.dumps({"keys": made}), **more})


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize("kid", [None, "whatever"])
def test_a_key_without_a_name_verifies_tokens_of_its_kind_whatever_they_call_it(algorithm: str, kid: str | None) -> None:
    signer = Signer(kid, algorithm)
    asked: list[str] = []
    made = tokens(pinned((Signer(None, "RS256").pem, None), (EC.pem, None), (signer.pem, None)), asked=asked)
    assert made.verify(signer.token(), 0.0).user == "bob"
    assert "signature" in refused(made, Signer(kid, algorithm).token()).message
    assert asked == []


def test_a_key_with_a_name_verifies_no_token_that_names_another() -> None:
    one, two, nameless = Signer("one"), Signer("two"), Signer(None)
    nameless.private = one.private
    made = tokens(pinned((one.pem, "one"), (two.pem, None)))
    for good in (one, two, nameless):  # where one has a name a token need not say it
        assert made.verify(good.token(), 0.0)
    assert "signature" in refused(made, one.token(headers={"kid": "two"})).message
    assert "signature" in refused(made, two.token(headers={"kid": "one"})).message
    assert "does not list" in refused(tokens(pinned((one.pem, "one"))), two.token()).message
    assert "does not list" in refused(tokens(pinned((one.pem, "one"), (two.pem, "two"))), nameless.token()).message


def test_a_pinned_public_key_is_no_secret_to_sign_with() -> None:
    """HS256 by the very text of the file, though somebody had listed it."""
    made = tokens(pinned((RSA.pem, None), (EC.pem, "ec"), algorithms=(*EVERY, "HS256")))
    for secret in (RSA.pem, RSA.pem.strip(), EC.pem):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": "ec"}):
            unsigned = raw(header, GOOD).rpartition(b".")[0]
            forged = raw(header, GOOD, hmac.digest(secret.encode(), unsigned, "sha256"))
            assert refused(made, forged).kind is Kind.UNAUTHENTICATED
    for algorithm in ("none", "None", ""):
        assert "not accepted" in refused(made, raw({"alg": algorithm}, GOOD)).message


def test_a_key_is_tried_for_algorithms_of_its_kind_alone() -> None:
    made = tokens(pinned((EC.pem, None)))
    assert "does not list" in refused(made, RSA.token()).message
    assert "does not list" in refused(made, Signer(None, "ES384").token()).message


def test_pinned_keys_stand_beside_fetched_ones() -> None:
    asked: list[str] = []
    own, stranger = Signer(None), Signer("stranger")
    made = tokens(pinned((own.pem, None), jwks_url="https://issuer.test/keys"), asked=asked)
    assert made.verify(own.token(), 100.0)  # before anything was fetched
    assert asked == []
    assert refused(made, EC.token(), 100.0).code == "signing_keys_unknown"
    assert asked == [ISSUER]
    assert made.learn({ISSUER: jwks(EC)})
    assert made.verify(EC.token(), 101.0)
    assert made.verify(own.token(), 101.0)
    assert "signature" in refused(made, stranger.token(), 101.0).message
    assert asked == [ISSUER]


def test_pinned_keys_stand_beside_those_of_a_set_in_the_file() -> None:
    own = Signer(None)
    made = tokens(pinned((own.pem, None), jwks=jwks(EC)))
    assert made.verify(own.token(), 0.0)
    assert made.verify(EC.token(), 0.0)


def test_a_key_that_the_file_took_out_verifies_nothing_any_more() -> None:
    old, new = Signer(None), Signer(None)
    made = tokens(pinned((old.pem, None)))
    made.adopt((pinned((old.pem, None), (new.pem, None)),))
    assert made.verify(old.token(), 0.0)
    assert made.verify(new.token(), 0.0)
    made.adopt((pinned((new.pem, None)),))
    assert "signature" in refused(made, old.token()).message
    assert made.verify(new.token(), 0.0)


def test_a_set_that_the_file_took_out_verifies_nothing_any_more() -> None:
    own = Signer(None)
    for before in (issuer(), issuer(jwks="")):
        made = tokens(before)
        made.learn({ISSUER: jwks(EC)})
        assert made.verify(EC.token(), 0.0)
        made.adopt((pinned((own.pem, None)),))
        assert refused(made, EC.token()).code == "invalid_token"
        assert made.verify(own.token(), 0.0)


# -- keys that come and go -------------------------------------------------------------------------------------------


def test_until_keys_are_known_a_token_waits_and_they_are_asked_for_once() -> None:
    asked: list[str] = []
    made = tokens(issuer(jwks=""), asked=asked)
    for moment in (100.0, 100.1, 105.0):
        fault = refused(made, EC.token(), moment)
        assert (fault.kind, fault.code, fault.retry_after) == (Kind.OVERLOADED, "signing_keys_unknown", 1.0)
    assert asked == [ISSUER]
    assert made.learn({ISSUER: jwks(EC)})
    assert made.verify(EC.token(), 105.5)


def test_a_key_that_is_new_is_asked_for_once_in_ten_seconds() -> None:
    asked: list[str] = []
    made, fresh = tokens(issuer(jwks=""), asked=asked), Signer("fresh")
    made.learn({ISSUER: jwks(EC)})
    assert refused(made, fresh.token(), 100.0).code == "signing_keys_unknown"
    assert refused(made, fresh.token(), 100.5).code == "signing_keys_unknown"
    assert not made.learn({ISSUER: made._said[ISSUER]})
    assert refused(made, fresh.token(), 105.0).code == "invalid_token"  # its issuer was asked, and does not know it
    assert refused(made, fresh.token(), 110.0).code == "signing_keys_unknown"
    assert refused(made, fresh.token(), 129.0).code == "signing_keys_unknown"
    assert asked == [ISSUER, ISSUER]
    assert refused(made, fresh.token(), 130.0).code == "signing_keys_unknown"  # that question was lost
    assert asked == [ISSUER, ISSUER, ISSUER]
    assert made.verify(EC.token(), 110.0)  # others never wait
    made.learn({ISSUER: jwks(fresh)})
    assert made.verify(fresh.token(), 110.0)
    assert refused(made, EC.token(), 145.0).kind is Kind.OVERLOADED


def test_what_is_told_again_is_nothing_new_and_of_strangers_nothing_at_all() -> None:
    made = tokens(issuer(jwks=""), issuer(issuer="https://static.test"))
    assert made.learn({ISSUER: jwks(EC)})
    assert not made.learn({ISSUER: made._said[ISSUER], "https://stranger.test": jwks(EC), "https://static.test": jwks(RSA)})
    made.adopt((issuer(jwks="", audience=("new",)),))
    assert made.verify(EC.token(aud="new"), 0.0)  # a reload forgets no keys


# -- claims ----------------------------------------------------------------------------------------------------------

SAID: dict[str, Any] = {
    "exp": 100, "sub": "auth0|1 2/3", "org": {"name": "acme", "team": "search"}, "https://example.com/roles": ["ops", "dev"], "scope": "openid llm.read",
    "email_verified": True, "mail": "bob@example.com",
}  # fmt: skip


def test_claims_are_found_by_name_and_by_path() -> None:
    found = record(issuer(claims=Claims("org.name", "org.team", "mail")), SAID)
    assert (found.tenant, found.project, found.user) == ("acme", "search", "bob@example.com")


def test_a_users_name_is_escaped_where_it_would_be_read_as_something_else() -> None:
    assert record(issuer(tenant="acme"), SAID).user == "auth0|1%202%2F3"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "`tenant` names no tenant"),
        ({"claims": Claims("org")}, "`org` names no tenant"),
        ({"claims": Claims("scope")}, "`scope` names no tenant"),
        ({"tenant": "acme", "claims": Claims(user="nothing")}, "names no user"),
        ({"tenant": "acme", "claims": Claims(project="scope")}, "names no project"),
        ({"tenant": "acme", "required": {"email_verified": "false"}}, "`email_verified`"),
        ({"tenant": "acme", "required": {"scope": "llm"}}, "`scope`"),
        ({"tenant": "acme", "claims": Claims(roles="scope"), "roles": {"admin": ("admin",)}}, "no role"),
    ],
)
def test_a_good_token_that_says_nobody_is_told_so(more: dict[str, Any], words: str) -> None:
    with pytest.raises(Fault) as caught:
        record(issuer(**more), SAID)
    assert (caught.value.kind, caught.value.code) == (Kind.FORBIDDEN, "token_not_sufficient")
    assert words in caught.value.message


@pytest.mark.parametrize(("sub", "fits"), [("", False), ("x" * 200, True), ("x" * 201, False)])
def test_a_users_name_has_its_length(sub: str, fits: bool) -> None:
    said = {**SAID, "sub": sub}
    if fits:
        assert record(issuer(tenant="acme"), said).user == sub
        return
    with pytest.raises(Fault, match="names no user"):
        record(issuer(tenant="acme"), said)


def test_a_key_of_an_issuer_that_is_none_is_not_taken_for_one() -> None:
    broken = ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "ec"}, {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "rsa"})
    for signer in (EC, RSA):
        fault = refused(tokens(issuer(jwks=jwks(more=broken))), signer.token())
        assert (fault.kind, fault.code) == (Kind.UNAUTHENTICATED, "invalid_token")


def test_what_is_required_may_be_one_of_several() -> None:
    required = {"scope": "llm.read", "https://example.com/roles": "dev", "email_verified": "true"}
    assert record(issuer(tenant="acme", required=required), SAID)


@pytest.mark.parametrize(("claim", "role"), [("https://example.com/roles", "ops"), ("scope", "llm.read")])
def test_roles_say_what_may_be_done(claim: str, role: str) -> None:
    scopes = ("admin", "inference")
    made = issuer(tenant="acme", claims=Claims(roles=claim), roles={role: scopes, "unheld": ("read",)})
    assert record(made, SAID).scopes == scopes


# -- as a principal --------------------------------------------------------------------------------------------------


def keys(made: Tokens, *records: Any) -> Keys:
    ids = {tenant_id(each.name) if isinstance(each, Tenant) else user_id(each.tenant, each.name): each for each in records}
    return Keys(b"pepper", [], Holders(ids, Everybody(key=Grant(Limits(requests=1)))), tokens=made)


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
def test_a_tokens_requests_count_against_user_and_tenant_and_no_key(name: bytes) -> None:
    rates = Grant(Limits(requests=5)), Grant(Limits(requests=7))
    made = keys(tokens(), Tenant("acme", rates[0]), User("acme", "bob", rates[1]))
    value = EC.token()
    found = made.principal({name: b"Bearer " + value if name == b"authorization" else value}, wall=wall())
    assert found.holders == (Holder("user:acme/bob", rates[1]), Holder("tenant:acme", rates[0]))
    assert (found.id, found.key, found.user) == ("", "bob", "bob")


def test_a_verified_token_is_remembered_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokens()
    known = keys(made)
    value, verify, count = EC.token(), made.verify, [0]

    def counted(token: bytes, wall: float) -> Any:
        count[0] += 1
        return verify(token, wall)

    monkeypatch.setattr(made, "verify", counted)
    now = wall()
    for _ in range(5):
        known.principal({b"authorization": b"Bearer " + value}, wall=now)
    assert count == [1]
    with pytest.raises(Fault) as caught:
        known.principal({b"authorization": b"Bearer " + value}, wall=now + 310)
    assert caught.value.code == "expired_token"
    known.forget()
    known.principal({b"authorization": b"Bearer " + value}, wall=now)
    assert count == [2]


def test_whoever_is_disabled_has_no_use_for_a_token() -> None:
    for records, code in (((Tenant("acme", disabled=True),), "tenant_disabled"), ((User("acme", "bob", disabled=True),), "user_disabled")):
        with pytest.raises(Fault) as caught:
            keys(tokens(), *records).principal({b"authorization": b"Bearer " + EC.token()}, wall=wall())
        assert caught.value.code == code


def test_no_refusal_and_no_print_holds_a_token() -> None:
    made, value = tokens(), Signer("ec").token()
    fault = refused(made, value)
    told = "".join([repr(made), repr(fault), *traceback.format_exception(fault)])
    assert value.decode() not in told
    assert value.rpartition(b".")[2].decode() not in told
