"""Keys: found by whole token only, wherever an SDK puts it, and never shown."""

from __future__ import annotations

import hmac
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission import auth
from llm_gateway.admission.auth import ANYONE, Keys, token
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal

SECRET, KEY = b"pepper", b"sk-gateway-0123456789"
ME = Principal("ci", "blue")
Headers = dict[bytes, bytes]


def digest(key: bytes) -> bytes:
    return hmac.digest(SECRET, key, "sha256")


@pytest.fixture
def keys() -> Keys:
    return Keys(SECRET, [(digest(KEY), ME)])


def refused(keys: Keys, headers: Headers, query: bytes = b"") -> Fault:
    with pytest.raises(Fault) as caught:
        keys.principal(headers, query)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    return caught.value


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({b"authorization": b"Bearer " + KEY}, b""),
        ({b"authorization": b"bearer " + KEY}, b""),
        ({b"authorization": b"Bearer  " + KEY + b" "}, b""),
        ({b"x-api-key": KEY}, b""),
        ({b"api-key": KEY}, b""),
        ({b"x-goog-api-key": KEY}, b""),
        ({}, b"alt=sse&key=" + KEY),
        ({}, b"key=%73k%2Dgateway-0123456789&alt=sse"),
        ({b"authorization": b"Bearer "}, b"key=" + KEY),
        ({b"authorization": b"Basic dXNlcjpwYXNz", b"x-api-key": KEY}, b""),
    ],
    ids=["bearer", "lower", "spaces", "anthropic", "azure", "google", "query", "escaped", "empty bearer", "proxy's basic"],
)
def test_every_sdks_way_to_send_a_key(keys: Keys, headers: Headers, query: bytes) -> None:
    assert keys.principal(headers, query) is ME
    assert keys.principal(headers, query) is ME


def test_no_key_says_where_to_put_one(keys: Keys) -> None:
    fault = refused(keys, {b"user-agent": b"x"})
    assert fault.code == "missing_api_key"
    assert "Authorization: Bearer" in fault.message


@given(st.binary(max_size=40))
def test_nothing_but_the_whole_key_opens(guess: bytes) -> None:
    keys = Keys(SECRET, [(digest(KEY), ME)])
    for each in (guess, KEY + guess, KEY[: len(guess) % len(KEY)], guess + KEY):
        if each.strip() == KEY:
            continue
        for headers in ({b"authorization": b"Bearer " + each}, {b"x-api-key": each}):
            if headers.get(b"x-api-key") == KEY:
                continue
            refused(keys, headers)


def test_a_digest_is_no_key(keys: Keys) -> None:
    refused(keys, {b"authorization": b"Bearer " + digest(KEY)})
    refused(keys, {b"authorization": b"Bearer " + digest(KEY).hex().encode()})


def test_a_key_that_proved_good_does_not_open_for_what_looks_like_it(keys: Keys) -> None:
    keys.principal({b"authorization": b"Bearer " + KEY})
    for other in (b"Bearer " + KEY + b"x", b"Bearer " + KEY[:-1], b"Basic " + KEY, KEY):
        refused(keys, {b"authorization": other})


def test_what_came_along_with_a_good_key_opens_nothing_alone(keys: Keys) -> None:
    """A proxy's own credentials beside the key; and the other way round, a good bearer does not vouch for other headers."""
    proxy = b"Basic dXNlcjpwYXNz"
    for headers, query in (({b"x-api-key": KEY}, b""), ({}, b"key=" + KEY)):
        assert keys.principal({b"authorization": proxy, **headers}, query) is ME
        refused(keys, {b"authorization": proxy})
    assert keys.principal({b"authorization": b"Bearer " + KEY, b"x-api-key": b"sk-wrong"}) is ME
    refused(keys, {b"x-api-key": b"sk-wrong"})


def test_what_is_remembered_is_bounded(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MOST_KNOWN", 3)
    for spaces in range(10):
        keys.principal({b"authorization": b"Bearer " + b" " * spaces + KEY})
    assert len(keys._known) <= 3


def test_a_key_costs_the_same_look_up_however_many_there_are() -> None:
    """Counted, not timed: one digest and one look-up, by the table's own `get`."""

    class Table(dict[bytes, Principal]):
        looked = 0

        def get(self, key: bytes, default: object = None) -> Principal | None:  # type: ignore[override]
            Table.looked += 1
            return super().get(key)

        def __iter__(self):
            raise AssertionError("scanned")

    keys = Keys(SECRET, [])
    keys._principals = Table({digest(b"sk-%d" % number): ME for number in range(5_000)})
    for guess in (b"sk-0", b"sk-4999"):
        assert keys.principal({b"x-api-key": guess}) is ME
    refused(keys, {b"x-api-key": b"sk-5000"})
    assert Table.looked == 3


def test_absurdly_long_keys_are_not_even_hashed() -> None:
    assert token({b"authorization": b"Bearer " + b"x" * 5000}) is None
    assert token({b"x-api-key": b"x" * 5000}, b"key=" + b"x" * 5000) is None


def test_an_open_door_lets_anybody_in_and_still_knows_its_own() -> None:
    keys = Keys(SECRET, [(digest(KEY), ME)], required=False)
    assert keys.principal({}) is ANYONE
    assert keys.principal({b"x-api-key": b"sk-wrong"}) is ANYONE
    assert keys.principal({b"x-api-key": KEY}) is ME


def test_no_refusal_and_no_print_holds_a_token(keys: Keys) -> None:
    keys.principal({b"authorization": b"Bearer " + KEY})
    fault = refused(keys, {b"authorization": b"Bearer sk-guess-987"}, b"key=sk-query-987")
    told = "".join([repr(keys), repr(fault), fault.message, *traceback.format_exception(fault)])
    assert "987" not in told
    assert KEY.decode() not in told
    assert repr(keys) == "<Keys: 1>"
