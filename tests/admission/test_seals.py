"""Sealed ids: the same for the same, opened only by their tenant and secret, never by guessing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.admission.seals import Opened, Seals

SEALS = Seals(b"pepper")
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES, st.from_regex(r"\A(resp|conv)_[0-9a-f]{8,48}\Z"))
def test_an_id_comes_back_whole_to_its_own_tenant(tenant, provider, name):
    made = Opened(provider, "key-1", name)
    sealed = SEALS.seal(tenant, made)
    assert sealed.startswith(name[:5])
    assert sealed.isascii()
    assert name[5:] not in sealed
    assert SEALS.seal(tenant, made) == sealed
    assert SEALS.open(tenant, sealed) == made
    assert SEALS.open(tenant + "x", sealed) is None
    assert Seals(b"other").open(tenant, sealed) is None


@given(st.text())
def test_what_was_never_sealed_does_not_open(text):
    assert SEALS.open("t", text) is None


def test_every_changed_character_is_noticed():
    sealed = SEALS.seal("t", Opened("openai", "k", "resp_0123456789"))
    for place in range(5, len(sealed) - 1):  # the last one holds padding bits
        changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        assert SEALS.open("t", changed) is None


def test_another_kind_of_id_keeps_its_own_prefix_or_none():
    assert SEALS.open("t", SEALS.seal("t", Opened("p", "", "bare"))) == Opened("p", "", "bare")


@given(st.from_regex(r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}(_us-east-1)?\Z"))
def test_an_id_that_does_not_say_what_it_is_comes_back_too(name):
    """xAI's are UUIDs, some with a region behind them."""
    sealed = SEALS.seal("t", Opened("xai", "0", name))
    assert name[:8] not in sealed
    assert SEALS.open("t", sealed) == Opened("xai", "0", name)
    assert SEALS.open("u", sealed) is None


def test_whatever_a_provider_calls_an_id_opens():
    made = Opened("p", "0", "resp_a\0b\0c")
    assert SEALS.open("t", SEALS.seal("t", made)) == made
