"""The recorded provider traffic: found on disk, read on demand, cut into pieces the way networks do.

Law: reads, never writes. The recordings live outside the checkout (`../shared/traffic`, or LLM_GATEWAY_TRAFFIC); where
they are absent, tests that need them say so and skip.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).parents[2]
BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def folder() -> Path:
    return Path(os.environ.get("LLM_GATEWAY_TRAFFIC") or CHECKOUT / "../shared/traffic")


@dataclass(frozen=True)
class Interaction:
    """One recorded request and its reply. `row`: its line of the manifest."""

    row: dict[str, Any]
    path: Path

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def features(self) -> frozenset[str]:
        return frozenset(self.row["features"])

    @cached_property
    def record(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return loaded

    @property
    def request(self) -> Any:
        """The recorded request body, None where none was recorded."""
        return self.record["request"]["body"]

    @property
    def url_path(self) -> str:
        return urlsplit(self.record["request"]["url"] or "").path

    @property
    def status(self) -> int:
        return int(self.record["response"]["status"])

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Response headers without those that frame or belong to one connection."""
        own = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "date", "alt-svc"}
        recorded = self.record["response"]["headers"].items()
        kept = [(name, value) for name, value in recorded if name.lower() not in own and value.isprintable()]
        if not any(name.lower() == "content-type" for name, _ in kept):
            kept.append(("content-type", "text/event-stream" if self.row["body_kind"] == "sse" else "application/json"))
        return tuple(kept)

    @property
    def body(self) -> bytes:
        response = self.record["response"]
        return base64.b64decode(response["body_b64"]) if "body_b64" in response else response["body_text"].encode()


@dataclass(frozen=True)
class Recordings:
    interactions: tuple[Interaction, ...]

    @cached_property
    def by_id(self) -> dict[str, Interaction]:
        return {each.id: each for each in self.interactions}

    def select(self, **wanted: object) -> Iterator[Interaction]:
        """Interactions whose manifest line says so: select(provider="anthropic", streaming=True)."""
        return (each for each in self.interactions if all(each.row[key] == value for key, value in wanted.items()))

    def answering(self, path: str, body: Any) -> Interaction | None:
        """The best recording for a request: same path, model and `stream`; most equal top-level members wins."""
        if not isinstance(body, dict):
            return None

        def fits(each: Interaction) -> bool:
            same_model = each.row["model"] == body.get("model") or (each.request or {}).get("model") == body.get("model")
            return same_model and each.row["streaming"] == bool(body.get("stream")) and each.url_path.endswith(path)

        def likeness(each: Interaction) -> int:
            return sum((each.request or {}).get(key) == value for key, value in body.items())

        return max((each for each in self.interactions if fits(each)), key=likeness, default=None)


def load() -> Recordings:
    """Read once: who asks again gets the same. Raises FileNotFoundError where there are no recordings."""
    return _load(folder())


@cache
def _load(base: Path) -> Recordings:
    lines = (base / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return Recordings(tuple(Interaction(row, base / row["path"]) for row in rows))


def cut(body: bytes, how: str) -> list[bytes]:
    """A body in pieces: `whole`, `events` (at each blank line), `bytes:N`, or `random:SEED` (1 to 64 bytes each)."""
    kind, _, number = how.partition(":")
    if kind == "whole" or not body:
        return [body]
    if kind == "events":
        ends = [match.end() for match in BOUNDARY.finditer(body)]
    elif kind == "bytes":
        ends = list(range(int(number), len(body), int(number)))
    elif kind == "random":
        dice, ends = random.Random(int(number)), [0]
        while ends[-1] < len(body):
            ends.append(ends[-1] + dice.randint(1, 64))
    else:
        raise ValueError(how)
    edges = [0, *(end for end in ends if 0 < end < len(body)), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]
