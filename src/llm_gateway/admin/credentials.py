"""The credentials that clouds give us: fetched by the operator for each provider that needs them, ahead of their end, and handed on.

Law: fetching blocks, so a thread of its own does it, and nobody waits for that thread, not even the end of the process. What
was fetched holds until it ends or something newer comes; a failure changes nothing but what is said about it. No secret
stands in a notice, a metric or a repr.

Invariants
- One task per provider that is fetched for; none for others. A provider whose identity or region changed begins anew.
- `publish` gets everything that is known, each time something new came; after `adopt` too, since workers forget what may no
  longer hold, and since what does not hold any more must not reach those that start later.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable
from random import random

from msgspec import Struct

from llm_gateway.admin.clouds import Credential, Fetch, source
from llm_gateway.admin.notices import Notices
from llm_gateway.config.snapshot import Cloud, Provider, Snapshot
from llm_gateway.core.headers import sendable
from llm_gateway.telemetry.metrics import escape

AHEAD = 300.0  # seconds before the end; a fifth of it is jitter, so that not all gateways come at once
UNDATED = 300.0  # seconds after which what says no end is looked for again: files are rewritten
SOONEST = 1.0
LONGEST_PAUSE = 60.0  # between attempts that fail
PATIENCE = 90.0  # seconds for one attempt
BEAT = 15.0  # seconds after which the clock is looked at again
MOST_AT_ONCE = 4  # attempts for one provider: what does not come back holds a thread, perhaps a process too, for ever
MOST_WORDS = 2000  # Azure's library says of each of nine places why it was none
_TOKENS = re.compile(r"[A-Za-z0-9+/_=.-]{60,}")  # nothing that long in an error is meant for people


class Entry(Struct):
    """What is known for one provider. `whose`: as whom and where; `failures`: ever; `error`: the last attempt's, if it failed;
    `under_way`: attempts that have not come back, whether or not somebody waits for them."""

    whose: tuple[Cloud | None, str | None, str]
    fetch: Fetch
    current: Credential | None = None
    failures: int = 0
    error: str | None = None
    under_way: int = 0
    task: asyncio.Task[None] | None = None


class Keyring:
    """clock: Unix seconds, since that is what ends are told in."""

    def __init__(
        self, publish: Callable[[dict[str, str]], None], notices: Notices, clock: Callable[[], float] = lambda: time.time_ns() / 1e9
    ) -> None:
        self._publish = publish
        self._notices = notices
        self._clock = clock
        self._entries: dict[str, Entry] = {}

    def adopt(self, snapshot: Snapshot) -> None:
        """Fetches for these providers from now on, and for no others."""
        wanted = {each.name: each for each in snapshot.providers if each.cloud is not None}
        for name in [*self._entries]:
            if name not in wanted or self._entries[name].whose != _whose(wanted[name]):
                self._end(name)
        for name, provider in wanted.items():
            if name not in self._entries and provider.cloud is not None:
                entry = Entry(_whose(provider), source(provider.cloud, provider.region))
                self._entries[name] = entry
                entry.task = asyncio.get_running_loop().create_task(self._keep(name, entry))
        self._publish(self.keys())

    async def close(self) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for name in [*self._entries]:
            self._end(name)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def keys(self) -> dict[str, str]:
        return {name: entry.current.value for name, entry in self._entries.items() if entry.current is not None}

    def troubles(self) -> dict[str, str]:
        """What is wrong, by provider, in words without secrets; empty where all is well."""
        return {name: said for name, entry in self._entries.items() if (said := self._trouble(entry))}

    def metrics(self) -> dict[str, dict[str, float]]:
        """Families of the operator's own: seconds to the end, and failed attempts."""
        ends = {
            _label(name): entry.current.expires - self._clock()
            for name, entry in self._entries.items()
            if entry.current is not None and entry.current.expires is not None
        }
        return {
            "llm_gateway_credentials_expiry_seconds": ends,
            "llm_gateway_credentials_failures_total": {_label(name): entry.failures for name, entry in self._entries.items()},
        }

    def _trouble(self, entry: Entry) -> str:
        current = entry.current
        if current is None:
            return "no credentials: the last attempt to get some failed" if entry.error else "credentials are being fetched"
        if current.expires is not None and current.expires <= self._clock():
            return "its credentials have expired"
        return "its credentials still hold, but the last attempt to renew them failed" if entry.error else ""

    async def _keep(self, name: str, entry: Entry) -> None:
        streak = 0
        while True:
            error = await self._attempt(name, entry)
            if error is None:
                streak = 0
                await self._rest(self._until_next(entry.current))
            else:
                streak += 1
                entry.failures += 1
                entry.error = error
                self._notices.say("error", "cloud credentials not fetched", provider=name, error=error, failures=streak)
                await asyncio.sleep(min(LONGEST_PAUSE, SOONEST * 2 ** min(streak - 1, 10)) * (0.5 + random() / 2))  # noqa: S311  no secret

    async def _attempt(self, name: str, entry: Entry) -> str | None:
        """None if it worked, else why not."""
        if entry.under_way >= MOST_AT_ONCE:
            return "earlier attempts have not come back yet"
        limit = asyncio.timeout(PATIENCE)
        try:
            async with limit:
                found = await _in_thread(entry)
        except Exception as error:  # noqa: BLE001  three libraries, each with its own ways to fail: none may end the keeping
            return f"no answer within {PATIENCE:.0f} s" if limit.expired() else _told(error)
        value: object = found.value  # a token service may say anything
        if not isinstance(value, str) or not value or not sendable(value):
            return "what came back is no credential"
        fresh = entry.current is None or entry.current.value != found.value
        recovered = entry.error is not None
        entry.current, entry.error = found, None
        if fresh:
            self._publish(self.keys())
        if fresh or recovered:  # who only looks again has nothing to say
            left = round(found.expires - self._clock()) if found.expires is not None else None
            self._notices.say("info", "cloud credentials fetched", provider=name, valid_seconds=left)
        return None

    async def _rest(self, seconds: float) -> None:
        """By the clock that ends are told in, which may be set, and goes on while a machine sleeps; and never longer."""
        clock = asyncio.get_running_loop().time
        due, end, left = self._clock() + seconds, clock() + seconds, seconds
        while left > 0:
            await asyncio.sleep(min(left, BEAT))
            left = min(due - self._clock(), end - clock())

    def _until_next(self, current: Credential | None) -> float:
        """AHEAD of the end, but no sooner than half-way to it: a cloud may give the same again until its own time has come. What has ended when it
        comes is no reason to ask all the time."""
        if current is None or current.expires is None:
            return UNDATED
        left = current.expires - self._clock()
        if left <= 0:
            return LONGEST_PAUSE
        return max(SOONEST, left - min(AHEAD * (0.8 + random() / 5), left / 2))  # noqa: S311  spread, not secrecy

    def _end(self, name: str) -> None:
        task = self._entries.pop(name).task
        if task is not None:
            task.cancel()


async def _in_thread(entry: Entry) -> Credential:
    """On a thread that the process does not wait for, unlike an executor's."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Credential] = loop.create_future()

    def settle(found: Credential | None, error: Exception | None) -> None:
        entry.under_way -= 1
        if done.cancelled():
            return
        if found is not None:
            done.set_result(found)
        else:
            done.set_exception(error or RuntimeError("nothing came back"))

    def work() -> None:
        found, failure = None, None
        try:
            found = entry.fetch()
        except Exception as error:  # noqa: BLE001  carried over to the loop, whatever it is
            failure = error
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever asked
                loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=work, name="cloud credentials", daemon=True).start()
    entry.under_way += 1
    return await done


def _whose(provider: Provider) -> tuple[Cloud | None, str | None, str]:
    return provider.cloud, provider.region, provider.base_url


def _told(error: Exception) -> str:
    """An error in one line, without anything that looks like a token."""
    words = " ".join(str(error).split()) or "no reason given"
    return f"{type(error).__name__}: {_TOKENS.sub('[...]', words)}"[:MOST_WORDS]


def _label(name: str) -> str:
    return f'provider="{escape(name)}"'
