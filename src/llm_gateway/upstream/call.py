"""One request of the gateway's own, of which only the status matters: a probe of a provider, a webhook's post.

Law: over a connection of its own, which nobody used before and which is closed as soon as the status is known, so that what
is found is what a new request would find. No redirect is followed. No way to fail is an exception: an answer says it in words.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from time import perf_counter

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.addresses import Place, Rules, reachable
from llm_gateway.upstream.dns import Resolver, interleave
from llm_gateway.upstream.echo import EchoConnection
from llm_gateway.upstream.fetch import MOST_ADDRESSES, pinned
from llm_gateway.upstream.http1 import Connection
from llm_gateway.upstream.pool import Bay, Origin, Pool, Stamps, Tls, stamps, tls_context

BUFFER = 16 << 10


class Answer(Struct, frozen=True):
    """`status` 0: none came, and `error` says why, without secrets. `ms`: from the request to the reply's head."""

    status: int = 0
    ms: float = 0.0
    error: str = ""


class Caller:
    def __init__(self) -> None:
        self._pool = Pool(memoryview(bytearray(BUFFER)))
        self._resolver = Resolver()
        self._contexts: dict[Tls, tuple[Stamps, ssl.SSLContext]] = {}

    async def ask(self, origin: Origin, request: bytes, seconds: float) -> Answer:
        """As a worker would: by name, through the origin's proxy if it has one."""
        return await self._within(seconds, self._ask(origin, request))

    async def post(self, place: Place, rules: Rules, request: bytes, seconds: float) -> Answer:
        """To one of the addresses that the name has now, all of which must be reachable by the rules."""
        return await self._within(seconds, self._post(place, rules, request))

    def close(self) -> None:
        self._pool.close()
        self._resolver.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _within(self, seconds: float, call: Coroutine[None, None, Answer]) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError:
            return Answer(error=f"no answer within {seconds:g} s")
        except Fault as fault:
            return Answer(error=fault.message)
        except OSError as error:  # certificates that cannot be read; ssl's errors are of this kind
            return Answer(error=f"TLS cannot be set up: {error.strerror or type(error).__name__}")

    async def _ask(self, origin: Origin, request: bytes) -> Answer:
        bay = Bay(origin, await self._context(origin.tls) if origin.scheme == "https" else None)
        bay.retired = True
        return await _answered(await self._pool.open(bay), request)

    async def _post(self, place: Place, rules: Rules, request: bytes) -> Answer:
        addresses = interleave(await self._resolver.resolve(place.host))
        if not all(reachable(each.host, rules) for each in addresses):
            return Answer(error="its name leads into a network of one's own")
        context = await self._context(Tls()) if place.scheme == "https" else None
        failure = Answer(error="its name has no address")
        for address in addresses[:MOST_ADDRESSES]:
            try:
                connection = await self._pool.open(pinned(place, address, context))
            except Fault as fault:
                if fault.kind is not Kind.UPSTREAM_CONNECT:
                    raise
                failure = Answer(error=fault.message)
                continue
            return await _answered(connection, request)
        return failure

    async def _context(self, tls: Tls) -> ssl.SSLContext:
        """Made anew only when its files have changed, and off the loop: reading the system's certificates takes 20 ms."""
        key = replace(tls, server_name=None)
        seen = stamps(key.files)
        before, context = self._contexts.get(key, (None, None))
        if context is None or before != seen:
            context = await asyncio.to_thread(tls_context, key)
            self._contexts[key] = seen, context
        return context


class Ear:
    """A Sink that wants the status."""

    __slots__ = ("_begun", "done")

    def __init__(self, done: asyncio.Future[Answer], begun: float) -> None:
        self._begun = begun
        self.done = done

    def __repr__(self) -> str:
        return f"<Ear {'done' if self.done.done() else 'listening'}>"

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._end(Answer(status, (perf_counter() - self._begun) * 1e3))

    def data(self, body: bytes) -> None:
        """Not wanted."""

    def end(self, *, delimited: bool) -> None:
        """The head was all."""

    def lost(self, fault: Fault) -> None:
        self._end(Answer(error=fault.message))

    def _end(self, answer: Answer) -> None:
        if not self.done.done():
            self.done.set_result(answer)


async def _answered(connection: Connection | EchoConnection, request: bytes) -> Answer:
    ear = Ear(asyncio.get_running_loop().create_future(), perf_counter())
    try:
        connection.send(request, ear)
        return await ear.done
    finally:
        connection.close()
