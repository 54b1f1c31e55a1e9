"""Sealed keys open for whom they were sealed, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission.vault import Vault

SECRET = b"a secret of the gateway"


@given(st.text(min_size=1))
def test_what_was_sealed_opens(key: str) -> None:
    assert Vault(SECRET).open("acme", "openai", Vault(SECRET).seal("acme", "openai", key)) == key


@pytest.mark.parametrize(("secret", "tenant", "provider"), [(b"another", "acme", "openai"), (SECRET, "other", "openai"), (SECRET, "acme", "azure")])
def test_nobody_else_opens_it(secret: bytes, tenant: str, provider: str) -> None:
    assert Vault(secret).open(tenant, provider, Vault(SECRET).seal("acme", "openai", "sk-1")) is None


def test_a_token_shows_nothing_and_no_damaged_one_opens() -> None:
    vault = Vault(SECRET)
    token = vault.seal("acme", "openai", "sk-own")
    assert "sk-own" not in token
    assert token != vault.seal("acme", "openai", "sk-own")
    for broken in (token[:-4], "", "nonsense", token[:20] + ("A" if token[20] != "A" else "B") + token[21:]):
        assert vault.open("acme", "openai", broken) is None
