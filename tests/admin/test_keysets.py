"""Issuers' public keys, from a real identity provider: fetched, kept, fetched anew, and only from where they may be."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from admin.issuer import IdentityProvider
from admission.signing import Signer
from llm_gateway.admin import keysets
from llm_gateway.admin.keysets import DISCOVERY, Keysets
from llm_gateway.admin.notices import Notices
from llm_gateway.core.issuers import Issuer

ONE, TWO = Signer("one"), Signer("two")


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    made = IdentityProvider(ONE)
    yield made
    made.stop()


class Kept:
    """The keysets of one operator, and what workers were told."""

    def __init__(self) -> None:
        self.said = io.StringIO()
        self.told: list[dict[str, list[str]]] = []
        self.keysets = Keysets(self._told, Notices(self.said, "json", "info"))

    def _told(self, sets: dict[str, str]) -> None:
        self.told.append({name: [key["kid"] for key in json.loads(said)["keys"]] for name, said in sets.items()})

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not check():
                await asyncio.sleep(0.01)


@pytest.fixture
async def kept(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(keysets, "PAUSE", 0.3)
    monkeypatch.setattr(keysets, "AGAIN", (0.05,))
    made = Kept()
    yield made
    await made.keysets.close()


def issuer(provider: IdentityProvider, **more: Any) -> Issuer:
    return Issuer(**{"issuer": provider.url, "audience": ("gateway",), "private": True, **more})


async def test_keys_are_found_by_discovery_or_where_the_file_says(kept: Kept, provider: IdentityProvider) -> None:
    kept.keysets.adopt((issuer(provider), issuer(provider, issuer="named", jwks_url=f"{provider.url}/keys"), issuer(provider, issuer="static", jwks="{}")))
    await kept.until(lambda: kept.told and kept.told[-1] == {provider.url: ["one"], "named": ["one"]})
    assert sorted(provider.asked) == [DISCOVERY, "/keys", "/keys"]


async def test_a_key_nobody_knows_has_them_fetched_anew_but_not_more_often_than_it_may(kept: Kept, provider: IdentityProvider) -> None:
    kept.keysets.adopt((issuer(provider, jwks_url=f"{provider.url}/keys"),))
    await kept.until(lambda: kept.told[-1:] == [{provider.url: ["one"]}])
    provider.keys.append(TWO)
    for _ in range(50):
        kept.keysets.want(provider.url)
        await asyncio.sleep(0.002)
    await kept.until(lambda: kept.told[-1] == {provider.url: ["one", "two"]})
    assert len(provider.asked) == 2
    kept.keysets.want("a stranger")


async def test_what_was_fetched_serves_while_the_issuer_is_away(kept: Kept, provider: IdentityProvider) -> None:
    kept.keysets.adopt((issuer(provider),))
    await kept.until(lambda: kept.told[-1:] == [{provider.url: ["one"]}])
    provider.status = 500
    kept.keysets.want(provider.url)
    await kept.until(lambda: kept.keysets.failures > 1)
    assert kept.told[-1] == {provider.url: ["one"]}
    provider.status, provider.keys = 200, [TWO]
    await kept.until(lambda: kept.told[-1] == {provider.url: ["two"]})
    events = [json.loads(line)["event"] for line in kept.said.getvalue().splitlines()]
    assert events == ["signing keys fetched", "signing keys not fetched", "signing keys fetched"]  # said once, not each time
    assert kept.keysets.metrics()["llm_gateway_jwks_failures_total"][""] > 1


@pytest.mark.parametrize("body", [b"[" * 5000, b'{"keys": [{"kty": []}]}', b'{"keys": [{"kty": "RSA", "n": "\xff"}]}', b'{"keys": "\\ud800"}'])
async def test_whatever_an_issuer_gives_it_is_asked_again(kept: Kept, provider: IdentityProvider, body: bytes) -> None:
    provider.body = body
    kept.keysets.adopt((issuer(provider, jwks_url=f"{provider.url}/keys"),))
    await kept.until(lambda: provider.asked)
    provider.body = None
    await kept.until(lambda: kept.keysets.want(provider.url) or kept.told[-1:] == [{provider.url: ["one"]}])


async def test_what_the_file_takes_out_is_told_no_more(kept: Kept, provider: IdentityProvider) -> None:
    kept.keysets.adopt((issuer(provider),))
    await kept.until(lambda: kept.told[-1:] == [{provider.url: ["one"]}])
    kept.keysets.adopt(())
    assert kept.told[-1] == {}


@pytest.mark.parametrize(
    ("said", "body", "more", "words"),
    [
        ({"issuer": "https://another.test"}, None, {}, "another issuer"),
        ({"jwks_uri": None}, None, {}, "no address of keys"),
        ({"jwks_uri": "file:///etc/passwd"}, None, {}, "cannot be used"),
        ({"jwks_uri": "http://169.254.169.254/latest"}, None, {}, "refused"),
        ({}, b"<html>", {}, "no JSON"),
        ({}, b"[]", {}, "no JSON object"),
        ({}, b'{"keys": 5}', {"direct": True}, "no JWK set"),
        ({}, b"x" * (300 << 10), {"direct": True}, "too_large"),
        ({}, None, {"private": False}, "refused"),
    ],
    ids=["issuer", "nothing", "a file", "metadata", "html", "list", "no set", "large", "private"],
)
async def test_what_is_no_answer_is_said_and_told_to_nobody(
    kept: Kept, provider: IdentityProvider, said: dict[str, Any], body: bytes | None, more: dict[str, Any], words: str
) -> None:
    provider.said, provider.body = said, body
    direct = {"jwks_url": f"{provider.url}/keys"} if more.pop("direct", False) else {}
    kept.keysets.adopt((issuer(provider, **direct, **more),))
    await kept.until(lambda: kept.keysets.failures)
    assert words in kept.said.getvalue()
    assert not any(kept.told)


async def test_no_private_key_is_passed_on(kept: Kept, provider: IdentityProvider) -> None:
    provider.body = json.dumps({"keys": [ONE.public, {**TWO.public, "d": "secret"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "three"}]}).encode()
    kept.keysets.adopt((issuer(provider, jwks_url=f"{provider.url}/keys"),))
    await kept.until(lambda: kept.told[-1:] == [{provider.url: ["one"]}])
