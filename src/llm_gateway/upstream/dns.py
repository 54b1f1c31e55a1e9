"""Names to addresses, off the loop, remembered, and never one host's trouble in another host's way.

Law: `getaddrinfo` in an own pool of threads (the loop's resolver shares four between all names: eight unanswered names
delayed a healthy one by 12 s). One lookup per host in flight; an answer is good for 30 s, then refreshed in the
background while the old one serves for up to 5 min; a host that never resolved raises at once what the resolver said.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind

FRESH, USABLE = 30.0, 300.0
THREADS = 32
PATIENCE = 5.0
# Where clients choose the names, there is no end of them: as many answers are kept, and lookups under way at most.
MOST_ANSWERS, MOST_PENDING = 1000, 256


class Address(Struct, frozen=True):
    family: int
    host: str


class _Answer(Struct):
    addresses: tuple[Address, ...]
    at: float


class Resolver:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="dns")
        self._answers: dict[str, _Answer] = {}
        self._pending: dict[str, asyncio.Task[tuple[Address, ...]]] = {}

    async def resolve(self, host: str) -> tuple[Address, ...]:
        """The addresses of `host`, in the order to try them. Raises Fault UPSTREAM_DNS."""
        literal = _literal(host)
        if literal is not None:
            return (literal,)
        now = perf_counter()
        answer = self._answers.get(host)
        if answer is not None and now - answer.at < FRESH:
            return answer.addresses
        lookup = self._pending.get(host)
        if lookup is None and len(self._pending) < MOST_PENDING:
            lookup = self._pending[host] = asyncio.ensure_future(self._lookup(host))
            lookup.add_done_callback(_seen)
        if answer is not None and now - answer.at < USABLE:
            return answer.addresses
        if lookup is None:
            raise Fault(Kind.UPSTREAM_DNS, "Too many names are being looked up; try again.")
        try:
            # Shielded: the lookup belongs to everyone who waits for this host, not to the first who asked.
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(lookup)
        except Fault as fault:  # a Fault belongs to one request; this one is told to all who wait
            raise Fault(fault.kind, fault.message) from None
        except TimeoutError:
            raise Fault(Kind.UPSTREAM_DNS, f"The upstream's name {host} did not resolve in {PATIENCE:g} s.") from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _lookup(self, host: str) -> tuple[Address, ...]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that no DNS name can hold
            reason = getattr(error, "strerror", None) or "not a valid name"
            raise Fault(Kind.UPSTREAM_DNS, f"The upstream's name {host} did not resolve: {reason}.") from None
        finally:
            del self._pending[host]
        addresses = tuple(dict.fromkeys(Address(family, str(sockaddr[0])) for family, *_, sockaddr in found))
        self._answers.pop(host, None)
        if len(self._answers) >= MOST_ANSWERS:
            del self._answers[next(iter(self._answers))]  # the one refreshed longest ago
        self._answers[host] = _Answer(addresses, perf_counter())
        return addresses


def interleave(addresses: tuple[Address, ...]) -> list[Address]:
    """Families in turn, the first answer's family first (RFC 8305 section 4)."""
    if not addresses:
        return []
    first = [a for a in addresses if a.family == addresses[0].family]
    other = [a for a in addresses if a.family != addresses[0].family]
    mixed: list[Address] = []
    for index in range(max(len(first), len(other))):
        mixed += first[index : index + 1] + other[index : index + 1]
    return mixed


def _literal(host: str) -> Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    return Address(socket.AF_INET if ip.version == 4 else socket.AF_INET6, str(ip))


def _seen(lookup: asyncio.Task[tuple[Address, ...]]) -> None:
    """A refresh in the background may fail with nobody waiting; the old answer goes on until it is too old."""
    if not lookup.cancelled():
        lookup.exception()
