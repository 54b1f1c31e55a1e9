"""What is one tenant's is not there for others; and a tenant's own keys stand in for the gateway's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_gateway.admission.vault import Vault
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal
from llm_gateway.formats.contract import Outgoing
from llm_gateway.routing.table import Table
from routing.conftest import asked

TEXT = """
providers:
  shared: {type: vllm, base_url: "http://a", keys: [{key: one}, {key: two}]}
  theirs: {type: vllm, base_url: "http://b", api_key: none, tenants: [acme]}
models:
  secret-model: {targets: [shared/m], tenants: [acme]}
  both: {targets: [theirs/m], fallbacks: [shared/m]}
  led: {targets: [shared/m], rules: [{when: {tags: [x]}, use: secret-model}]}
"""
ACME, OTHER = Principal("k", "acme"), Principal("k", "other")


def places(table: Table, model: str, principal: Principal) -> list[str]:
    return [f"{target.provider}/{target.key_id}" for target in table.course(asked(model, principal=principal))[1].targets]


def refused(table: Table, model: str, principal: Principal) -> Fault:
    with pytest.raises(Fault) as caught:
        table.course(asked(model, principal=principal))
    return caught.value


@pytest.mark.parametrize("model", ["secret-model", "theirs/m"])
def test_another_tenants_model_is_as_unknown_as_one_that_does_not_exist(table: Callable[..., Table], model: str) -> None:
    made = table(TEXT)
    assert places(made, model, ACME)
    fault, unknown = refused(made, model, OTHER), refused(made, "no-such-model", OTHER)
    assert fault.kind is unknown.kind is Kind.NO_MODEL
    assert fault.message.replace(model, "?") == unknown.message.replace("no-such-model", "?")


def test_another_tenants_provider_is_passed_over_and_never_named(table: Callable[..., Table]) -> None:
    made = table(TEXT)
    assert places(made, "both", ACME)[0].startswith("theirs/")
    assert {place.partition("/")[0] for place in places(made, "both", OTHER)} == {"shared"}
    plan, _ = made.course(asked("both", principal=OTHER))
    assert [stop.name for stop, _ in plan.excluded] == []


def test_nobody_comes_by_a_wish_to_what_is_not_theirs(table: Callable[..., Table]) -> None:
    made = table(TEXT)
    course = made.course(asked("led", principal=OTHER, body={"models": ["theirs/m", "secret-model"]}))[1]
    assert {target.provider for target in course.targets} == {"shared"}


def test_it_is_said_what_each_tenant_sees(table: Callable[..., Table]) -> None:
    made = table(TEXT)
    asked_for = [("secret-model", "shared"), ("theirs/m", "theirs"), ("both", "theirs"), ("led", "shared")]
    assert [made.sees("acme", *each) for each in asked_for] == [True] * 4
    assert [made.sees("other", *each) for each in asked_for] == [False, False, False, True]


def test_a_tenants_own_key_stands_in_for_all_of_the_gateways(table: Callable[..., Table]) -> None:
    made = table(TEXT)
    vault = Vault(b"imagined")
    mine = Principal("k", "acme", secrets=(("shared", vault.seal("acme", "shared", "sk-mine")),))
    course = made.course(asked("shared/m", principal=mine))[1]
    assert [(target.key_id, target.account.key) for target in course.targets] == [("own:acme", "sk-mine")]
    assert len(made.course(asked("shared/m", principal=OTHER))[1].targets) == 2
    assert course.target.condition is not made.course(asked("shared/m", principal=OTHER))[1].target.condition
    assert made.course(asked("shared/m", principal=mine))[1].target.condition is course.target.condition


def test_a_key_that_cannot_be_read_is_not_replaced_by_the_gateways(table: Callable[..., Table]) -> None:
    made = table(TEXT)
    stolen = Vault(b"imagined").seal("other", "shared", "sk-theirs")
    unsendable = Vault(b"imagined").seal("acme", "shared", "sk\r\nx: 1")
    for token in (stolen, "nonsense", unsendable):
        fault = refused(made, "shared/m", Principal("k", "acme", secrets=(("shared", token),)))
        assert (fault.kind, fault.code) == (Kind.UNAVAILABLE, "secret_unreadable")


def test_a_key_that_the_file_gives_a_tenant_is_not_replaced_by_another(table: Callable[..., Table]) -> None:
    more = TEXT.replace("models:", '  keyless: {type: vllm, base_url: "http://c", tenants: [acme]}\n  two: {type: vllm, base_url: "http://d", api_key: k, '
                        "tenants: [acme, other]}\nmodels:")
    made = table(more.replace("api_key: none, tenants: [acme]", "api_key: sk-file, tenants: [acme]"))
    vault = Vault(b"imagined")
    mine = Principal("k", "acme", secrets=tuple((name, vault.seal("acme", name, "sk-mine")) for name in ("theirs", "keyless", "two")))
    keys = {name: made.course(asked(f"{name}/m", principal=mine))[1].target.account.key for name in ("theirs", "keyless", "two")}
    assert keys == {"theirs": "sk-file", "keyless": "sk-mine", "two": "sk-mine"}


@pytest.mark.parametrize("fetched", [{}, {"cloud": "a-token-of-ours"}])
def test_a_key_of_a_tenants_own_is_sent_as_a_key_where_the_gateway_is_known_by_a_cloud(table: Callable[..., Table], fetched: dict[str, str]) -> None:
    """Also before the cloud has said who the gateway is."""
    made = table('providers: {cloud: {type: azure, base_url: "http://a", entra: true}}', fetched=fetched)
    mine = Principal("k", "acme", secrets=(("cloud", Vault(b"imagined").seal("acme", "cloud", "sk-mine")),))
    target = made.course(asked("cloud/gpt-4o", principal=mine))[1].target
    wire = target.speaker.address(Outgoing(b'{"model":"gpt-4o"}', "/chat/completions"), target.account, target.model, 0.0)
    assert dict(wire.headers) == {b"api-key": b"sk-mine"}
