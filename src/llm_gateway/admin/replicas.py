"""What this replica's workers find out, told to other replicas by Redis, and theirs told to us: hints, never orders.

    PUBLISH llm-gateway:changes  HMAC-SHA-256(secret, payload) + msgpack {replica, changes}

Law: only what is true of an account wherever it is used from is passed on as it is: a key that is refused, a Retry-After. A breaker opened
elsewhere is a warning (here it holds for a few seconds, then a real call finds out), and whether a provider can be *reached* is everybody's own
business: a replica that is cut off must not blind the others. Nobody waits for Redis; while it is away, nothing is shared.

Without `redis.url` the library is not even imported.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.admin.notices import Notices
from llm_gateway.core.changes import Change
from llm_gateway.stores.redis.dial import master
from llm_gateway.stores.redis.terms import Node, Terms

CHANNEL = "llm-gateway:changes"
LABEL = b"changes between replicas, version 1"
SIGNATURE = 32
MOST_WAITING = 1000
HINT = 5.0  # seconds that a breaker opened by another replica holds here
SHARED = frozenset({"breaker_opened", "cooling", "key_disabled", "key_restored"})
PATIENCE, LONGEST_PAUSE = 2.0, 10.0


class Message(Struct, frozen=True):
    replica: str
    changes: list[Change]


def load_redis() -> tuple[Any, Any]:
    """The library, and its word for never trying again by itself: 150 ms of import that only those with a Redis pay."""
    from redis import asyncio as library  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    return library, Retry(NoBackoff(), 0)


class Replicas:
    """`on_changes`: hears what other replicas found out."""

    def __init__(self, secret: bytes, on_changes: Callable[[list[Change]], None], notices: Notices) -> None:
        self.replica = os.urandom(8).hex()
        self.sent = self.heard = self.dropped = self.refused = 0
        self._key = hmac.digest(secret, LABEL, "sha256")
        self._on_changes = on_changes
        self._notices = notices
        self._waiting: deque[list[Change]] = deque(maxlen=MOST_WAITING)
        self._fresh = asyncio.Event()
        self._terms: Terms | None = None
        self._task: asyncio.Task[None] | None = None
        self._linked = False

    def adopt(self, terms: Terms | None) -> None:
        """Follows the configuration's Redis, or none."""
        if terms == self._terms:
            return
        self._terms = terms
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.ensure_future(self._run(terms)) if terms is not None else None

    def tell(self, changes: list[Change]) -> None:
        """To the other replicas, as soon as Redis takes it."""
        shared = [change for change in changes if change.what in SHARED]
        if not shared or self._terms is None:
            return
        self.dropped += len(self._waiting) == MOST_WAITING
        self._waiting.append(shared)
        self._fresh.set()

    def metrics(self) -> dict[str, dict[str, float]]:
        outcomes = {"sent": self.sent, "heard": self.heard, "dropped": self.dropped, "refused": self.refused}
        return {"llm_gateway_replica_messages_total": {f'outcome="{name}"': float(count) for name, count in outcomes.items()}}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=PATIENCE)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _run(self, terms: Terms) -> None:
        pause = 0.5
        library, never = load_redis()
        turn = 0
        while True:
            try:
                node = await master(terms) if terms.master else terms.nodes[turn % len(terms.nodes)]
                turn += 1
                client = library.Redis(**_options(terms, node), retry=never)
                async with client, client.pubsub() as subscription:
                    await subscription.subscribe(CHANNEL)
                    self._say("info", "replicas_linked", up=True)
                    pause = 0.5
                    await self._exchange(client, subscription)
            except (library.RedisError, OSError, TimeoutError) as error:
                self._say("warn", "replicas_lost", up=False, reason=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _exchange(self, client: Any, subscription: Any) -> None:
        """Until either side of it fails, which is raised."""
        sides = {asyncio.ensure_future(self._listen(subscription)), asyncio.ensure_future(self._publish(client))}
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.wait(sides, timeout=PATIENCE)
        for side in done:
            side.result()

    async def _publish(self, client: Any) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            while self._waiting:
                # Not wait_for: until Python 3.12 it loses a cancellation that comes as its awaited ends.
                async with asyncio.timeout(PATIENCE):
                    await client.publish(CHANNEL, self._sealed(self._waiting[0]))
                self._waiting.popleft()
                self.sent += 1

    async def _listen(self, subscription: Any) -> None:
        async for message in subscription.listen():
            if message["type"] == "message":
                self._hear(message["data"])

    def _sealed(self, changes: list[Change]) -> bytes:
        payload = msgspec.msgpack.encode(Message(self.replica, changes))
        return hmac.digest(self._key, payload, "sha256") + payload

    def _hear(self, data: bytes) -> None:
        """Messages of gateways with another secret, and of anybody else, are nobody's."""
        signature, payload = data[:SIGNATURE], data[SIGNATURE:]
        if not hmac.compare_digest(signature, hmac.digest(self._key, payload, "sha256")):
            self.refused += 1
            return
        try:
            message = msgspec.msgpack.decode(payload, type=Message)
        except msgspec.MsgspecError:  # a replica of another version
            self.refused += 1
            return
        if message.replica == self.replica:
            return
        self.heard += 1
        self._on_changes([hint(change) for change in message.changes if change.what in SHARED])

    def _say(self, level: str, event: str, *, up: bool, **fields: object) -> None:
        if up is not self._linked:
            self._linked = up
            self._notices.say(level, event, **fields)


def _options(terms: Terms, node: Node) -> dict[str, Any]:
    """As the library takes them. Of a cluster any node will do: what one is told to publish, all are told."""
    host, port = node
    where: dict[str, Any] = {"host": host, "port": port, "socket_keepalive": True} if port else {"unix_socket_path": host}
    who = {"username": terms.login.username or None, "password": terms.login.password or None}
    options = {**where, **who, "db": terms.db, "protocol": 2, "socket_connect_timeout": PATIENCE}
    if terms.tls is None:
        return options
    tls = terms.tls
    context = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key, "ssl_check_hostname": tls.verify}
    return {**options, "ssl": True, "ssl_cert_reqs": "required" if tls.verify else "none", **context}


def hint(change: Change) -> Change:
    """As it holds here."""
    if change.what != "breaker_opened":
        return change
    return replace(change, seconds=min(change.seconds or HINT, HINT))
