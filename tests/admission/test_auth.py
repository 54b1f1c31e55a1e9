"""Keys: found by whole token only, wherever an SDK puts it, and never shown."""

from __future__ import annotations

import hmac
import traceback
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission import auth
from llm_gateway.admission.auth import ANYONE, Keys, token
from llm_gateway.admission.directory import Directory
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal
from llm_gateway.core.tenancy import Grant, Holder, Key, Limits, Project, Record, Tenant, User, position
from llm_gateway.stores.tables import write

SECRET, KEY = b"pepper", b"sk-gateway-0123456789"
MADE = b"sk-gw-made-at-run-time"
ME = Principal("ci", "blue", id="ci")
Headers = dict[bytes, bytes]


def digest(key: bytes) -> bytes:
    return hmac.digest(SECRET, key, "sha256")


def known(key: bytes, name: str = "ci", **more: object) -> Key:
    return Key(**({"id": name, "name": name, "digest": digest(key), "tenant": "blue"} | more))


def table(written: list[Key], directory: Directory | None = None, *, required: bool = True) -> Keys:
    holders = Holders({}, Everybody(), directory.find if directory is not None else None)
    return Keys(SECRET, written, holders, directory=directory, required=required)


@pytest.fixture
def keys() -> Keys:
    return table([known(KEY)])


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
    assert keys.principal(headers, query) == ME
    assert keys.principal(headers, query) == ME


def test_no_key_says_where_to_put_one(keys: Keys) -> None:
    fault = refused(keys, {b"user-agent": b"x"})
    assert fault.code == "missing_api_key"
    assert "Authorization: Bearer" in fault.message


@given(st.binary(max_size=40))
def test_nothing_but_the_whole_key_opens(guess: bytes) -> None:
    keys = table([known(KEY)])
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
        assert keys.principal({b"authorization": proxy, **headers}, query) == ME
        refused(keys, {b"authorization": proxy})
    assert keys.principal({b"authorization": b"Bearer " + KEY, b"x-api-key": b"sk-wrong"}) == ME
    refused(keys, {b"x-api-key": b"sk-wrong"})


