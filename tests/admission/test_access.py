"""Who may do what: by the head, then by the body's top level."""

from __future__ import annotations

import hmac

import pytest

from llm_gateway import wiring
from llm_gateway.admission.access import Admission
from llm_gateway.admission.auth import Keys, aws_secret
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.admission.seals import Opened, Seals
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Pin, Route
from llm_gateway.core.sigv4 import Credentials, Request, Scope, body_hash, sign
from llm_gateway.core.tenancy import Grant, Key

SECRET = b"pepper"
SIGNER, NOON = "AKGWSIGNER2222222222", 1_764_000_000.0
CHAT = Route("chat", "openai_chat", "/v1/chat/completions", body=True)
MODELS = Route("models", "openai_chat", "/v1/models")
HEALTH = Route("health", "openai_chat", "/health", open=True)


class Journal:
    full = False


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def admission(journal: Journal) -> Admission:
    written = [
        Key(id="all", name="all", digest=hmac.digest(SECRET, b"sk-all", "sha256")),
        Key(id="one", name="one", digest=hmac.digest(SECRET, b"sk-one", "sha256"), grant=Grant(models=("gpt-4",))),
        Key(id="reads", name="reads", digest=hmac.digest(SECRET, b"sk-reads", "sha256"), scopes=("read",)),
        Key(id="signs", name="signs", aws=SIGNER),
        Key(id="administers", name="administers", digest=hmac.digest(SECRET, b"sk-administers", "sha256"), scopes=("admin",)),
    ]
    return Admission(Keys(SECRET, written, Holders({}, Everybody())), wiring.formats(), journal, Seals(SECRET))


def ask(route: Route = CHAT, key: bytes | None = b"sk-all", body: bytes = b"") -> Exchange:
    headers = {b"x-api-key": key} if key is not None else {}
    return Exchange(id="1", client=None, route=route, headers=headers, body=body)  # type: ignore[arg-type]


def test_the_head_alone_names_the_principal(admission: Admission) -> None:
    x = ask(key=b"sk-one")
    admission.identify(x)
    assert x.principal is not None
    assert x.principal.key == "one"


@pytest.mark.parametrize("key", [b"sk-reads", b"sk-administers"])
def test_a_key_that_may_not_use_models_may_look_at_them(admission: Admission, key: bytes) -> None:
    admission.identify(ask(MODELS, key))
    with pytest.raises(Fault, match="inference") as caught:
        admission.identify(ask(CHAT, key))
    assert (caught.value.kind, caught.value.code) == (Kind.FORBIDDEN, "insufficient_scope")


def test_an_open_route_asks_nobody(admission: Admission) -> None:
    x = ask(HEALTH, key=None)
    admission.identify(x)
    assert x.principal is None


def test_without_a_key_the_head_is_enough_to_refuse(admission: Admission) -> None:
    for route in (CHAT, MODELS):
        with pytest.raises(Fault) as caught:
            admission.identify(ask(route, key=None))
        assert caught.value.kind is Kind.UNAUTHENTICATED


def test_what_cannot_be_recorded_is_not_begun(admission: Admission, journal: Journal) -> None:
    journal.full = True
    with pytest.raises(Fault) as caught:
        admission.identify(ask())
    assert (caught.value.kind.status, caught.value.code, caught.value.retry_after) == (503, "journal_full", 5.0)
    admission.identify(ask(MODELS))
    admission.identify(ask(HEALTH, key=None))


def test_a_full_journal_tells_strangers_nothing(admission: Admission, journal: Journal) -> None:
    journal.full = True
    with pytest.raises(Fault) as caught:
        admission.identify(ask(key=b"sk-guess"))
    assert caught.value.kind is Kind.UNAUTHENTICATED


def signed(route: Route, body: bytes, *, secret: str = "", said: bytes | None = None) -> Exchange:
    """said: the body that was signed, where another came."""
    request = Request("POST", "/v1/x", "", {b"host": b"gw"}, body_hash(body if said is None else said))
    added = sign(request, Credentials(SIGNER, secret or aws_secret(SECRET, SIGNER)), Scope("us-east-1"), NOON)
    headers = {**request.headers, **dict(added)}
    return Exchange(id="1", client=None, route=route, method=b"POST", path=b"/v1/x", headers=headers, body=body, wall=NOON)  # type: ignore[arg-type]


