"""Replies kept in this worker's memory: bounded in bytes, each for its time, the one least used goes first.

Law: values and a dict; the clock is an argument, who may have what is the caller's affair but for one thing: a tenant is part of every key.
Sizes are what the replies take plus a flat `OVERHEAD` for all around them, so that many small ones stay within the bound too.
"""

from __future__ import annotations

from itertools import islice

from msgspec import Struct

from llm_gateway.core.types import Usage

OVERHEAD = 1024  # bytes: the record, its key, its place in the dict, its strings; measured, and rounded up
STALE_AT_ONCE = 256  # looked at per sweep


class Place(Struct, frozen=True, gc=False):
    """Where a reply is kept: nothing of another tenant's is ever found. `mark`: a hash of all that the reply depends on."""

    tenant: str
    mark: bytes


class Kept(Struct, frozen=True, gc=False):
    """A good reply as its client got it. `body`: whole, or a stream's bytes without their framing; `name`: the model as the client said it;
    `model`: the provider's; `lines`: response headers that say who answered; `cost`: nano-USD, None if unpriced; `tags`: of the request.

    `born`, `until`: seconds of a clock that only goes forward."""

    body: bytes
    content_type: bytes
    name: str
    provider: str
    model: str
    key_id: str
    lines: bytes
    usage: Usage | None
    finish: str | None
    cost: int | None
    tags: frozenset[str]
    dropped: tuple[str, ...]
    born: float
    until: float

    @property
    def size(self) -> int:
        return len(self.body) + OVERHEAD


class Memory:
    """`room`: bytes. A dict in the order of use: the first is the one least used."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.bytes = 0
        self.evicted = 0
        self.purges = 0  # how often something was taken out on purpose
        self._kept: dict[Place, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"<Memory {len(self)} replies, {self.bytes} of {self.room} bytes>"

    def get(self, place: Place, now: float) -> Kept | None:
        kept = self._kept.pop(place, None)
        if kept is None:
            return None
        if now >= kept.until:
            self.bytes -= kept.size
            return None
        self._kept[place] = kept
        return kept

    def put(self, place: Place, kept: Kept) -> None:
        """Keeps it in the place of what was there; not at all if it would not fit into an empty store."""
        self._drop(place)
        if kept.size > self.room:
            return
        self._kept[place] = kept
        self.bytes += kept.size
        self._shrink()

    def resize(self, room: int) -> None:
        self.room = room
        self._shrink()

    def sweep(self, now: float) -> None:
        """Drops what is over among those least used. Each is met sooner or later, or found over when somebody asks for it."""
        for place in [place for place, kept in islice(self._kept.items(), STALE_AT_ONCE) if now >= kept.until]:
            self._drop(place)

    def report(self) -> dict[str, dict[str, float]]:
        """For /metrics, once a second."""
        return {
            "llm_gateway_cache_bytes": {"": float(self.bytes)},
            "llm_gateway_cache_entries": {"": float(len(self))},
            "llm_gateway_cache_evictions_total": {"": float(self.evicted)},
        }

    def purge(self, tenant: str | None = None, model: str | None = None, tag: str | None = None) -> int:
        """Takes out all that is of this tenant and this model (as clients name it, the provider's own name, or `provider/model`) and bears
        this tag; what is None is not asked. Returns how many those were. Looks at everything: milliseconds for ten thousand replies."""
        self.purges += 1
        gone = [
            place
            for place, kept in self._kept.items()
            if (tenant is None or place.tenant == tenant)
            and (model is None or model in (kept.name, kept.model, f"{kept.provider}/{kept.model}"))
            and (tag is None or tag in kept.tags)
        ]
        for place in gone:
            self._drop(place)
        return len(gone)

    def _drop(self, place: Place) -> None:
        kept = self._kept.pop(place, None)
        if kept is not None:
            self.bytes -= kept.size

    def _shrink(self) -> None:
        while self.bytes > self.room:
            self._drop(next(iter(self._kept)))
            self.evicted += 1