def test_what_is_remembered_is_bounded(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MOST_KNOWN", 3)
    for spaces in range(10):
        keys.principal({b"authorization": b"Bearer " + b" " * spaces + KEY})
    assert len(keys._known) <= 3


def test_a_key_costs_the_same_look_up_however_many_there_are() -> None:
    """Counted, not timed: one digest and one look-up, by the table's own `get`."""

    class Table(dict[bytes, Key]):
        looked = 0

        def get(self, key: bytes, default: object = None) -> Key | None:  # type: ignore[override]
            Table.looked += 1
            return super().get(key)

        def __iter__(self):
            raise AssertionError("scanned")

    keys = table([])
    keys._written = Table({digest(b"sk-%d" % number): known(b"sk-%d" % number) for number in range(5_000)})
    for guess in (b"sk-0", b"sk-4999"):
        assert keys.principal({b"x-api-key": guess}) == ME
    refused(keys, {b"x-api-key": b"sk-5000"})
    assert Table.looked == 3


def test_absurdly_long_keys_are_not_even_hashed() -> None:
    assert token({b"authorization": b"Bearer " + b"x" * 8190}) is None
    assert token({b"x-api-key": b"x" * 8192}, b"key=" + b"x" * 8192) is None


def test_an_open_door_lets_anybody_in_and_still_knows_its_own() -> None:
    keys = table([known(KEY)], required=False)
    assert keys.principal({}) is ANYONE
    assert keys.principal({b"x-api-key": b"sk-wrong"}) is ANYONE
    assert keys.principal({b"x-api-key": KEY}) == ME


def test_no_refusal_and_no_print_holds_a_token(keys: Keys) -> None:
    keys.principal({b"authorization": b"Bearer " + KEY})
    fault = refused(keys, {b"authorization": b"Bearer sk-guess-987"}, b"key=sk-query-987")
    told = "".join([repr(keys), repr(fault), fault.message, *traceback.format_exception(fault)])
    assert "987" not in told
    assert KEY.decode() not in told
    assert repr(keys) == "<Keys: 1>"


# -- those made at run time ----------------------------------------------------------------------------------------


def directory(*records: Record) -> Directory:
    made = Directory()
    made.confirmed = made.awaited = True
    made.change(1, {position(each): msgspec.msgpack.encode(each) for each in records})
    return made


def test_a_key_of_the_table_opens_like_one_of_the_configuration(tmp_path: Path) -> None:
    made = Directory()
    record = known(MADE, "made", user="bob", project="search")
    write(tmp_path / "keys.table", [(position(record), msgspec.msgpack.encode(record))], 3)
    assert made.open(tmp_path / "keys.table") == ""
    keys = table([known(KEY)], made)
    for headers in ({b"authorization": b"Bearer " + MADE}, {b"x-api-key": MADE}):
        found = keys.principal(headers)
        assert (found.id, found.tenant, found.user, found.project) == ("made", "blue", "bob", "search")
    assert keys.principal({b"x-api-key": KEY}) == ME


def test_what_the_configuration_says_of_a_key_comes_first() -> None:
    keys = table([known(KEY)], directory(known(KEY, "other", tenant="green")))
    assert keys.principal({b"x-api-key": KEY}).tenant == "blue"


def test_a_revoked_key_opens_nothing_though_it_was_remembered() -> None:
    made = directory(known(MADE))
    keys = table([], made)
    headers = [{b"authorization": b"Bearer " + MADE}, {b"x-api-key": MADE}]
    for each in headers:
        assert keys.principal(each) == keys.principal(each)
    gone = msgspec.msgpack.encode(known(MADE, disabled=True))
    for serial, (entry, code) in enumerate(((gone, "revoked_api_key"), (None, "invalid_api_key")), 2):
        assert made.change(serial, {digest(MADE): entry})
        keys.forget()
        assert [refused(keys, each).code for each in headers] == [code, code]


def test_expiry_is_looked_at_each_time() -> None:
    keys = table([known(KEY, expires=100.0)], directory(known(MADE, expires=200.0)))
    for key, end in ((KEY, 100.0), (MADE, 200.0)):
        for headers in ({b"authorization": b"Bearer " + key}, {b"x-api-key": key}):
            assert keys.principal(headers, wall=end - 0.1)
            with pytest.raises(Fault, match="expired") as caught:
                keys.principal(headers, wall=end)
            assert (caught.value.kind, caught.value.code) == (Kind.UNAUTHENTICATED, "expired_api_key")


def test_addresses_are_looked_at_each_time() -> None:
    keys = table([known(KEY, ips=("10.0.0.0/8", "2001:db8::/32"))])
    for headers in ({b"authorization": b"Bearer " + KEY}, {b"x-api-key": KEY}):
        for peer in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "10.255.255.255"):
            assert keys.principal(headers, peer=peer) == keys.principal(headers, peer=peer)
        for peer in ("11.0.0.1", "::1", "unix", "", "10.0.0.1, 10.0.0.2", "::ffff:11.0.0.1"):
            with pytest.raises(Fault, match="your address") as caught:
                keys.principal(headers, peer=peer)
            assert caught.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (Tenant("blue", disabled=True), "tenant_disabled"),
        (Project("blue", "search", disabled=True), "project_disabled"),
        (User("blue", "bob", disabled=True), "user_disabled"),
    ],
    ids=["tenant", "project", "user"],
)
def test_whoever_belongs_to_somebody_disabled_is_refused_by_name(record: Record, code: str) -> None:
    keys = table([known(KEY, user="bob", project="search")], directory(record, known(MADE, user="bob", project="search")))
    for key in (KEY, MADE):
        with pytest.raises(Fault, match="is disabled") as caught:
            keys.principal({b"x-api-key": key})
        assert (caught.value.kind, caught.value.code) == (Kind.FORBIDDEN, code)