async def test_who_signs_is_known_by_the_signature_not_by_the_name_of_the_key(admission: Admission) -> None:
    """Where there is a body it is a part of what was signed; one who only names somebody else's key is nobody, also in the row."""
    body = b'{"model":"gpt-4","messages":[{"role":"user","content":"hi"}]}'
    for hashed in (False, True):
        good, changed, forged = signed(CHAT, body), signed(CHAT, body, said=b"{}"), signed(CHAT, body, secret="guess")
        for x in (good, changed, forged):
            admission.identify(x)
            if hashed:
                await admission.hash(x)
        admission.read(good)
        assert good.principal is not None
        assert (good.principal.key, good.model) == ("signs", "gpt-4")
        for x in (changed, forged):
            with pytest.raises(Fault) as caught:
                admission.read(x)
            assert (caught.value.kind, x.principal, x.model) == (Kind.UNAUTHENTICATED, None, "")
    admission.identify(signed(MODELS, b""))
    stranger = signed(MODELS, b"", secret="guess")
    with pytest.raises(Fault) as caught:
        admission.identify(stranger)
    assert (caught.value.kind, stranger.principal) == (Kind.UNAUTHENTICATED, None)


def read(admission: Admission, key: bytes, model: str) -> Exchange:
    x = ask(key=key, body=b'{"model":"%b","stream":true,"messages":[{"role":"user","content":"hi"}]}' % model.encode())
    admission.identify(x)
    admission.read(x)
    return x


def test_a_key_for_some_models_gets_only_those(admission: Admission) -> None:
    x = read(admission, b"sk-one", "gpt-4")
    assert (x.model, x.stream) == ("gpt-4", True)
    assert read(admission, b"sk-all", "anything/at-all").model == "anything/at-all"
    for other in ("gpt-4o", "openai/gpt-4", "GPT-4", "gpt-4 "):
        with pytest.raises(Fault) as caught:
            read(admission, b"sk-one", other)
        assert (caught.value.kind, caught.value.param) == (Kind.NO_MODEL, "model")


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"messages":[]}', b'{"model":7,"messages":[]}', b'{"model":"'])
def test_a_body_that_is_no_request_is_the_callers_fault(admission: Admission, body: bytes) -> None:
    x = ask(body=body)
    admission.identify(x)
    with pytest.raises(Fault) as caught:
        admission.read(x)
    assert caught.value.kind is Kind.INVALID


def test_a_models_name_is_not_kept_whatever_its_length(admission: Admission) -> None:
    """A name that leads somewhere stands in plans for as long as the gateway runs, and in rows for ever."""
    assert read(admission, b"sk-all", f"echo/{'m' * 500}").model == f"echo/{'m' * 500}"
    x = ask(body=b'{"model":"echo/%b","messages":[{"role":"user","content":"hi"}]}' % (b"m" * 508))
    admission.identify(x)
    with pytest.raises(Fault) as caught:
        admission.read(x)
    assert (caught.value.kind, caught.value.param, x.model) == (Kind.INVALID, "model", "")


RESPONSES = Route("chat", "openai_responses", "/v1/responses", body=True, sealed=True)


@pytest.mark.parametrize("name", ["resp_0123", "247c7b8c-4dac-9a91-a1d0-5be0345d6ea5", "5138abcf-4c4e-b0ab-7e0b-f4c81b98f455_us-east-1"])
def test_an_earlier_reply_goes_back_to_who_made_it_whatever_its_id_looks_like(admission: Admission, name: str) -> None:
    def asked(said: str) -> Exchange:
        x = ask(RESPONSES, body=b'{"model":"xai/grok","input":"hi","previous_response_id":"%b"}' % said.encode())
        admission.identify(x)
        admission.read(x)
        return x

    x = asked(admission.seals.seal("default", Opened("xai", "0", name)))
    assert (x.pin, bytes(x.peek.members["previous_response_id"])) == (Pin("xai", "0", "previous_response_id"), f'"{name}"'.encode())
    for other in (name, admission.seals.seal("other", Opened("xai", "0", name))):
        with pytest.raises(Fault) as caught:
            asked(other)
        assert caught.value.kind is Kind.NOT_FOUND
