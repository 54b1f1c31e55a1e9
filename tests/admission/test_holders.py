"""Who a key belongs to, and what all of them allow together."""

from __future__ import annotations

import pytest

from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.tenancy import Grant, Key, Limits, Project, Record, Tenant, User, project_id, tenant_id, user_id

ONE, TWO, THREE, FOUR = (Grant(Limits(requests=number)) for number in (1, 2, 3, 4))


def key(**more: object) -> Key:
    return Key(**{"id": "k", "name": "key", "tenant": "acme", **more})  # type: ignore[arg-type]


def holders(*records: Record, everybody: Everybody = Everybody()) -> Holders:  # noqa: B008  frozen
    ids = {
        Tenant: lambda each: tenant_id(each.name), Project: lambda each: project_id(each.tenant, each.name),
        User: lambda each: user_id(each.tenant, each.name),
    }  # fmt: skip
    return Holders({ids[type(each)](each): each for each in records}, everybody)  # type: ignore[index, no-untyped-call]


def limited(made: Holders, of: Key) -> list[tuple[str, int | None]]:
    return [(each.id, each.grant.limits.requests) for each in made.principal(of).holders]


def test_a_request_counts_against_key_user_project_and_tenant() -> None:
    made = holders(Tenant("acme", FOUR), Project("acme", "search", THREE), User("acme", "bob", TWO))
    found = limited(made, key(grant=ONE, project="search", user="bob"))
    assert found == [("key:k", 1), ("user:acme/bob", 2), ("project:acme/search", 3), ("tenant:acme", 4)]


def test_who_has_no_limits_is_not_counted() -> None:
    assert holders(Tenant("acme")).principal(key()).holders == ()


def test_those_without_a_say_of_their_own_have_their_tenants_then_everybodys() -> None:
    everybody = Everybody(ONE, TWO, THREE)
    assert limited(holders(everybody=everybody), key(user="bob")) == [("key:k", 3), ("user:acme/bob", 2), ("tenant:acme", 1)]
    own = Tenant("acme", each_user=FOUR, each_key=ONE)
    assert limited(holders(own, everybody=everybody), key(user="bob")) == [("key:k", 1), ("user:acme/bob", 4)]


def test_another_tenants_user_of_the_same_name_is_somebody_else() -> None:
    assert limited(holders(User("other", "bob", TWO)), key(user="bob")) == []


def test_all_must_allow_a_model_and_the_narrowest_output_holds() -> None:
    made = holders(Tenant("acme", Grant(models=("a", "b"), max_output=100, regions=("eu",))), User("acme", "bob", Grant(max_output=50)))
    principal = made.principal(key(user="bob", grant=Grant(models=("b", "c"))))
    assert (principal.models, principal.max_output, principal.regions) == ({"b"}, 50, {"eu"})


def test_lists_that_have_nothing_in_common_allow_nothing() -> None:
    principal = holders(Tenant("acme", Grant(models=("a",)))).principal(key(grant=Grant(models=("b",))))
    assert principal.models
    assert principal.models.isdisjoint({"a", "b"})


@pytest.mark.parametrize(
    ("records", "of", "code"),
    [
        ((), key(disabled=True), "key_disabled"),
        ((Tenant("acme", disabled=True),), key(), "tenant_disabled"),
        ((User("acme", "bob", disabled=True),), key(user="bob"), "user_disabled"),
        ((Project("acme", "search", disabled=True),), key(project="search"), "project_disabled"),
    ],
)
def test_who_is_disabled_is_refused(records: tuple[Record, ...], of: Key, code: str) -> None:
    with pytest.raises(Fault) as caught:
        holders(*records).principal(of)
    assert (caught.value.kind, caught.value.code) == (Kind.FORBIDDEN, code)


def test_what_the_configuration_says_of_a_tenant_wins() -> None:
    made = Holders({tenant_id("acme"): Tenant("acme", ONE)}, Everybody(), {"tenant:acme": Tenant("acme", TWO)}.get)
    assert limited(made, key()) == [("tenant:acme", 1)]
    assert limited(Holders({}, Everybody(), {"tenant:acme": Tenant("acme", TWO)}.get), key()) == [("tenant:acme", 2)]


def test_a_tenant_of_the_file_has_what_was_entrusted_under_its_name_and_another_what_is_its_own() -> None:
    records = {"tenant:made": Tenant("made", secrets={"openai": "its own"})}
    made = Holders({"tenant:acme": Tenant("acme")}, Everybody(), records.get, lambda name: {"openai": f"of {name}"})
    assert made.principal(key()).secrets == (("openai", "of acme"),)
    assert made.principal(key(tenant="made")).secrets == (("openai", "its own"),)
    assert made.principal(key(tenant="nobody")).secrets == ()
