"""A child process small enough to be predictable: serves its name, pid and boot payload over HTTP/1.0, obeys its control line.

argv as the real worker's and operator's. `SLOW` in the boot payload makes it take that many seconds to drain, `DIE` makes
it exit at once, `DEAF` makes it ignore commands; the one that it names as FULL has no descriptor to spare for its first second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import sys

from llm_gateway.supervisor import boot, control


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    for option in ("--index", "--control", "--snapshot", "--state"):
        parser.add_argument(option, type=int, default=0)
    parser.add_argument("--listen", default="")
    asyncio.run(serve(parser.parse_args()))


async def serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    payload = boot.read(args.snapshot).decode()
    if "DIE" in payload:
        sys.exit(3)
    stop: asyncio.Future[float] = loop.create_future()
    links: list[int] = []
    heard: list[str] = []

    def on_command(command: control.Command) -> None:
        heard.append(command.name)
        if (
            "DEAF" in payload
            or command is control.Command.RELOAD
            or (args.name == "operator" and command.name == "DRAIN")
        ):
            return
        if not stop.done():
            slow = "SLOW" in payload and command is control.Command.DRAIN
            stop.set_result(0.7 if slow else 0.0)

    def on_link(index: int, sock: socket.socket) -> None:
        links.append(index)
        # A word across, so that tests see who is linked to whom.
        sock.sendall(b"%s %d\n" % (args.name.encode(), os.getpid()))
        peers.append(sock)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said = []
        for sock in peers:
            sock.setblocking(False)
            try:
                said.append(sock.recv(100, socket.MSG_PEEK).decode().strip())
            except BlockingIOError:
                said.append("")
        body = f"{args.name}|{args.index}|{os.getpid()}|{payload}|{','.join(heard)}|{','.join(map(str, links))}|{','.join(said)}"
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body.encode()))
        await writer.drain()
        writer.close()

    peers: list[socket.socket] = []
    if f"FULL {args.name}" in payload:
        spent = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.suppress(OSError):
            while True:
                spent.append(os.dup(2))
        loop.call_later(1.0, lambda: [os.close(fd) for fd in spent])
    line = control.attach(loop, args.control, on_command, on_link)
    servers = []
    for fd in filter(None, args.listen.split(",")):
        sock = socket.socket(fileno=int(fd))
        if sock.family == socket.AF_UNIX:
            servers.append(await asyncio.start_unix_server(answer, sock=sock))
        else:
            servers.append(await asyncio.start_server(answer, sock=sock))
    line.ready()
    await asyncio.sleep(await stop)
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
