"""Asking every provider again and again whether it is there: one cheap request each, as a worker would send it.

Law: tokens are never spent, and never are two requests under way to one provider. Any answer below 500 is a sign of life, also
one that refuses our key; that is another matter, and told as such. What was found is handed on; nobody waits for it.

Where a provider has several keys each probe takes the next, so that each is tried in time. One whose cloud credentials have
not come is not asked. What changes only the keys or the manner of asking does not make a provider that is down up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from importlib import import_module
from random import random

from msgspec import Struct, field

from llm_gateway.config.accounts import accounts, origin
from llm_gateway.config.snapshot import Provider, Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.core.headers import render
from llm_gateway.policies.health import Bounds, Pulse
from llm_gateway.providers.contract import Provider as Speaker
from llm_gateway.telemetry.metrics import escape
from llm_gateway.upstream.call import Answer, Caller
from llm_gateway.upstream.pool import Origin

SPREAD = 3.0  # seconds over which the first probes are spread; later ones keep their distance, more or less
REFUSED = (401, 403)
WEB = ("http", "https")  # a provider within the gateway is always there
AGENT = (b"user-agent", b"llm-gateway")
Found = dict[str, tuple[bool, float | None]]


class Probe(Struct, frozen=True):
    """key: the public name of the key it carries, "" for none."""

    origin: Origin
    request: bytes
    key: str


class Patient(Struct):
    """What is known of one provider. `asked`: how often; `refused`: keys whose refusal has been told."""

    provider: Provider
    pulse: Pulse
    asked: int = 0
    latency_ms: float | None = None
    refused: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


def load_speakers() -> Callable[[str], Speaker]:
    """Every API shape comes with them, a sixth of a second: not before the first answer of the operator."""
    found: Callable[[str], Speaker] = import_module("llm_gateway.providers.registry").provider
    return found


class Probes:
    """credentials: those that clouds gave, by provider. on_found: all results, after each. on_change: up or down.
    on_refused: provider, key and status."""

    def __init__(
        self,
        caller: Caller,
        credentials: Callable[[], Mapping[str, str]],
        *,
        on_found: Callable[[Found], None],
        on_change: Callable[[Change], None],
        on_refused: Callable[[str, str, int], None],
    ) -> None:
        self._caller = caller
        self._credentials = credentials
        self._on_found = on_found
        self._on_change = on_change
        self._on_refused = on_refused
        self._patients: dict[str, Patient] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._speakers: Callable[[str], Speaker] | None = None

    def adopt(self, snapshot: Snapshot) -> None:
        """Asks these providers from now on, and no others."""
        wanted = {each.name: each for each in snapshot.providers if each.health.enabled and origin(each).scheme in WEB}
        before, self._patients = self._patients, {}
        for name, provider in wanted.items():
            known = before.get(name)
            if known is not None and known.provider == provider:
                self._patients[name] = before.pop(name)
                continue
            patient = Patient(provider, Pulse())
            if known is not None and known.provider.base_url == provider.base_url:
                patient = Patient(provider, known.pulse, known.asked, known.latency_ms)
            self._patients[name] = patient
            patient.task = asyncio.get_running_loop().create_task(self._watch(patient))
        for name, gone in before.items():
            if gone.task is not None:
                gone.task.cancel()
            if not gone.pulse.healthy and (name not in wanted or self._patients[name].pulse is not gone.pulse):
                self._on_change(Change(name, "", "", "provider_up", reason="the configuration changed it"))
        self._on_found(self.found())

    def found(self) -> Found:
        """Of those that were asked."""
        return {name: (each.pulse.healthy, each.latency_ms) for name, each in self._patients.items() if each.asked}

    def metrics(self) -> dict[str, dict[str, float]]:
        latencies = {f'provider="{escape(name)}"': ms / 1e3 for name, (_, ms) in self.found().items() if ms is not None}
        counts = {f'provider="{escape(name)}",result="{result}"': count for (name, result), count in self._counts.items()}
        return {"llm_gateway_probes_total": dict(counts), "llm_gateway_probe_latency_seconds": latencies}

    async def close(self) -> None:
        tasks = [each.task for each in self._patients.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _watch(self, patient: Patient) -> None:
        health = patient.provider.health
        await asyncio.sleep(random() * min(SPREAD, health.interval))  # noqa: S311  spread, not secrecy
        while True:
            probe = await self._next(patient)
            if probe is not None:
                self._judge(patient, probe, await self._caller.ask(probe.origin, probe.request, health.timeout))
            await asyncio.sleep(health.interval * (0.9 + random() / 5))  # noqa: S311

    async def _next(self, patient: Patient) -> Probe | None:
        provider = patient.provider
        fetched = self._credentials().get(provider.name)
        if provider.cloud is not None and fetched is None:
            return None
        if self._speakers is None:
            self._speakers = await asyncio.to_thread(load_speakers)
        return probe(provider, fetched, patient.asked, self._speakers(provider.type))

    def _judge(self, patient: Patient, probe: Probe, answer: Answer) -> None:
        name, health = patient.provider.name, patient.provider.health
        good = 0 < answer.status < 500
        patient.asked += 1
        patient.latency_ms = answer.ms if good else None
        result = "refused" if answer.status in REFUSED else "up" if good else "down"
        self._counts[name, result] = self._counts.get((name, result), 0) + 1
        if patient.pulse.beat(Bounds(health.fall, health.rise), good=good):
            reason = "" if good else answer.error or f"it answers with status {answer.status}"
            self._on_change(Change(name, "", "", "provider_up" if good else "provider_down", reason=reason))
        if probe.key and answer.status in REFUSED and probe.key not in patient.refused:
            patient.refused.add(probe.key)
            self._on_refused(name, probe.key, answer.status)
        elif 200 <= answer.status < 300:
            patient.refused.discard(probe.key)
        self._on_found(self.found())


def probe(provider: Provider, fetched: str | None, turn: int, speaker: Speaker) -> Probe | None:
    """The request of one probe; None where the service has nothing cheap to ask, and the configuration says nothing."""
    known = accounts(provider, fetched)
    account = known[turn % len(known)]
    wire = speaker.probe(account)
    path = provider.health.path
    if wire is None and path is None:
        return None
    where = origin(provider)
    headers = {name.lower(): value for name, value in (AGENT, *(wire.headers if wire is not None else account.headers))}
    request = b"%b %b HTTP/1.1\r\nhost: %b\r\naccept: */*\r\naccept-encoding: identity\r\nconnection: close\r\n%b\r\n" % (
        b"GET" if wire is None or path is not None else wire.method,
        path.encode() if path is not None else wire.path if wire is not None else b"/",
        where.authority.encode(),
        render(list(headers.items())),
    )
    return Probe(where, request, account.key_id if wire is not None and account.key else "")
