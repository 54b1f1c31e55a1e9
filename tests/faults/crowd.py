"""Clients of three shapes who ask, stream, leave, repeat themselves and remember: what each holds is the witness against the books.

Law: a client calls a reply held only when it is whole by its framing and by its shape's own end. Dice are seeded, so that a run can be asked for again;
what threads make of their order is the machine's.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.house import Gateway

KEYS = {f"client-{number}": f"sk-everything-{number}-0123456789" for number in range(4)}
ENDS = {"chat/completions": b"data: [DONE]", "messages": b'"type":"message_stop"', "responses": b'"type":"response.completed"'}
ANSWERS = {"chat/completions": "choices", "messages": "content", "responses": "output"}
ALWAYS_STREAMED = {"long", "broken"}
PATIENCE = 20.0  # seconds; longer than any request may take


@dataclass(frozen=True)
class Held:
    """A whole reply. `cost`: nano-USD, as its head told; None where it told none. `begun`, `ended`: monotonic seconds, of asking and of its last byte."""

    body: bytes
    cost: int | None
    begun: float
    ended: float


@dataclass
class Crowd:
    """`held`: by request id; `once`: request ids by idempotency key; `wrong`: what no client should ever see."""

    gateways: Sequence[Gateway]
    models: Sequence[str]
    seed: int
    size: int = 14
    held: dict[str, Held] = field(default_factory=dict)
    once: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    told: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(who,), daemon=True) for who in range(self.size)]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Lets everybody finish; whoever does not is told of in `wrong`."""
        self._over.set()
        for each in self._threads:
            each.join(PATIENCE + 5)
        if left := sum(each.is_alive() for each in self._threads):
            self.wrong.append(f"{left} clients wait for ever")

    def _client(self, who: int) -> None:
        dice, number = random.Random(self.seed * 1000 + who), 0
        while not self._over.is_set():
            number += 1
            asking = Asking(dice, who, number, self.models)
            try:
                self._ask(asking, dice)
            except (OSError, http.client.HTTPException) as error:
                with self._lock:
                    self.told["not connected"] += 1
                    if isinstance(error, TimeoutError):
                        self.wrong.append(f"{asking.id}: no answer within {PATIENCE} s")
                time.sleep(0.02)

    def _ask(self, asking: Asking, dice: random.Random) -> None:
        gateway = self.gateways[dice.randrange(len(self.gateways))]
        leaves = dice.random() < 0.15
        client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE)
        begun = time.monotonic()
        try:
            client.request("POST", f"/v1/{asking.shape}", asking.body, asking.headers)
            if leaves and dice.random() < 0.5:
                time.sleep(dice.random() * 0.1)
                return
            reply, body, whole = client.getresponse(), b"", True
            try:
                while piece := reply.read1(65536):
                    body += piece
                    if leaves and dice.random() < 0.3:
                        return
            except (http.client.HTTPException, ConnectionError, ValueError):
                whole = False
        finally:
            client.close()
        with self._lock:
            self._remember(asking, reply, body, begun if whole else None)

    def _remember(self, asking: Asking, reply: http.client.HTTPResponse, body: bytes, begun: float | None) -> None:
        """begun: where it is whole."""
        if begun is None:
            self.told["cut"] += 1
        elif reply.status != 200:
            code = _code(body)
            self.told[f"{reply.status} {code}"] += 1
            if not code or reply.status == 500:
                self.wrong.append(f"{asking.id}: {reply.status} {body[:300]!r}")
        elif not _good(asking, body):
            self.wrong.append(f"{asking.id}: well framed, and not a whole reply: {body[-300:]!r}")
        else:
            self.told["whole stream" if asking.stream else "whole reply"] += 1
            cost = reply.headers.get("x-gateway-cost")
            self.held[asking.id] = Held(body, None if cost is None else round(float(cost) * 1e9), begun, time.monotonic())
            if asking.once:
                self.once[asking.once].append(asking.id)


class Asking:
    """One request, by dice. Every third of a client's requests repeats the last under the same idempotency key, to whichever gateway."""

    def __init__(self, dice: random.Random, who: int, number: int, models: Sequence[str]) -> None:
        self.id = f"{who}-{number}"
        self.once = f"once-{who}-{number // 3}" if dice.random() < 0.3 else ""
        self.shape = "chat/completions" if self.once else dice.choice(list(ENDS))
        model = "slow" if self.once else dice.choice(models)
        self.stream = number // 3 % 2 == 0 if self.once else model in ALWAYS_STREAMED or dice.random() < 0.5
        text = self.once or (self.id if dice.random() < 0.8 else f"common {dice.randrange(5)}")
        if not self.once and dice.random() < 0.03:
            text = "a long prompt " * 40_000
        said: dict[str, Any] = {"model": model, "stream": self.stream, "messages": [{"role": "user", "content": text}], "max_tokens": 50}
        if self.shape == "responses":
            said = {"model": model, "stream": self.stream, "input": text, "max_output_tokens": 50, "store": False}
        self.body = json.dumps(said | {"temperature": 0}).encode()
        key = list(KEYS.values())[who % len(KEYS)]
        self.headers = {"X-Request-ID": self.id, "Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if self.once:
            self.headers["Idempotency-Key"] = self.once


def _good(asking: Asking, body: bytes) -> bool:
    if asking.stream:
        return ENDS[asking.shape].replace(b" ", b"") in body[-20_000:].replace(b" ", b"")
    try:
        return bool(json.loads(body)[ANSWERS[asking.shape]])
    except (ValueError, KeyError):
        return False


def _code(body: bytes) -> str:
    """Of an error in any of the shapes; "" if it is in none."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error["type"])
    except (ValueError, KeyError, TypeError):
        return ""
