"""Signature Version 4: botocore is the measure, both for what we sign and for what we take."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_gateway.core import sigv4
from llm_gateway.core.sigv4 import Credentials, Request, Scope, access_key, body_hash, sign, verify

NOW = 1_767_225_599.0  # the last second of a year
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SCOPE = Scope("us-east-1")
HOST = "bedrock-runtime.us-east-1.amazonaws.com"
MODELS = (
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.amazon.nova-2-lite-v1:0",
    "a~b_c.d-e",
    "unusual %2F \u00e9\u6f22 name",
    "..",
)
PLAIN = st.text(st.characters(codec="latin-1", exclude_categories=["Cc", "Zs"]), max_size=40)
SPACED = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8), max_size=4
)
PATHS = st.lists(st.one_of(st.sampled_from([*MODELS, ".", "", "converse"]), st.text(st.characters(codec="utf-8"), max_size=12)), max_size=6)  # fmt: skip


def by_botocore(path, query, headers, body, session=None, now=NOW):
    """The Authorization header that botocore makes, and the headers it made it for."""
    request = AWSRequest(
        "POST", f"https://{HOST}{path}{f'?{query}' if query else ''}", headers={"host": HOST, **headers}, data=body
    )
    moment = datetime.fromtimestamp(now, UTC)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("botocore.auth.get_current_datetime", lambda: moment)
        SigV4Auth(BotoCredentials(KEY, SECRET, session), SCOPE.service, SCOPE.region).add_auth(request)
    return {name.lower().encode(): value.encode() for name, value in request.headers.items()}


def by_us(path, query, headers, body, session="", now=NOW):
    named = {b"host": HOST.encode(), **{name.lower().encode(): value.encode() for name, value in headers.items()}}
    request = Request("POST", path, query, named, body_hash(body))
    return named | dict(sign(request, Credentials(KEY, SECRET, session), SCOPE, now))


def encoded(segments):
    return "/" + "/".join(quote(one, safe="~") for one in segments)


@settings(max_examples=300, deadline=None)
@given(PATHS, st.binary(max_size=100), st.sampled_from(["", "FwoGZXIvYXdzEXAMPLE//+="]))
@example(["model", MODELS[0], "converse"], b"{}", "")
@example(["model", MODELS[1], "converse-stream"], b"{}", "token")
def test_our_signature_is_botocores(segments, body, session):
    path = encoded(segments)
    theirs = by_botocore(path, "", {"Content-Type": "application/json"}, body, session or None)
    ours = by_us(path, "", {"Content-Type": "application/json"}, body, session)
    assert ours[b"authorization"] == theirs[b"authorization"]
    assert ours[b"x-amz-date"] == theirs[b"x-amz-date"]
    assert ours.get(b"x-amz-security-token") == theirs.get(b"x-amz-security-token")


@settings(deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN), max_size=5))
def test_queries_are_signed_as_botocore_does(pairs):
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    assert by_us("/x", query, {}, b"")[b"authorization"] == by_botocore("/x", query, {}, b"")[b"authorization"]


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{3,8}-[a-z0-9]{1,8}", fullmatch=True), SPACED, max_size=4))
def test_headers_are_signed_as_botocore_does(headers):
    told = {f"x-{name}": "  ".join(words) for name, words in headers.items()}
    assert by_us("/x", "", told, b"")[b"authorization"] == by_botocore("/x", "", told, b"")[b"authorization"]


def request_of(signed, path="/model/m/converse", query="", body=b"{}", method="POST"):
    return Request(method, path, query, signed, hashlib.sha256(body).hexdigest())


@settings(deadline=None)
@given(PATHS, st.binary(max_size=50))
def test_what_botocore_signs_is_taken(segments, body):
    signed = by_botocore(encoded(segments), "", {"Content-Type": "application/json"}, body)
    assert access_key(signed) == KEY
    assert verify(request_of(signed, encoded(segments), body=body), SECRET, NOW) is None


def good():
    return by_botocore("/model/m/converse", "", {"Content-Type": "application/json"}, b"{}")


def test_a_changed_request_is_refused():
    assert verify(request_of(good()), SECRET, NOW) is None
    for changed in (
        request_of(good(), path="/model/other/converse"),
        request_of(good(), query="a=b"),
        request_of(good(), body=b"{ }"),
        request_of(good(), method="GET"),
        request_of(good() | {b"host": b"elsewhere"}),
        request_of(good() | {b"content-type": b"text/plain"}),
    ):
        assert verify(changed, SECRET, NOW) is not None
    assert verify(request_of(good()), SECRET + "x", NOW) is not None


def test_headers_that_were_not_signed_may_change():
    assert verify(request_of(good() | {b"user-agent": b"x", b"via": b"1.1 proxy"}), SECRET, NOW) is None


@pytest.mark.parametrize(("away", "word"), [(901, "expired"), (-901, "not valid yet"), (899, None), (-899, None)])
def test_the_clock_may_be_fifteen_minutes_off(away, word):
    reason = verify(request_of(good()), SECRET, NOW + away)
    assert reason is None if word is None else word in (reason or "")


def test_a_scope_of_another_day_is_refused():
    signed = good()
    signed[b"authorization"] = signed[b"authorization"].replace(b"/20251231/", b"/20251230/")
    assert "another day" in (verify(request_of(signed), SECRET, NOW) or "")


def test_host_and_date_must_be_signed():
    signed = good()
    for name in (b"host;", b";x-amz-date"):
        partly = signed | {b"authorization": signed[b"authorization"].replace(name, b"")}
        assert "must cover" in (verify(request_of(partly), SECRET, NOW) or "")


def test_a_signed_header_must_be_there():
    signed = good()
    del signed[b"content-type"]
    assert "does not have" in (verify(request_of(signed), SECRET, NOW) or "")


def test_a_body_hash_in_a_header_must_be_the_bodys():
    told = {"X-Amz-Content-SHA256": body_hash(b"{}")}
    signed = by_botocore("/model/m/converse", "", told, b"{}")
    assert verify(request_of(signed), SECRET, NOW) is None
    assert "body" in (verify(request_of(signed, body=b"[]"), SECRET, NOW) or "")


def test_an_unsigned_payload_is_taken_where_the_signature_says_so():
    signed = by_botocore("/model/m/converse", "", {"X-Amz-Content-SHA256": sigv4.UNSIGNED}, b"{}")
    assert verify(request_of(signed, body=b"anything"), SECRET, NOW) is None
    for other in (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"", b"x"):
        assert verify(request_of(signed | {b"x-amz-content-sha256": other}), SECRET, NOW) is not None


@pytest.mark.parametrize(
    "told",
    [b"", b"Bearer x", b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA256 Credential=A/2/r/s/aws4_request, SignedHeaders=host, Signature=0",
     b"AWS4-HMAC-SHA256 Credential=A/20251231/r/s/aws4_request, SignedHeaders=x-amz-date;host, Signature=" + b"0" * 64,
     b"AWS4-HMAC-SHA256 Credential=A/20251231/r/s/aws4_request, SignedHeaders=Host;x-amz-date, Signature=" + b"0" * 64,
     b"AWS4-ECDSA-P256-SHA256 Credential=A/20251231/s/aws4_request, SignedHeaders=host, Signature=" + b"0" * 64],
)  # fmt: skip
def test_other_authorizations_are_nobodys(told):
    headers = good() | {b"authorization": told}
    assert access_key(headers) is None
    assert verify(request_of(headers), SECRET, NOW) is not None


@settings(max_examples=300)
@given(st.binary(max_size=300), st.binary(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_garbage_is_refused_and_raises_nothing(authorization, stamp, path, query):
    headers = good() | {b"authorization": authorization, b"x-amz-date": stamp}
    assert verify(request_of(headers, path, query), SECRET, NOW) is not None
    assert verify(request_of(good() | {b"x-amz-date": stamp}, path, query), SECRET, NOW) is not None


@pytest.mark.parametrize(
    "stamp", [b"20251331T000000Z", b"99999999T999999Z", b"20251231T235960Z", "２０251231T235959Z".encode()]
)
def test_impossible_times_are_refused(stamp):
    assert "x-amz-date" in (verify(request_of(good() | {b"x-amz-date": stamp}), SECRET, NOW) or "")


def test_a_secret_is_not_printed():
    assert SECRET not in repr(Credentials(KEY, SECRET, "session"))
