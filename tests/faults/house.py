"""Real processes under test: the gateway as a user starts it, and upstreams, each in a namespace of its own where asked.

Law: no part of the gateway is imported here. Everything started is stopped by the house that started it, by its process
id; only processes started here are ever signalled. A namespace is said once, at the start: clients then connect from it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.space import Space, Wire
from processes import alive, eventually

KEY = "sk-faults-0123456789"
HERE = Path(__file__).parent
COMMAND = os.environ.get("LLM_GATEWAY", str(Path(sys.executable).parent / "llm-gateway"))
ASK = [{"role": "user", "content": "hi"}]


@dataclass
class Answer:
    """`whole`: framed to its end. `arrivals`: seconds after asking at which a piece of the body came."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    whole: bool
    arrivals: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What a stream said."""
        found = [json.loads(line[6:]) for line in self.body.decode().split("\n") if line.startswith("data: {")]
        return "".join(each["choices"][0]["delta"].get("content") or "" for each in found if each.get("choices"))

    @property
    def code(self) -> str:
        """The code of an error reply, or of the error event that ended a stream; empty if there was none."""
        lines = self.body.decode(errors="replace").split("\n")
        last = [line.removeprefix("data: ") for line in lines if '"error"' in line]
        return str(json.loads(last[-1])["error"]["code"]) if last else ""

    @property
    def well(self) -> bool:
        """A stream that ended as a finished one does."""
        return self.status == 200 and self.whole and self.body.endswith(b"data: [DONE]\n\n")


@dataclass
class Running:
    """A started process."""

    process: subprocess.Popen[bytes]
    log: Path
    space: Space | None

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def connect(self, port: int, host: str = "127.0.0.1", timeout: float = 10.0) -> socket.socket:
        if self.space is not None:
            return self.space.connect((host, port), timeout)
        return socket.create_connection((host, port), timeout)


@dataclass
class Upstream(Running):
    host: str
    port: int
    secure: bool = False

    @property
    def url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"

    def seen(self) -> dict[str, Any]:
        """`models`: requests by model; `open`: connections; `left`: exchanges that the other side left; `written`: bytes."""
        client = http.client.HTTPConnection(self.host, self.port)
        client.sock = self.connect(self.port, self.host)
        try:
            client.request("GET", "/seen")
            return dict(json.loads(client.getresponse().read()))
        finally:
            client.close()

    def told(self, mood: str) -> None:
        """What requests for the model `moody` meet from now on."""
        client = http.client.HTTPConnection(self.host, self.port)
        client.sock = self.connect(self.port, self.host)
        try:
            client.request("POST", "/told", mood)
            client.getresponse().read()
        finally:
            client.close()


@dataclass
class Gateway(Running):
    port: int
    metrics_port: int
    data: Path
    config: Path

    def ask(self, model: str, *, stream: bool = False, timeout: float = 30.0, connect: Any = None, **more: Any) -> Answer:
        """One chat request on a connection of its own. connect: where to, from elsewhere. headers=, content=."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **more.pop("headers", {})}
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": more.pop("content", "hi")}], "stream": stream, **more})
        return self.fetch("POST", "/v1/chat/completions", body.encode(), headers, timeout, connect)

    def fetch(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        timeout: float = 30.0, connect: Any = None,
    ) -> Answer:  # fmt: skip
        began = time.perf_counter()
        client = http.client.HTTPConnection("127.0.0.1", self.port)
        client.sock = connect() if connect is not None else self.connect(self.port, timeout=timeout)
        client.sock.settimeout(timeout)
        try:
            client.request(method, path, body, dict(headers or {}))
            reply = client.getresponse()
            pieces, arrivals, whole = [], [], True
            try:
                while piece := reply.read1(65536):
                    pieces.append(piece)
                    arrivals.append(time.perf_counter() - began)
            except (http.client.HTTPException, ConnectionError, ValueError):  # ValueError: the end instead of a chunk's size
                whole = False
            told = {name.lower(): value for name, value in reply.headers.items()}
            return Answer(reply.status, told, b"".join(pieces), time.perf_counter() - began, whole, arrivals)
        finally:
            client.close()

    def opened(self, model: str, timeout: float = 30.0, headers: str = "", *, key: str = KEY, **more: Any) -> socket.socket:
        """A connection with a stream asked for on it, to be read or not."""
        body = json.dumps({"model": model, "messages": ASK, "stream": True, **more}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        sock = self.connect(self.port, timeout=timeout)
        sock.sendall(head.encode() + body)
        return sock

    def rows(self) -> list[dict[str, Any]]:
        """Whole rows of the journal."""
        files = sorted((self.data / "journal").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]

    def row(self, request_id: str) -> dict[str, Any]:
        """The one row of a request; waits for it."""
        found = eventually(lambda: [row for row in self.rows() if row["request_id"] == request_id])
        assert isinstance(found, list)
        assert len(found) == 1, found
        return dict(found[0])

    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for pid in descendants(self.process.pid) if "llm_gateway.worker" in command(pid)]

    def worker(self) -> int:
        found = eventually(self.workers)
        assert isinstance(found, list)
        return int(found[0])

    def rss(self) -> float:
        """Of the worker, in MB."""
        return int(Path(f"/proc/{self.worker()}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def metric(self, name: str) -> float:
        """The sum over all labels; the operator hears once a second."""
        client = http.client.HTTPConnection("127.0.0.1", self.metrics_port)
        client.sock = self.connect(self.metrics_port)
        try:
            client.request("GET", "/metrics")
            page = client.getresponse().read().decode()
        finally:
            client.close()
        return sum(float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


class House:
    """Starts, and stops all it started, newest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rest = contextlib.ExitStack()
        self._serial = 0

    def close(self) -> None:
        self._rest.close()

    def space(self) -> Space:
        space = Space()
        self._rest.callback(space.close)
        return space

    def wire(self, one: Space, other: Space, **orders: float) -> Wire:
        wire = Wire(one, other)
        self._rest.callback(wire.close)
        if orders:
            wire.order(**orders)
        return wire

    def upstream(self, *, host: str = "127.0.0.1", space: Space | None = None, port: int = 0, cert: Path | None = None) -> Upstream:
        """`host` is the address it listens on; so that it is found there, name the wire's end."""
        tls = ["--cert", str(cert)] if cert is not None else []
        running = self._start([sys.executable, str(HERE / "upstream.py"), "--host", host, "--port", str(port), *tls], space)
        found = eventually(lambda: int(running.log.read_text().split()[0]), 20)
        return Upstream(running.process, running.log, space, host, int(str(found)), cert is not None)

    def gateway(
        self, providers: Mapping[str, object], *, space: Space | None = None, before: Sequence[str] = (), env: Mapping[str, str] | None = None,
        ready: bool = True, **sections: Any,
    ) -> Gateway:  # fmt: skip
        """before: words in front of the command; sections: of the configuration; a provider may be a bare URL."""
        self._serial += 1
        place = self.folder / f"gateway-{self._serial}"
        place.mkdir(parents=True)
        with space.inside() if space is not None else contextlib.nullcontext():
            port, metrics_port = free_ports(2)
        data = Path(sections.pop("data_dir", place / "data"))
        config = {
            "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port, **sections.pop("server", {})},
            "workers": 1, "data_dir": str(data),
            "providers": {name: provider(each) for name, each in providers.items()},
            "keys": [{"name": "faults", "key": KEY, "tenant": "default"}],
            "drain": {"lame_duck": 0.2, "timeout": 20}, "logging": {"access": False},
            **sections,
        }  # fmt: skip
        file = place / "config.json"  # JSON is YAML
        file.write_text(json.dumps(config))
        running = self._start([*before, COMMAND, "serve", "--config", str(file)], space, env)
        gateway = Gateway(running.process, running.log, space, port, metrics_port, data, file)
        if ready:
            await_ready(gateway)
        return gateway

    def again(self, gateway: Gateway, env: Mapping[str, str] | None = None) -> None:
        """The same one, started anew as an init system would."""
        running = self._start([COMMAND, "serve", "--config", str(gateway.config)], gateway.space, env)
        gateway.process, gateway.log = running.process, running.log

    def _start(self, argv: Sequence[str], space: Space | None, env: Mapping[str, str] | None = None) -> Running:
        self._serial += 1
        log = self.folder / f"{self._serial}.log"
        with log.open("wb") as out, space.inside() if space is not None else contextlib.nullcontext():
            process = subprocess.Popen(
                argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **(env or {})}
            )
        self._rest.callback(stop, process)
        return Running(process, log, space)


def await_ready(gateway: Gateway, seconds: float = 30.0) -> None:
    def answers() -> bool:
        assert gateway.process.poll() is None, gateway.log.read_text()[-2000:]
        return gateway.fetch("GET", "/health/ready", timeout=2).status == 200

    eventually(answers, seconds)


def provider(said: object) -> dict[str, Any]:
    """An OpenAI-compatible one; from its URL alone where nothing else is said."""
    more = {"base_url": said} if isinstance(said, str) else dict(said)  # type: ignore[call-overload]
    return {"type": "openai_compatible", "api_key": "sk-upstream", "max_retries": 0, **more}


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGINT twice is the gateway's quickest clean end; what is left of its tree is killed."""
    tree = descendants(process.pid)
    for pid in (process.pid, *tree):
        kill(pid, signal.SIGCONT)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(1.5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(5)
    for pid in tree:
        if alive(pid):
            kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Of a process started here."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    tree = [pid]
    for each in tree:
        tree.extend(child for child, parent in parents.items() if parent == each)
    return tree[1:]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """All different: each is held while the next is looked for."""
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@contextlib.contextmanager
def frozen(upstream: Running) -> Iterator[None]:
    upstream.send(signal.SIGSTOP)
    try:
        yield
    finally:
        upstream.send(signal.SIGCONT)
