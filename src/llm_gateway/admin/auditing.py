"""What goes into the audit log: changes by the admin API, reloads, refused authentications, and where it is asked for every request.

Law: a change that cannot be recorded is not made: once a line could not be written, it waits, and changes are refused until it is (503
`audit_unwritable`). What workers refuse stands in their journals; it is taken from there, each row once, also after a crash: the log itself
says how far it had come.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_gateway.admin.notices import Notices
from llm_gateway.telemetry.audit import BusyError, Chain, Entry
from llm_gateway.telemetry.trail import backwards

UNCHANGING = frozenset({"GET", "HEAD", "OPTIONS"})
ASKING = frozenset({"/admin/v1/explain"})  # a POST that changes nothing
TENANTS, OF_TENANTS = "/admin/v1/tenants", "/admin/v1/tenants/"
SECRET = ("secret", "token", "password", "key", "credential", "value")
NAMED = ("id", "name", "tenant", "key_id", "workers", "generation", "digest")  # of an answer
MOST_HEARD, MOST_TOLD = 1 << 20, 16 << 10  # bytes of a body, of its answer; the API takes no more
MOST_MEMBERS, LONGEST_NAME, LONGEST_VALUE = 32, 100, 8192  # of a body, in a line
MOST_WAITING = 10_000
MOST_REFUSED = 20  # lines a second
MOST_AT_ONCE = 2_000  # rows of journals looked at per tick
REDACTED, TOO_LONG = "[redacted]", "[too long]"
NEEDED = {"ts", "request_id", "method", "route", "status"}  # of a row
TAKEN, NOTED_SECONDS = "taken", 30.0
_encode = msgspec.json.Encoder().encode
NOBODYS = b'"tenant":null'  # in lines of refused requests


class Taken(Struct):
    """How far journals were taken over when the log had so many lines."""

    seq: int
    offsets: dict[str, int]


class Auditing:
    """`alarm`: told when the log cannot be written, and when it can again. `requests`: every request has its line."""

    def __init__(self, data_dir: Path, secret: bytes, gateway: str, notices: Notices, alarm: Callable[[bool], None]) -> None:
        self.requests = False
        self.lost = 0
        self._directory = data_dir / "audit"
        self._journal = data_dir / "journal"
        self._secret = secret
        self._gateway = gateway
        self._notices = notices
        self._alarm = alarm
        self._chain: Chain | None = None
        self._waiting: list[Entry] = []
        self._offsets: dict[str, int] | None = None
        self._troubled = False
        self._noted = 0.0
        self._second = ""
        self._refusals = self._more = 0

    @property
    def writable(self) -> bool:
        return (self._chain is not None and not self._waiting) or self.flush()

    def change(self, entry: dict[str, Any]) -> None:
        self._note(Entry(kind="change", ts=_now(), gateway=self._gateway, **entry))

    def refused(self, entry: dict[str, Any]) -> None:
        """A call without a good token. Of a flood only the first of each second have their lines, and say how many were before them."""
        now = _now()
        if now[:19] != self._second:
            self._second, self._refusals = now[:19], 0
        self._refusals += 1
        if self._refusals > MOST_REFUSED:
            self._more += 1
            return
        more, self._more = self._more, 0
        self._note(Entry(kind="refused", ts=now, gateway=self._gateway, more=more, **entry))

    def reloaded(self, cause: str, said: dict[str, Any], *, refused: bool) -> None:
        self._note(Entry(kind="reload", ts=_now(), gateway=self._gateway, action=cause, outcome="refused" if refused else "", said=said))

    def flush(self) -> bool:
        """Writes what waits; False if it cannot be."""
        try:
            chain = self._opened()
            if self._waiting:
                chain.append(self._waiting)
                self._waiting = []
        except (OSError, BusyError) as error:
            self._trouble(str(error) or type(error).__name__)
            return False
        if self._troubled:
            self._troubled = False
            self._alarm(True)
        return True

    def look(self) -> None:
        """Takes over what workers have written since."""
        if not self.writable:
            return
        try:
            self._take()
        except OSError as error:
            self._trouble(str(error))
        if self._waiting:
            self.flush()
        if time.monotonic() - self._noted > NOTED_SECONDS:
            self._remember()

    def close(self) -> None:
        self.flush()
        self._remember()
        if self._chain is not None:
            self._chain.close()
            self._chain = None

    def metrics(self) -> dict[str, dict[str, float]]:
        return {
            "llm_gateway_audit_lines": {"": float(self._chain.serial if self._chain is not None else 0)},
            "llm_gateway_audit_waiting_lines": {"": float(len(self._waiting))},
            "llm_gateway_audit_lost_total": {"": float(self.lost)},
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _note(self, entry: Entry) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            return
        self._waiting.append(entry)
        self.flush()

    def _opened(self) -> Chain:
        if self._chain is None:
            self._chain = Chain(self._directory, self._secret)
        return self._chain

    def _trouble(self, why: str) -> None:
        if not self._troubled:
            self._troubled = True
            self._notices.say("error", "audit_unwritable", why=why)
            self._alarm(False)

    def _take(self) -> None:
        """What was read waits at once: it is not read again, whatever becomes of the next file."""
        if self._offsets is None:
            self._offsets = self._known()
        for path in sorted(self._journal.glob("*.jsonl")):
            if len(self._waiting) < MOST_AT_ONCE:
                with contextlib.suppress(FileNotFoundError):  # loaded, and old enough to go
                    self._waiting += self._rows(path, self._offsets)

    def _known(self) -> dict[str, int]:
        """How far journals were taken over: by the note beside the log, and by the lines that came since. All of them may be millions."""
        try:
            noted = msgspec.json.decode((self._directory / TAKEN).read_bytes(), type=Taken)
        except (OSError, ValueError):
            noted = Taken(0, {})
        for line in backwards(self._directory):
            if line["seq"] <= noted.seq:
                break
            match line.get("at"):
                case [str(file), int(offset)]:
                    noted.offsets[file] = max(offset, noted.offsets.get(file, 0))
                case _:
                    continue
        return noted.offsets

    def _remember(self) -> None:
        """What is in the log by now, and nothing else."""
        if self._waiting or self._offsets is None or self._chain is None:
            return
        self._noted = time.monotonic()
        there = {path.name for path in self._journal.glob("*.jsonl")}
        self._offsets = {name: offset for name, offset in self._offsets.items() if name in there}
        draft = self._directory / f"{TAKEN}.draft"
        with contextlib.suppress(OSError):  # then more is read at the next start
            draft.write_bytes(msgspec.json.encode(Taken(self._chain.serial, self._offsets)))
            draft.rename(self._directory / TAKEN)

    def _rows(self, path: Path, offsets: dict[str, int]) -> list[Entry]:
        start = offsets.get(path.name, 0)
        if path.stat().st_size <= start:
            return []
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(4 << 20)
        if not self.requests and NOBODYS not in data:  # nearly always
            offsets[path.name] = start + data.rfind(b"\n") + 1
            return []
        entries: list[Entry] = []
        at = start
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n") or len(entries) >= MOST_AT_ONCE:
                break
            at += len(line)
            offsets[path.name] = at
            if NOBODYS in line or self.requests:
                entries += self._entry(line, (path.name, at))
        return entries

    def _entry(self, line: bytes, at: tuple[str, int]) -> list[Entry]:
        try:
            row = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(row, dict) or not row.keys() >= NEEDED:  # the loader puts it aside
            return []
        refused = row.get("tenant") is None
        return [
            Entry(
                kind="refused" if refused else "request", ts=row["ts"], gateway=self._gateway, actor=row.get("key") or "", peer=row.get("peer", ""),
                action=f"{row['method']} {row['route']}", status=row["status"], outcome=row.get("outcome", "ok"), request_id=row["request_id"],
                tenant=row.get("tenant") or "", model=row.get("upstream_model") or row.get("model", ""), at=at, more=row.get("more", 0),
            )
        ]  # fmt: skip


class Audited:
    """The admin API with a line for each change and each refusal. Its answers say who asked by `scope["state"]["actor"]`, and whose things it
    is about by `scope["state"]["tenant"]`, where neither the path nor the bodies do."""

    def __init__(self, app: ASGIApp, auditing: Auditing) -> None:
        self._app = app
        self._auditing = auditing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/admin/v1/"):
            await self._app(scope, receive, send)
            return
        changes = scope["method"] not in UNCHANGING and scope["path"] not in ASKING
        if changes and not self._auditing.writable:
            await _unwritable(send)
            return
        scope.setdefault("state", {})
        asked, told = bytearray(), bytearray()
        status = 500

        async def listening() -> Message:
            message = await receive()
            if changes and len(asked) <= MOST_HEARD:
                asked.extend(message.get("body", b""))
            return message

        async def noting(message: Message) -> None:
            """The line is written before whoever asked holds the whole answer."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif len(told) <= MOST_TOLD:
                told.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._note(scope, status, bytes(asked), bytes(told), changes=changes)
            await send(message)

        await self._app(scope, listening, noting)

    def _note(self, scope: Scope, status: int, asked: bytes, told: bytes, *, changes: bool) -> None:
        client = scope.get("client")
        entry = {
            "actor": scope["state"].get("actor", ""), "peer": client[0] if client else "", "status": status,
            "action": f"{scope['method']} {scope['path'][:200]}",
        }  # fmt: skip
        if status in (401, 403):
            self._auditing.refused(entry)
        elif changes and entry["actor"]:  # what nobody was let in for was not there, and is no change
            said, made = _said(asked), _named(_decoded(told))
            self._auditing.change(entry | {"said": said, "made": made, "tenant": _whose(scope, said, made)})


