"""Principals by JWT through a whole gateway: a real identity provider on loopback, whose keys rotate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from admin.issuer import IdentityProvider
from admission.signing import Signer, wall
from e2e.conftest import Gateway, free_port, running
from e2e.test_keys import ASK, TOKEN, Keyed
from processes import eventually

FIRST, SECOND = Signer("first"), Signer("second", "RS256")
OLD, NEW = Signer(None, "EdDSA"), Signer("of another name", "RS256")


class Trusting(Keyed):
    def __init__(self, gateway: Gateway, metrics_port: int, provider: IdentityProvider) -> None:
        super().__init__(gateway, metrics_port)
        self.provider = provider

    def token(self, signer: Signer = FIRST, **claims: Any) -> str:
        return signer.token(**{"iss": self.provider.url, **claims}).decode()


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusting]:
    provider = IdentityProvider(FIRST)
    place, metrics_port = tmp_path_factory.mktemp("trusting"), free_port()
    roles = {"llm-user": "inference", "llm-admin": ["admin", "inference"]}
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port}, "workers": 2, "state": "per_worker",
        "data_dir": str(place / "data"), "providers": {"echo": {}}, "admin": {"token": TOKEN}, "logging": {"access": False},
        "keys": [{"name": "cfg", "key": "sk-config-0123456"}],
        "auth": {"jwt": [{
            "issuer": provider.url, "audience": "gateway", "allow_private": True, "claims": {"roles": "realm_access.roles"}, "roles": roles,
        }, {"issuer": "ci", "audience": "gateway", "algorithms": ["EdDSA", "RS256"], "public_keys": f"file:{place}/ci.pem"}]},
    }  # fmt: skip
    (place / "ci.pem").write_text(OLD.pem)
    with running(place, config) as gateway:
        made = Trusting(gateway, metrics_port, provider)
        eventually(lambda: made.admin("GET", "keys")[0] == 200, 20)
        yield made
    provider.stop()


USER, ADMIN = {"realm_access": {"roles": ["llm-user", "other"]}}, {"realm_access": {"roles": ["llm-admin"]}}


def test_a_token_serves_like_a_key(trusting: Trusting) -> None:
    token = trusting.token(**USER)
    eventually(lambda: trusting.statuses(token) == {200}, 5)
    answer = trusting.client(token).chat.completions.create(model="echo/x", messages=ASK)
    assert "hi" in (answer.choices[0].message.content or "")
    lines = [line for file in (trusting.gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
    (row,) = [each for each in map(json.loads, lines) if each["tenant"] == "acme" and each["route"] == "/v1/chat/completions"]
    assert (row["user"], row["key"]) == ("bob", "bob")


@pytest.mark.parametrize(
    ("claims", "status", "code"),
    [
        ({"exp": 1}, 401, "expired_token"),
        ({"aud": "another"}, 401, "invalid_token"),
        ({"iss": "https://another.test"}, 401, "invalid_token"),
        ({"realm_access": {"roles": ["nobody"]}}, 403, "token_not_sufficient"),
        ({"tenant": 5}, 403, "token_not_sufficient"),
    ],
)
def test_a_token_that_is_wrong_is_refused_with_a_reason(trusting: Trusting, claims: dict[str, Any], status: int, code: str) -> None:
    token = trusting.token(**{**USER, **claims})
    assert (trusting.statuses(token), trusting.code(token)) == ({status}, code)
    assert trusting.code(trusting.token(Signer("first"), **USER)) == "invalid_token"


def test_a_users_limit_holds_for_its_tokens(trusting: Trusting) -> None:
    trusting.admin("POST", "tenants", {"name": "acme"})
    trusting.admin("POST", "tenants/acme/users", {"name": "carol", "limits": {"requests_per_minute": 2}})
    client = trusting.client(trusting.token(sub="carol", **USER))

    def limited() -> bool:
        try:
            client.chat.completions.create(model="echo/x", messages=ASK)
        except openai.RateLimitError as error:
            return "of this user" in str(error)
        return False

    eventually(limited, 5)
    trusting.client(trusting.token(sub="dave", **USER)).chat.completions.create(model="echo/x", messages=ASK)
    trusting.admin("PATCH", "tenants/acme/users/carol", {"enabled": False})
    eventually(lambda: trusting.code(trusting.token(sub="carol", **USER)) == "user_disabled", 3)


def test_a_role_administers_its_own_tenant(trusting: Trusting) -> None:
    token = trusting.token(**ADMIN)
    status, made = trusting.admin("POST", "keys", {"name": "by-token", "tenant": "acme"}, token)
    assert (status, made["created_by"]) == (201, "bob")
    assert trusting.admin("POST", "keys", {"name": "n", "tenant": "default"}, token)[0] == 404
    assert trusting.admin("GET", "tenants", token=trusting.token(**USER))[0] == 403
    assert trusting.admin("GET", "tenants", token=trusting.token(exp=int(wall()) - 100, **ADMIN))[0] == 401


def test_keys_of_the_file_rotate_by_a_reload_in_every_worker(trusting: Trusting) -> None:
    old, new = (trusting.token(signer, iss="ci") for signer in (OLD, NEW))
    file = trusting.gateway.log.with_name("ci.pem")
    assert (trusting.statuses(old), trusting.code(new)) == ({200}, "invalid_token")
    answer = trusting.client(old).chat.completions.create(model="echo/x", messages=ASK)
    assert "hi" in (answer.choices[0].message.content or "")
    for text, statuses in ((OLD.pem + NEW.pem, ({200}, {200})), (NEW.pem, ({401}, {200})), (OLD.pem, ({200}, {401}))):
        file.write_text(text)
        assert trusting.admin("POST", "reload")[0] == 200
        eventually(lambda statuses=statuses: (trusting.statuses(old), trusting.statuses(new)) == statuses, 5)
    file.write_text("no key")
    status, refused = trusting.admin("POST", "reload")
    assert status >= 400
    assert "auth.jwt[1].public_keys[0]: expected PEM" in json.dumps(refused)
    assert trusting.statuses(old) == {200}, "what was in force stays"
    file.write_text(OLD.pem)


@pytest.mark.slow
def test_keys_rotate_and_nobody_who_tries_again_is_refused(trusting: Trusting) -> None:
    old, new = trusting.token(**USER), trusting.token(SECOND, **USER)
    assert trusting.statuses(old) == {200}
    trusting.provider.keys = [FIRST, SECOND]
    seen = set[int]()

    def good() -> bool:
        statuses = trusting.statuses(new)
        seen.update(statuses)
        return statuses == {200}

    eventually(good, 15)
    assert seen <= {200, 503}  # not yet is no refusal: SDKs try again
    assert trusting.statuses(old) == {200}
    trusting.provider.keys = [SECOND]
    eventually(lambda: trusting.statuses(trusting.token(Signer("third"), **USER)) and trusting.statuses(old) <= {401, 503}, 25)
    assert trusting.statuses(new) == {200}
