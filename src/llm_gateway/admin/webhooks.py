"""Events to the addresses that want them: signed, one post each, again and again until somebody takes it.

Law: every event gets at least one attempt at every webhook that wants it, unless so many wait that the oldest has to go. Nobody
waits for a webhook, and one that is slow delays no other. A post goes only to an address that was judged. Nothing is kept
on disk: what waits is lost with this process.

An event that has to be tried again does not hold up those after it, so they may arrive in another order; their ids sort.
Source of headers and signature: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from base64 import b64encode
from heapq import heapify, heappop, heappush
from itertools import count
from random import random

import msgspec
from msgspec import Struct, field

from llm_gateway.admin.notices import Notices
from llm_gateway.config.snapshot import Webhook
from llm_gateway.config.webhooking import rules
from llm_gateway.core.happenings import Happening
from llm_gateway.policies import addresses
from llm_gateway.telemetry.metrics import escape
from llm_gateway.upstream.call import Answer, Caller

PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0)  # after each failed attempt, a fifth more or less; then it is given up
MOST_WAITING = 1000
GONE = 410


class Letter(Struct, frozen=True, order=True):
    """`due`: monotonic seconds. `number`: apart from all others, in the order they came."""

    due: float
    number: int
    happening: Happening = msgspec.field()
    attempt: int = 0


class Box(Struct):
    """One webhook's waiting letters: a heap, what is due first on top."""

    webhook: Webhook
    label: str
    waiting: list[Letter] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False
    failing: bool = False
    task: asyncio.Task[None] | None = None


class Webhooks:
    def __init__(self, caller: Caller, notices: Notices) -> None:
        self._caller = caller
        self._notices = notices
        self._boxes: list[Box] = []
        self._numbers = count()
        self._counts: dict[tuple[str, str], int] = {}

    def adopt(self, webhooks: tuple[Webhook, ...]) -> None:
        """Posts to these from now on. What waits for one that is as it was goes on waiting; for others it is dropped."""
        before, self._boxes = self._boxes, []
        for webhook in webhooks:
            box = next((each for each in before if each.webhook == webhook), None)
            if box is not None:
                before.remove(box)
            else:
                box = Box(webhook, _label(webhook))
                box.task = asyncio.get_running_loop().create_task(self._deliver(box))
            self._boxes.append(box)
        for box in before:
            self._count(box, "dropped", len(box.waiting))
            if box.task is not None:
                box.task.cancel()

    def offer(self, happening: Happening) -> None:
        for box in self._boxes:
            if not box.gone and (not box.webhook.events or happening.type in box.webhook.events):
                self._put(box, Letter(time.monotonic(), next(self._numbers), happening))

    def metrics(self) -> dict[str, dict[str, float]]:
        waiting: dict[str, float] = {}
        for box in self._boxes:
            label = f'webhook="{box.label}"'
            waiting[label] = waiting.get(label, 0) + len(box.waiting)
        counts = {f'webhook="{label}",outcome="{outcome}"': number for (label, outcome), number in self._counts.items()}
        return {"llm_gateway_webhook_events_total": dict(counts), "llm_gateway_webhook_waiting_events": waiting}

    async def close(self) -> None:
        tasks = [box.task for box in self._boxes if box.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # -- inside ------------------------------------------------------------------------------------------------------

    def _put(self, box: Box, letter: Letter) -> None:
        heappush(box.waiting, letter)
        if len(box.waiting) > MOST_WAITING:
            box.waiting.remove(min(box.waiting, key=lambda each: each.number))
            heapify(box.waiting)
            self._count(box, "dropped")
        box.wake.set()

    async def _deliver(self, box: Box) -> None:
        while not box.gone:
            box.wake.clear()
            pause = box.waiting[0].due - time.monotonic() if box.waiting else None
            if pause is None or pause > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await box.wake.wait()
                continue
            letter = heappop(box.waiting)
            self._judge(box, letter, await self._post(box.webhook, letter.happening))

    async def _post(self, webhook: Webhook, happening: Happening) -> Answer:
        judged = rules(webhook.url, private=webhook.private)
        place = addresses.place(webhook.url, judged)
        if place is None:
            return Answer(error="its address cannot be used")
        body = msgspec.json.encode(happening)
        stamp = str(time.time_ns() // 10**9)  # of the attempt; the event's own stands in the body
        head = (
            f"POST {place.target} HTTP/1.1\r\nhost: {place.authority}\r\ncontent-type: application/json\r\nuser-agent: llm-gateway\r\n"
            f"webhook-id: {happening.id}\r\nwebhook-timestamp: {stamp}\r\n"
            f"webhook-signature: {signature(webhook.key, happening.id, stamp, body)}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        return await self._caller.post(place, judged, head.encode() + body, webhook.timeout)

    def _judge(self, box: Box, letter: Letter, answer: Answer) -> None:
        if 200 <= answer.status < 300:
            box.failing = False
            self._count(box, "delivered")
            return
        self._count(box, "failed")
        why = answer.error or f"it answers with status {answer.status}"
        if answer.status == GONE:
            box.gone = True
            self._count(box, "dropped", len(box.waiting) + 1)
            box.waiting.clear()
            self._notices.say("warn", "webhook gone", webhook=box.label, hint="nothing is posted to it until its options change")
        elif letter.attempt < len(PAUSES):
            due = time.monotonic() + PAUSES[letter.attempt] * (0.8 + random() * 0.4)  # noqa: S311  spread, not secrecy
            self._put(box, msgspec.structs.replace(letter, due=due, attempt=letter.attempt + 1))
            if not box.failing:  # once for all that fail in a row
                self._notices.say("warn", "webhook failing", webhook=box.label, error=why)
            box.failing = True
        else:
            self._count(box, "given_up")
            self._notices.say("warn", "webhook given up", webhook=box.label, error=why, id=letter.happening.id)

    def _count(self, box: Box, outcome: str, number: int = 1) -> None:
        key = (box.label, outcome)
        self._counts[key] = self._counts.get(key, 0) + number


def signature(key: bytes, identity: str, stamp: str, body: bytes) -> str:
    signed = hmac.digest(key, f"{identity}.{stamp}.".encode() + body, "sha256")
    return f"v1,{b64encode(signed).decode()}"


def _label(webhook: Webhook) -> str:
    """Its host: paths and queries of webhooks are often secrets."""
    place = addresses.place(webhook.url, rules(webhook.url, private=True))
    return escape(place.authority) if place is not None else "?"