def _whose(scope: Scope, said: dict[str, Any], made: dict[str, Any]) -> str:
    """The tenant that a change is about, as far as it is about one; of a tenant's administrator, for whom there is no other, that one."""
    within = scope["path"].removeprefix(OF_TENANTS).partition("/")[0] if scope["path"].startswith(OF_TENANTS) else ""
    state, named = scope["state"], said.get("name") if scope["path"] == TENANTS else ""
    known = (state.get("of"), within, state.get("tenant"), made.get("tenant"), said.get("tenant"), named)
    return next((each[:200] for each in known if isinstance(each, str) and each), "")


def redacted(said: dict[str, Any]) -> dict[str, Any]:
    """Without the values of whatever may be a secret by its name."""
    return {name: _shown(name, value) for name, value in said.items()}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return redacted(value)
    if isinstance(value, list):
        return [_shown(name, each) for each in value]
    return REDACTED if isinstance(value, str) and any(word in name.lower() for word in SECRET) and name.lower() != "key_id" else value


def _named(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in NAMED if isinstance(told.get(name), str | int | float)}


def _said(body: bytes) -> dict[str, Any]:
    """Of what is too long for a line at least that it was there."""
    try:
        said = redacted(_decoded(body))
        return {name[:LONGEST_NAME]: value if len(_encode(value)) <= LONGEST_VALUE else TOO_LONG for name, value in islice(said.items(), MOST_MEMBERS)}
    except RecursionError:
        return {}


def _decoded(body: bytes) -> dict[str, Any]:
    """By what writes the log, so that nothing is taken that could not be written: such a line would wait for ever, and changes with it."""
    try:
        said = msgspec.json.decode(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


async def _unwritable(send: Send) -> None:
    message = "The audit log cannot be written at the moment, so nothing may be changed; the gateway's log says why."
    body = json.dumps({"error": {"message": message, "code": "audit_unwritable"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"retry-after", b"5")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
