"""Brings to the workers what the database says of who may do what: the key table, and what changed since it was written.

Law: the database is asked once a second, and at once after a change of our own; what other gateways change arrives by the same way, so a
revoked key is refused everywhere within two seconds. The table is written when it is not there, not of this database, when more has
changed than workers ought to carry in their memory, and when a tenant of config.yaml entrusted or withdrew a key of its own: such a tenant's keys are
good from the first moment of a start, and until the database was asked only the table says with whose key they are served.

While the database is away workers keep what they know. If it is away when the gateway starts, the table of the last run serves, and that
is said: a key that was revoked elsewhere meanwhile works until the database is back; the other way round nobody's would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from llm_gateway.admin.notices import Notices
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.stores.sql.directory import MARK, BehindError, Entries, Register
from llm_gateway.stores.tables import Table, TableError
from llm_gateway.supervisor.channel import Delta

SECONDS = 1.0
MOST_DIFFERENCES = 1000  # before the table is written again
AT_ONCE = 5000  # entries of one message


class Workers(Protocol):
    """The fleet, as far as this needs it."""

    @property
    def differences(self) -> int: ...
    def table(self, keys: str, serial: int, *, anew: bool = False) -> None: ...
    def absent(self) -> None: ...
    def differ(self, delta: Delta) -> None: ...


class KeyTable:
    """ready: returns once the database has its tables, or raises. `directory`: what workers know, for the operator itself. clock: Unix seconds."""

    def __init__(
        self, register: Register, folder: Path, workers: Workers, notices: Notices, *,
        ready: Callable[[], Awaitable[None]], clock: Callable[[], float] = lambda: time.time_ns() / 1e9,
    ) -> None:  # fmt: skip
        self.directory = Directory()
        self.directory.awaited = True
        self._register = register
        self._ready = ready
        self._path = folder / KEYS
        self._workers = workers
        self._notices = notices
        self._clock = clock
        self._serial = -1  # that workers know of; -1: none
        self._sound = False  # the table is of this database
        self._due = False  # it lacks what a tenant entrusted
        self._looking = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self.failures = 0
        self.away = False

    async def run(self) -> None:
        """For as long as the gateway runs."""
        while True:
            await self.try_to_look()
            await asyncio.sleep(SECONDS)

    async def try_to_look(self) -> None:
        try:
            await self.look()
        except Exception as error:  # noqa: BLE001  drivers raise what they like, a record may be one that nobody can tell, and looking must go on
            self.failures += 1
            if not self.away:
                self._notices.say("error", "keys and tenants not read", error=_told(error), serial=self._serial)
            self.away = True
            self._make_do()
        else:
            if self.away:
                self._notices.say("info", "keys and tenants read again", serial=self._serial)
            self.away = False

    async def look(self) -> None:
        """Tells workers whatever has changed. Raises SQLAlchemy's errors, and OSError where the table cannot be written."""
        async with self._looking:
            if not self._sound:
                await self._ready()
                await self._begin()
            newest = await self._register.serial()
            if newest < self._serial:  # the database was put back to what it had been
                await self._anew()
            elif newest != self._serial:
                try:
                    newest, entries = await self._register.since(self._serial)
                except BehindError:  # away for longer than it is remembered who was removed
                    await self._anew()
                else:
                    self._due = self._due or await self._register.entrusts(self._serial)
                    self._differ(newest, entries)
        if self._due or self._workers.differences > MOST_DIFFERENCES:
            self._begin_writing()

    async def kept(self) -> None:
        """Returns when what a tenant entrusted is in the table too, or cannot be written there."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._due:
            await asyncio.wait([self._begin_writing()])

    async def write(self) -> None:
        """Where no gateway runs: for the next start. Raises as `look`."""
        await self._register.export(self._path, self._clock())

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    def metrics(self) -> dict[str, dict[str, float]]:
        return {
            "llm_gateway_directory_serial": {"": max(0, self._serial)},
            "llm_gateway_directory_differences": {"": self._workers.differences},
            "llm_gateway_directory_failures_total": {"": self.failures},
        }

    async def _begin(self) -> None:
        """With the table that is there, if it is of this database as it is now; with a new one else."""
        table = _table(self._path)
        if table is not None and table.get(MARK) == await self._register.mark():
            self._publish(table.serial)
        else:
            await self._publish_anew()
        self._sound = True

    async def _anew(self) -> None:
        self._sound = False
        await self._publish_anew()
        self._sound = True

    async def _publish_anew(self) -> None:
        self._publish(await self._register.export(self._path, self._clock()))

    def _begin_writing(self) -> asyncio.Task[None]:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._rewrite())
        return self._writing

    async def _rewrite(self) -> None:
        """Beside looking, which goes on meanwhile."""
        due, self._due = self._due, False
        try:
            serial = await self._register.export(self._path, self._clock())
            async with self._looking:
                newest, entries = await self._register.since(serial)
                self._workers.table(KEYS, serial)
                self.directory.open(self._path)
                self.directory.change(newest, entries)
        except (SQLAlchemyError, OSError) as error:
            self.failures += 1
            self._due = due
            self._notices.say("error", "key table not written", error=_told(error))
        finally:
            self._writing = None

    def _make_do(self) -> None:
        """With the table of the last run, where there is no other."""
        if self._serial >= 0:
            return
        table = _table(self._path)
        if table is None:
            self._workers.absent()
        else:
            self._notices.say("error", "keys and tenants are those of the last run", serial=table.serial)
            self._publish(table.serial)

    def _publish(self, serial: int) -> None:
        self._serial = serial
        self._workers.table(KEYS, serial, anew=True)
        self.directory.open(self._path)

    def _differ(self, serial: int, entries: Entries) -> None:
        left = iter(entries.items())
        while part := dict(islice(left, AT_ONCE)):
            self._workers.differ(Delta(serial, part))
            self.directory.change(serial, part)
        self._serial = serial


def _table(path: Path) -> Table | None:
    try:
        table = Table(path)
        table.get(MARK)  # may be damaged by itself
        return table
    except (TableError, OSError):
        return None


def _told(error: Exception) -> str:
    """In one line, without statements and their values."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
