"""How a server is reached: names to addresses, sockets, TLS, and who of a sentinel's servers is the master now.

Law: every name is looked up anew, in threads of our own: connections are opened seldom, and when they are, a remembered address may be the
reason why. OSError where nothing answers; the caller bounds the time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiofastnet

from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import Command, Connection, Failure
from llm_gateway.stores.redis.terms import Login, Node, Terms, Tls, name

PATIENCE = 1.0  # seconds: of one address, and of one sentinel


class Unreachable(OSError):
    """`kind`: as of a Failure."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Dialler:
    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="redis-dns")

    async def dial(self, node: Node, make: Callable[[], Connection]) -> Connection:
        """A new connection to `node`, before a word was said on it."""
        loop = asyncio.get_running_loop()
        host, port = node
        if not port:
            _, made = await loop.create_unix_connection(make, host)
            return made
        sock = await self._connect(loop, host, port)
        try:
            tls = self.terms.tls
            if tls is None:
                _, made = await loop.create_connection(make, sock=sock)
                return made
            trust = await loop.run_in_executor(self._threads, context, tls)  # read anew: certificates are renewed
            _, made = await aiofastnet.create_connection(loop, make, sock=sock, ssl=trust, server_hostname=tls.server_name or host)
        except BaseException:
            sock.close()
            raise
        return made

    async def master(self) -> Node:
        """Of the sentinels, the first that knows."""
        failure: OSError = Unreachable("away", "no sentinel answers")
        for node in self.terms.nodes:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._master_by(node)
            except TimeoutError:
                continue
            except OSError as error:
                failure = error
        raise failure

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _master_by(self, node: Node) -> Node:
        connection = await self.dial(node, lambda: Connection(_Alone(), Meter(), PATIENCE))
        try:
            await sign_in(connection, self.terms.sentinel)
            found = await answer(connection.ask("SENTINEL", "get-master-addr-by-name", self.terms.master))
        finally:
            connection.close()
        if not isinstance(found, list):
            raise Unreachable("away", f"the sentinel at {name(node)} knows no master {self.terms.master}")
        host, port = found
        return host.decode(), int(port)

    async def _connect(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
        try:
            found = await loop.run_in_executor(self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError:  # a label that no name can hold
            raise OSError(f"{host} is no name") from None
        failure: OSError = OSError(f"no address of {host}")
        for family, _, _, _, address in found:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout(PATIENCE):
                    await loop.sock_connect(sock, address)
            except TimeoutError as error:
                sock.close()
                failure = error
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise failure


class _Alone:
    """The owner of a connection that nobody keeps."""

    def refused(self, connection: Connection, command: Command, text: str) -> None:
        command.answer(Failure("error", text))

    def stalled(self, connection: Connection) -> None:
        connection.close()

    def thawed(self, connection: Connection) -> None:
        return None

    def lost(self, connection: Connection) -> None:
        return None


async def sign_in(connection: Connection, login: Login) -> None:
    """Unreachable where it is not let in."""
    if login.password:
        words = (login.username, login.password) if login.username else (login.password,)
        await answer(connection.ask("AUTH", *words))


async def answer(future: asyncio.Future[Any]) -> Any:
    """What was answered; Unreachable if that is a failure."""
    reply = await future
    if isinstance(reply, Failure):
        raise Unreachable(reply.kind, reply.text or reply.kind)
    return reply


async def master(terms: Terms) -> Node:
    """Who that is, by the first sentinel that knows. OSError where none does."""
    dialler = Dialler(terms)
    try:
        return await dialler.master()
    finally:
        dialler.close()


async def ping(terms: Terms) -> bool:
    """Whether a server answers there and lets us in: the master, where there are sentinels; any node of a cluster."""
    dialler = Dialler(terms)
    try:
        for node in (await dialler.master(),) if terms.master else terms.nodes:
            if await _pings(dialler, node):
                return True
    except OSError:  # no sentinel; TimeoutError is one too
        return False
    finally:
        dialler.close()
    return False


async def _pings(dialler: Dialler, node: Node) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            connection = await dialler.dial(node, lambda: Connection(_Alone(), Meter(), PATIENCE))
            try:
                await sign_in(connection, dialler.terms.login)
                return bool(await answer(connection.ask("PING")) == b"PONG")
            finally:
                connection.close()
    except OSError:
        return False


def context(tls: Tls) -> ssl.SSLContext:
    """OSError where its files cannot be read."""
    made = ssl.create_default_context(cafile=tls.ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls.cert:
        made.load_cert_chain(tls.cert, tls.key)
    return made
