"""What the gateway answers itself: health, models, preflights. One method per operation of the route table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter, time_ns
from typing import Any

import msgspec
from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress import listings
from llm_gateway.egress.respond import JSON, head, whole
from llm_gateway.formats import _members
from llm_gateway.routing.table import Table
from llm_gateway.telemetry.vitals import Vitals, joint

SLICE = 0.002  # seconds

_encode = msgspec.json.Encoder().encode


class Facts(Struct, frozen=True):
    """What /health says beside the providers. redis: None when none is configured."""

    version: str
    data_dir: str
    born: float
    redis: Callable[[], bool | None]
    draining: Callable[[], bool]


class Local:
    def __init__(self, table: Table, vitals: Vitals, facts: Facts) -> None:
        self._table = table
        self._vitals = vitals
        self._facts = facts
        self._listed: list[dict[str, Any]] = []
        self._making = self._entries(time_ns() / 1e9)

    def tick(self) -> None:
        """Every 250 ms: two milliseconds of the list of models. To match and price some thousands takes half a second, too long
        to hold the loop; who asks before it is whole waits for the rest. It is made once per configuration: prices that change by
        date are then those of the start; the bill's are not."""
        stop = perf_counter() + SLICE
        for entry in self._making:
            self._listed.append(entry)
            if perf_counter() > stop:
                break

    def answer(self, x: Exchange) -> bytes:
        """The whole reply to a request of ours. Raises Fault."""
        operation = x.route.operation
        if operation == "preflight":
            x.status = 204
            return head(x, JSON, b"", perf_counter())  # a 204 has no length (RFC 9110 section 8.6)
        if operation == "ready" and self._facts.draining():
            return self._reply(x, {"status": "draining"}, 503)
        if operation in ("live", "ready"):
            return self._reply(x, {"status": "ok"})
        if operation == "health":
            return self._reply(x, health(self._facts, self._vitals, self._table.active, perf_counter()))
        if operation == "models":
            return self._models(x)
        if operation == "version":
            return self._reply(x, {"version": self._facts.version})
        if operation == "running":  # no model is loaded here, and none has to be
            return self._reply(x, {"models": []})
        return self._model(x)

    def _reply(self, x: Exchange, value: Any, status: int = 200) -> bytes:
        x.status = status
        return whole(x, _encode(value), JSON, perf_counter())

    def _models(self, x: Exchange) -> bytes:
        allowed = x.principal.models if x.principal is not None else frozenset()
        self._listed += self._making
        tenant, sees = x.principal.tenant if x.principal is not None else "", self._table.sees
        entries = [each for each in self._listed if (not allowed or each["id"] in allowed) and sees(tenant, each["id"], each["owned_by"])]
        if x.route.format == "gemini":
            return self._reply(x, {"models": [listings.gemini(entry) for entry in entries]})
        if x.route.format == "ollama_chat":
            return self._reply(x, {"models": [listings.ollama(entry) for entry in entries]})
        if b"anthropic-version" not in x.headers:
            return self._reply(x, {"object": "list", "data": entries})
        data = [listings.anthropic(entry) for entry in entries]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return self._reply(x, {"data": data, "has_more": False, **ends})

    def _model(self, x: Exchange) -> bytes:
        name = x.params[0] if x.params else _named(x.body)
        if x.route.format == "gemini":
            name = name.removeprefix("models/")
        allowed = x.principal.models if x.principal is not None else frozenset()
        tenant = x.principal.tenant if x.principal is not None else ""
        places = [each for each in self._table.resolve(name) if self._table.sees(tenant, name, each[0])]
        if not places or (allowed and name not in allowed):
            raise Fault(
                Kind.NO_MODEL, f"The model {name[:100]!r} does not exist or is not available to you.", param="model"
            )
        entry = self._entry(name, *places[0], now=x.wall)
        if x.route.format == "gemini":
            return self._reply(x, listings.gemini(entry))
        if x.route.format == "ollama_chat":
            return self._reply(x, listings.ollama_shown(entry))
        return self._reply(x, entry if b"anthropic-version" not in x.headers else listings.anthropic(entry))

    def _entries(self, now: float) -> Iterator[dict[str, Any]]:
        listed: set[str] = set()
        for name, provider, model in self._names():
            if name not in listed:
                listed.add(name)
                yield self._entry(name, provider, model, now=now)

    def _names(self) -> Iterator[tuple[str, str, str]]:
        """(name, provider, model): aliases first, then what the catalogue lists for each configured provider, as
        `provider/model`, then what only the configuration knows."""
        table = self._table
        for name in (*table.aliases, *table.catalogue.aliases()):
            for place in table.resolve(name)[:1]:
                yield name, *place
        for seat in table.seats.values():
            for info in table.catalogue.models(seat.type):
                yield f"{seat.name}/{info.id}", seat.name, info.id
        for name in table.own.names():
            for place in table.resolve(name)[:1]:
                yield name, *place

    def _entry(self, name: str, provider: str, model: str, *, now: float) -> dict[str, Any]:
        table = self._table
        place = table.place(provider, model, name)
        info = table.own.info(place)
        entry: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": provider}
        told = listings.facts(info) if info is not None else {}
        region = table.seats[provider].accounts[0].region
        if region is not None:
            told.setdefault("regions", [region])
        return entry | told | listings.pricing(table.own.rates(place, now))


def _named(body: bytes) -> str:
    """The model that Ollama's show asks about; older clients say `name`."""
    members = _members.decode(body)
    return _members.text(members, "name" if "name" in members and "model" not in members else "model")


def health(
    facts: Facts, vitals: Vitals, active: Mapping[str, tuple[bool, float | None]], now: float
) -> dict[str, Any]:
    """The brief's JSON. `degraded` when a provider is unhealthy or Redis is configured and away. active: what probes found."""
    found = {name: joint(passive, active.get(name)) for name, passive in vitals.report().items()}
    providers = [
        {"name": name, "healthy": healthy, "latency_ms": None if latency is None else round(latency)}
        for name, (healthy, latency) in found.items()
    ]
    redis = facts.redis()
    sound = redis is not False and all(provider["healthy"] for provider in providers)
    return {
        "status": "healthy" if sound else "degraded",
        "version": facts.version,
        "uptime_seconds": int(now - facts.born),
        "providers": providers,
        "dependencies": {"redis": redis, "disk_space_gb": _disk_space_gb(facts.data_dir)},
    }


def _disk_space_gb(folder: str) -> float:
    """Free space where the journal goes; 0 where that cannot be told."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0.0
    return round(disk.f_bavail * disk.f_frsize / 1e9, 1)
