"""Fetches the public keys of issuers of tokens, keeps them fresh, and tells the workers.

Law: keys come from the configuration's addresses alone, or from where the discovery document at the issuer's own address says (OpenID Connect
Discovery 1.0); never from a token. Each is judged as any other address that is fetched from (policies/addresses.py), and pinned. What was
fetched serves until something newer is there: an issuer that is away locks nobody out. Asked for newer ones, it fetches at most once in ten
seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from random import random
from typing import Any

import msgspec
from msgspec import Struct

from llm_gateway.admin.notices import Notices
from llm_gateway.admission.tokens import PAUSE, public
from llm_gateway.config.issuers import rules
from llm_gateway.core.issuers import Issuer
from llm_gateway.policies.addresses import place
from llm_gateway.telemetry.metrics import escape
from llm_gateway.upstream.fetch import Fetcher, Order
from llm_gateway.upstream.pool import Pool

FRESH = 300.0  # seconds after which keys are fetched again
AGAIN = (1.0, 5.0, 15.0, 60.0)  # after the first failures in a row; then as the last
SECONDS, MOST = 10.0, 256 << 10
ACCEPTED = ("application/", "text/")
DISCOVERY = "/.well-known/openid-configuration"


class FetchError(Exception):
    """In words, without secrets."""


class Entry(Struct):
    """One issuer. `begun`: when it was last fetched; `wanted`: set when somebody met a key that is not known."""

    issuer: Issuer
    wanted: asyncio.Event
    begun: float = -1e9
    task: asyncio.Task[None] | None = None
    failures: int = 0


class Keysets:
    """publish: told of all sets, by issuer, whenever one was fetched: whoever waits for it has to know that nothing is new, too."""

    def __init__(self, publish: Callable[[dict[str, str]], object], notices: Notices) -> None:
        self.failures = 0
        self._publish = publish
        self._notices = notices
        self._fetcher = Fetcher(Pool(memoryview(bytearray(16 << 10))))
        self._entries: dict[str, Entry] = {}
        self._sets: dict[str, str] = {}

    def adopt(self, issuers: tuple[Issuer, ...]) -> None:
        """Fetches for these from now on, and for no others."""
        wanted = {each.issuer: each for each in issuers if each.fetched}
        for name in [*self._entries]:
            if self._entries[name].issuer != wanted.get(name):
                self._end(name)
        for name, issuer in wanted.items():
            if name not in self._entries:
                entry = self._entries[name] = Entry(issuer, asyncio.Event())
                entry.task = asyncio.get_running_loop().create_task(self._keep(entry))
        self._publish(self._sets)

    def want(self, issuer: str) -> None:
        """Somebody met a key of this issuer that is not in its set."""
        if (entry := self._entries.get(issuer)) is not None:
            entry.wanted.set()

    def metrics(self) -> dict[str, dict[str, float]]:
        ages = {f'issuer="{escape(name)}"': time.monotonic() - entry.begun for name, entry in self._entries.items() if name in self._sets}
        return {"llm_gateway_jwks_age_seconds": ages, "llm_gateway_jwks_failures_total": {"": self.failures}}

    async def close(self) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for name in [*self._entries]:
            self._end(name)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._fetcher.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _keep(self, entry: Entry) -> None:
        name = entry.issuer.issuer
        while True:
            entry.wanted.clear()
            entry.begun = time.monotonic()
            try:
                found = await self._fetch(entry.issuer)
            except FetchError as error:
                self.failures += 1
                entry.failures += 1
                if entry.failures == 1:
                    self._notices.say("error", "signing keys not fetched", issuer=name, error=str(error))
            else:
                if entry.failures or name not in self._sets:
                    self._notices.say("info", "signing keys fetched", issuer=name)
                entry.failures = 0
                self._sets[name] = found
                self._publish(self._sets)
            pause = AGAIN[min(entry.failures, len(AGAIN)) - 1] if entry.failures else FRESH
            await self._wait(entry, pause * (0.9 + random() / 5))  # noqa: S311  spread, not secrecy

    async def _wait(self, entry: Entry, seconds: float) -> None:
        """So long, or until somebody asks; but never less than PAUSE since the last time, unless that failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await entry.wanted.wait()
                await asyncio.sleep(max(0.0, entry.begun + PAUSE - time.monotonic()))

    async def _fetch(self, issuer: Issuer) -> str:
        """The JWK set, with nothing in it but public keys. Raises FetchError."""
        url = issuer.jwks_url
        if not url:
            found = await self._get(issuer.issuer.rstrip("/") + DISCOVERY, issuer)
            if found.get("issuer") != issuer.issuer:
                raise FetchError("its discovery document is of another issuer")
            said = found.get("jwks_uri")
            url = said if isinstance(said, str) else ""
            if not url or (issuer.issuer.startswith("https:") and not url.startswith("https:")):
                raise FetchError("its discovery document names no address of keys")
        keys = (await self._get(url, issuer)).get("keys")
        if not isinstance(keys, list):
            raise FetchError("what it gives is no JWK set")
        good = [each for each in keys if public(each) and "d" not in each]
        return msgspec.json.encode({"keys": good}).decode()

    async def _get(self, url: str, issuer: Issuer) -> dict[str, Any]:
        judged = rules(url, private=issuer.private)
        where = place(url, judged)
        if where is None:
            raise FetchError("its address cannot be used")
        found = await self._fetcher.fetch(Order(where, ACCEPTED, MOST, SECONDS, lambda _: None), judged)
        if isinstance(found, str):
            raise FetchError(f"fetching from {where.authority}: {found}")
        try:
            said = msgspec.json.decode(found.body)
        except (ValueError, RecursionError) as error:
            raise FetchError(f"what {where.authority} gives is no JSON") from error
        if not isinstance(said, dict):
            raise FetchError(f"what {where.authority} gives is no JSON object")
        return said

    def _end(self, name: str) -> None:
        task = self._entries.pop(name).task
        self._sets.pop(name, None)
        if task is not None:
            task.cancel()