def test_a_keys_requests_count_against_all_it_belongs_to() -> None:
    rates = [Limits(requests=number) for number in range(1, 5)]
    tenant = Tenant("blue", Grant(rates[3]), each_user=Grant(Limits(day=7)), each_key=Grant(Limits(day=8)))
    others = (tenant, Project("blue", "search", Grant(rates[2])), User("blue", "bob", Grant(rates[1])), User("blue", "eve"))
    own, plain = known(MADE, "own", user="bob", project="search", grant=Grant(rates[0])), known(KEY, "plain", user="eve", project="other")
    keys = table([], directory(*others, own, plain))
    assert keys.principal({b"x-api-key": MADE}).holders == (
        Holder("key:own", Grant(rates[0])), Holder("user:blue/bob", Grant(rates[1])),
        Holder("project:blue/search", Grant(rates[2])), Holder("tenant:blue", Grant(rates[3])),
    )  # fmt: skip
    assert keys.principal({b"x-api-key": KEY}).holders == (
        Holder("key:plain", Grant(Limits(day=8))), Holder("user:blue/eve", Grant(Limits(day=7))), Holder("tenant:blue", Grant(rates[3])),
    )  # fmt: skip


def test_a_signer_is_found_by_the_id_of_its_key() -> None:
    signer = Key(id="s", name="s", aws="AKGWSIGNER2222222222", tenant="blue")
    signed = {
        b"authorization": b"AWS4-HMAC-SHA256 Credential=AKGWSIGNER2222222222/20261127/us-east-1/bedrock/aws4_request, "
        b"SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64
    }
    for keys in (table([signer]), table([], directory(signer))):
        found = keys.principal(signed)
        assert (found.id, found.signs) == ("s", True)


def test_before_the_operator_has_said_which_keys_there_are_only_its_own_kind_waits() -> None:
    made = Directory()
    keys = table([known(KEY)], made)
    assert refused(keys, {b"x-api-key": MADE}).code == "invalid_api_key"  # no operator: nobody to wait for
    made.awaited = True
    assert keys.principal({b"x-api-key": KEY}) == ME
    for headers in (
        {b"x-api-key": MADE},
        {b"authorization": b"AWS4-HMAC-SHA256 Credential=AKGWX/20261127/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64},
    ):
        with pytest.raises(Fault) as caught:
            keys.principal(headers)
        assert (caught.value.kind.status, caught.value.code, caught.value.retry_after) == (503, "starting", 1.0)
    assert refused(keys, {b"x-api-key": b"sk-other"}).code == "invalid_api_key"
    made.confirmed = True
    assert refused(keys, {b"x-api-key": MADE}).code == "invalid_api_key"


def test_a_key_of_the_table_is_found_by_where_it_stands_wherever_it_may_ask_from(tmp_path: Path) -> None:
    made = [
        known(b"a", "mine", ips=("10.0.0.0/8",), expires=100.0), known(b"b", "gone", disabled=True), known(b"c", "signs", aws="AKGWX", digest=b""),
    ]  # fmt: skip
    write(tmp_path / "keys.table", sorted((position(key), msgspec.msgpack.encode(key)) for key in made), 1)
    directory = Directory()
    directory.open(tmp_path / "keys.table")
    keys = table([known(KEY)], directory)
    found = keys.placed(digest(b"a"), 99.0)
    assert found is not None
    assert (found.key, found.ips) == ("mine", ("10.0.0.0/8",))
    with pytest.raises(Fault, match="expired"):
        keys.placed(digest(b"a"), 100.0)
    with pytest.raises(Fault, match="revoked"):
        keys.placed(digest(b"b"), 0.0)
    assert keys.placed(position(made[2]), 0.0) is not None
    assert keys.placed(digest(b"d"), 0.0) is None
    assert (keys.named("ci"), keys.named("mine")) == (ME, None)
