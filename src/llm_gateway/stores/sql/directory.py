"""Tenants, projects, users and keys in the operator's database, what config.yaml's tenants entrusted to it, and what of all that workers are to know.

Law: every change is one transaction that first takes the next serial of `revision`, and holds it: changes are seen in the order of their
serials, by this gateway and by every other, and who asks for all that is newer than a serial misses none. Rows stay when their record goes, for
weeks (`purging.forget`); whoever asks after longer is told that it missed some.

A rotated key keeps its row, and so its id, limits and spending. The secret it had before moves to a row of its own, whose `successor` is
that id, until its time is over; whatever changes of the key changes of that row too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, Table, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.core.tenancy import Entry, Grant, Key, Project, Record, Scope, Secrets, Tenant, User, place, position
from llm_gateway.stores import tables as files
from llm_gateway.stores.sql import tables
from llm_gateway.stores.sql.engine import reading, writing

Named = TypeVar("Named", bound=Tenant | Project | User)
Kind = type[Tenant] | type[Project] | type[User]
Entries = dict[bytes, bytes | None]

TABLES: dict[type, Table] = {Tenant: tables.tenants, Project: tables.projects, User: tables.users, Key: tables.keys, Secrets: tables.secrets}
MARK = place("mark")  # where a key table says of what it was made
AT_ONCE = 1000  # rows read before others have their turn


class MissingError(Exception):
    """There is no such record, or not any more."""


class BehindError(Exception):
    """What was removed since then is partly forgotten: all there is has to be read."""


class TakenError(Exception):
    """There is one of that name."""


class InUseError(Exception):
    """`keys`: how many belong to it."""

    def __init__(self, keys: int) -> None:
        super().__init__(f"{keys} keys belong to it")
        self.keys = keys


class Stored(Struct, frozen=True):
    """`created`: Unix seconds. `by`: who made a key. `overlaps`: of a rotated key, when secrets it had before end (Unix seconds)."""

    record: Record
    created: float
    by: str = ""
    overlaps: tuple[float, ...] = ()


class Wanted(Struct, frozen=True):
    """Which keys: all that every word given is true of."""

    tenant: str | None = None
    project: str | None = None
    user: str | None = None
    name: str | None = None
    disabled: bool | None = None


class Register:
    """now: Unix seconds. All raise SQLAlchemy's errors where the database is away (`engine.away`)."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    def _plain(self, column: Column[str]) -> ColumnElement[str]:
        """In the order of code points, in which the file's own records are put between: not in that of a language, as PostgreSQL may sort."""
        return column.collate("C") if self._engine.dialect.name == "postgresql" else column

    # -- for workers ---------------------------------------------------------------------------------------------------

    async def serial(self) -> int:
        async with reading(self._engine) as connection:
            return int(await connection.scalar(select(tables.revision.c.serial).where(tables.revision.c.id == 1)) or 0)

    async def since(self, serial: int) -> tuple[int, Entries]:
        """All that changed after that, and the serial this leads to: by place, the record (msgpack), or None for one that is gone. Raises
        BehindError where not all of that is known any more."""
        newest = await self.serial()
        entries: Entries = {}
        async with reading(self._engine) as connection:
            for kind, table in TABLES.items():
                for row in await connection.execute(select(table).where(table.c.changed > serial)):
                    record = _record(kind, row)
                    entries[position(record)] = msgspec.msgpack.encode(record) if row.removed is None else None
            if int(await connection.scalar(select(tables.revision.c.purged).where(tables.revision.c.id == 1)) or 0) > serial:
                raise BehindError  # asked last: what is forgotten meanwhile was missed, too
        return newest, entries

    async def mark(self) -> bytes:
        """Tells this database in this state from others: by its address, serial, and how many there are of whom since when."""
        told = [self._engine.url.render_as_string(hide_password=True), str(await self.serial())]
        async with reading(self._engine) as connection:
            for table in TABLES.values():
                statement = select(func.count(), func.max(table.c.created)).select_from(table)
                told += map(str, (await connection.execute(statement)).one())
        return sha256("\0".join(told).encode()).digest()

    async def export(self, path: Path, now: float) -> int:
        """Writes the key table; returns its serial. A thousand rows at a time: 100,000 keys take some seconds and no memory."""
        serial, mark = await self.serial(), await self.mark()  # before the rows: what changes meanwhile is read again
        async with reading(self._engine) as connection:
            await connection.run_sync(_export, path, (serial, mark), now)
        return serial

    # -- tenants, projects, users ----------------------------------------------------------------------------------------

    async def get(self, kind: Kind, *names: str) -> Stored:
        """names: of a tenant its own, else its tenant's and its own. Raises MissingError."""
        async with reading(self._engine) as connection:
            return _stored(kind, await _row(connection, kind, names))

    async def page(self, kind: Kind, *, tenant: str | None = None, after: str = "", most: int = 100) -> list[Stored]:
        """By name. tenant: of projects and users, whose."""
        table = TABLES[kind]
        name = self._plain(table.c.name)
        statement = select(table).where(table.c.removed.is_(None), name > after).order_by(name).limit(most)
        if tenant is not None:
            statement = statement.where(table.c.tenant == tenant)
        async with reading(self._engine) as connection:
            return [_stored(kind, row) for row in await connection.execute(statement)]

    async def create(self, record: Tenant | Project | User, now: float) -> None:
        """Raises TakenError."""
        kind, table = type(record), TABLES[type(record)]
        async with writing(self._engine) as connection:
            fresh = _values(record) | {"changed": await _next(connection), "created": now, "removed": None}
            same = _named(kind, _names(record))
            there = (await connection.execute(select(table.c.removed).where(same))).first()
            if there is not None and there.removed is None:
                raise TakenError
            await connection.execute(insert(table).values(fresh) if there is None else update(table).where(same).values(fresh))

    async def change(self, kind: type[Named], names: tuple[str, ...], edit: Callable[[Named], Named]) -> Stored:
        """Applies `edit` to what is there; nothing is changed where it raises. Raises MissingError."""
        table, same = TABLES[kind], _named(cast("Kind", kind), names)
        async with writing(self._engine) as connection:
            serial = await _next(connection)
            stored = _stored(kind, await _row(connection, cast("Kind", kind), names))
            edited = edit(cast("Named", stored.record))
            await connection.execute(update(table).where(same).values(_values(edited) | {"changed": serial}))
            return msgspec.structs.replace(stored, record=edited)

    async def remove(self, kind: Kind, names: tuple[str, ...], now: float, *, cascade: bool) -> None:
        """With all that belongs to it. Raises MissingError; InUseError where keys do and `cascade` does not say that they go too."""
        async with writing(self._engine) as connection:
            gone = {"changed": await _next(connection), "removed": now}
            await _row(connection, kind, names)
            keys = tables.keys
            own = [keys.c.removed.is_(None), keys.c.tenant == names[0]]
            if kind is not Tenant:
                own.append((keys.c.project if kind is Project else keys.c.user) == names[1])
            count = await connection.scalar(select(func.count()).select_from(keys).where(*own, keys.c.successor.is_(None)))
            if count and not cascade:
                raise InUseError(count)
            await connection.execute(update(keys).where(*own).values(gone))
            for each in (tables.projects, tables.users) if kind is Tenant else ():
                await connection.execute(update(each).where(each.c.tenant == names[0], each.c.removed.is_(None)).values(gone))
            await connection.execute(update(TABLES[kind]).where(_named(kind, names)).values(gone))

    # -- own keys at providers, of tenants that config.yaml defines ----------------------------------------------------

    async def entrusted(self, tenants: Collection[str]) -> dict[str, dict[str, str]]:
        """By tenant, of those that have any: provider -> key, sealed."""
        table = tables.secrets
        statement = select(table).where(table.c.tenant.in_(tenants), table.c.removed.is_(None))
        async with reading(self._engine) as connection:
            return {row.tenant: _sealed(row) for row in await connection.execute(statement)}

    async def entrusts(self, serial: int) -> bool:
        """Whether anything of it changed after that."""
        statement = select(tables.secrets.c.tenant).where(tables.secrets.c.changed > serial).limit(1)
        async with reading(self._engine) as connection:
            return (await connection.execute(statement)).first() is not None

    async def entrust(self, tenant: str, edit: Callable[[dict[str, str]], dict[str, str]], now: float) -> None:
        """Applies `edit` to what there is of a tenant, {} where that is nothing; nothing is changed where it raises."""
        table = tables.secrets
        async with writing(self._engine) as connection:
            serial = await _next(connection)
            row = (await connection.execute(select(table).where(table.c.tenant == tenant))).first()
            kept = edit(_sealed(row) if row is not None and row.removed is None else {})
            values = {"secrets": _json(kept), "changed": serial, "removed": None if kept else now}
            if row is None:
                await connection.execute(insert(table).values(values | {"tenant": tenant, "created": now}))
            else:
                await connection.execute(update(table).where(table.c.tenant == tenant).values(values))

    # -- keys --------------------------------------------------------------------------------------------------------

    async def key(self, key: str, now: float) -> Stored:
        """By its id. Raises MissingError."""
        async with reading(self._engine) as connection:
            return await _key(connection, key, now)

    async def owner(self, digest: bytes) -> Key | None:
        """Whose key this is, though it be disabled or expired."""
        statement = select(tables.keys).where(tables.keys.c.digest == digest, tables.keys.c.removed.is_(None))
        async with reading(self._engine) as connection:
            row = (await connection.execute(statement)).first()
        return cast("Key", _record(Key, row)) if row is not None else None

    async def keys(self, wanted: Wanted, now: float, *, after: str = "", most: int = 100) -> list[Stored]:
        """By id, which says nothing of their age."""
        keys = tables.keys
        said = msgspec.structs.asdict(wanted)
        where = [keys.c[name] == value for name, value in said.items() if value is not None]
        key_id = self._plain(keys.c.id)
        statement = select(keys).where(keys.c.removed.is_(None), keys.c.successor.is_(None), key_id > after, *where).order_by(key_id)
        async with reading(self._engine) as connection:
            rows = (await connection.execute(statement.limit(most))).all()
            overlaps = await _overlaps(connection, [row.id for row in rows], now)
        return [_stored(Key, row, overlaps.get(row.id, ())) for row in rows]

    async def add(self, key: Key, now: float, by: str) -> None:
        """by: who makes it. Its digest, or access key id, is nobody else's, being random."""
        async with writing(self._engine) as connection:
            made = _values(key) | {"changed": await _next(connection), "created": now, "created_by": by}
            await connection.execute(insert(tables.keys).values(made))

    async def change_key(self, key: str, edit: Callable[[Key], Key], now: float) -> Stored:
        """As `change`. What it says of the key holds for secrets that it had before, too. Raises MissingError."""
        keys = tables.keys
        async with writing(self._engine) as connection:
            serial = await _next(connection)
            stored = await _key(connection, key, now)
            edited = edit(cast("Key", stored.record))
            values = _values(edited) | {"changed": serial}
            await connection.execute(update(keys).where(keys.c.id == key).values(values))
            shared = {name: value for name, value in values.items() if name not in ("id", "digest", "aws", "expires")}
            before = and_(keys.c.successor == key, keys.c.removed.is_(None))
            await connection.execute(update(keys).where(before).values(shared))
            if edited.expires:
                later = or_(keys.c.expires == 0, keys.c.expires > edited.expires)
                await connection.execute(update(keys).where(before, later).values(expires=edited.expires))
            return msgspec.structs.replace(stored, record=edited)

    async def rotate(self, key: str, fresh: Key, overlap: float, now: float) -> Stored:
        """Puts the digest (or access key id) of `fresh` in the place of the key's, and keeps that good for `overlap` seconds under the id of
        `fresh`. Raises MissingError."""
        keys = tables.keys
        async with writing(self._engine) as connection:
            serial = await _next(connection)
            old = cast("Key", (await _key(connection, key, now)).record)
            end = now + overlap
            ends = min(old.expires, end) if old.expires else end
            secret = {"digest": fresh.digest or None, "aws": fresh.aws or None, "changed": serial}
            await connection.execute(update(keys).where(keys.c.id == key).values(secret))
            before = _values(old) | {"id": fresh.id, "expires": ends, "successor": key, "changed": serial, "created": now}
            await connection.execute(insert(keys).values(before | {"removed": None if overlap > 0 else now}))
            return await _key(connection, key, now)

    async def remove_key(self, key: str, now: float) -> None:
        """With the secrets it had before. Raises MissingError."""
        keys = tables.keys
        async with writing(self._engine) as connection:
            gone = {"changed": await _next(connection), "removed": now}
            await _key(connection, key, now)
            await connection.execute(update(keys).where(or_(keys.c.id == key, keys.c.successor == key), keys.c.removed.is_(None)).values(gone))


# -- statements ----------------------------------------------------------------------------------------------------


async def _next(connection: AsyncConnection) -> int:
    """The serial of this change. Whoever has it is alone until the transaction ends."""
    revision = tables.revision
    statement = update(revision).where(revision.c.id == 1).values(serial=revision.c.serial + 1).returning(revision.c.serial)
    return int((await connection.execute(statement)).scalar_one())


async def _row(connection: AsyncConnection, kind: Kind, names: tuple[str, ...]) -> Row[Any]:
    table = TABLES[kind]
    row = (await connection.execute(select(table).where(_named(kind, names), table.c.removed.is_(None)))).first()
    if row is None:
        raise MissingError
    return row


async def _key(connection: AsyncConnection, key: str, now: float) -> Stored:
    keys = tables.keys
    statement = select(keys).where(keys.c.id == key, keys.c.removed.is_(None), keys.c.successor.is_(None))
    row = (await connection.execute(statement)).first()
    if row is None:
        raise MissingError
    return _stored(Key, row, (await _overlaps(connection, [key], now)).get(key, ()))


async def _overlaps(connection: AsyncConnection, ids: list[str], now: float) -> dict[str, tuple[float, ...]]:
    keys = tables.keys
    statement = select(keys.c.successor, keys.c.expires).where(keys.c.successor.in_(ids), keys.c.removed.is_(None), keys.c.expires > now)
    found: dict[str, tuple[float, ...]] = {}
    for row in await connection.execute(statement.order_by(keys.c.expires)):
        found[row.successor] = (*found.get(row.successor, ()), row.expires)
    return found


def _export(connection: Connection, path: Path, state: tuple[int, bytes], now: float) -> None:
    """state: serial and mark."""

    def rows(kind: type, statement: Select[Any]) -> Iterator[tuple[bytes, bytes]]:
        for row in connection.execute(statement.execution_options(yield_per=AT_ONCE)):
            record = _record(kind, row)
            yield position(record), msgspec.msgpack.encode(record)

    keys = tables.keys
    alive = {kind: select(table).where(table.c.removed.is_(None)) for kind, table in TABLES.items()}
    alive[Key] = alive[Key].where(or_(keys.c.successor.is_(None), keys.c.expires > now))
    entries = chain.from_iterable(rows(kind, statement) for kind, statement in alive.items())
    files.write(path, chain([(MARK, state[1])], entries), state[0])


# -- rows and records ------------------------------------------------------------------------------------------------


def _names(record: Tenant | Project | User) -> tuple[str, ...]:
    return (record.name,) if isinstance(record, Tenant) else (record.tenant, record.name)


def _named(kind: Kind, names: tuple[str, ...]) -> ColumnElement[bool]:
    table = TABLES[kind]
    columns = (table.c.name,) if kind is Tenant else (table.c.tenant, table.c.name)
    return and_(*(column == name for column, name in zip(columns, names, strict=True)))


def _stored(kind: type, row: Row[Any], overlaps: tuple[float, ...] = ()) -> Stored:
    return Stored(cast("Record", _record(kind, row)), row.created, row.created_by if kind is Key else "", overlaps)


def _values(record: Record) -> dict[str, Any]:
    """Its columns."""
    match record:
        case Tenant(name, grant, each_user, each_key, disabled, secrets):
            each = {"each_user": _json(each_user), "each_key": _json(each_key), "secrets": _json(secrets)}
            return {"name": name, "grant": _json(grant), "disabled": disabled, **each}
        case Project(tenant, name, grant, disabled) | User(tenant, name, grant, disabled):
            return {"tenant": tenant, "name": name, "grant": _json(grant), "disabled": disabled}
        case Key():
            same = ("id", "name", "tenant", "project", "user", "expires", "disabled")
            written = {name: _json(getattr(record, name)) for name in ("grant", "ips", "scopes")}
            return {name: getattr(record, name) for name in same} | written | {"digest": record.digest or None, "aws": record.aws or None}


def _record(kind: type, row: Row[Any]) -> Entry:
    """Of a rotated key's secret of before: the key itself, by that secret."""
    if kind is Key:
        grant = _grant(row.grant) if row.grant is not None else None
        return Key(
            id=row.successor or row.id, name=row.name, digest=row.digest or b"", aws=row.aws or "", tenant=row.tenant, project=row.project,
            user=row.user, grant=grant, expires=row.expires, ips=msgspec.json.decode(row.ips, type=tuple[str, ...]),
            scopes=msgspec.json.decode(row.scopes, type=tuple[Scope, ...]), disabled=row.disabled,
        )  # fmt: skip
    if kind is Tenant:
        each_user, each_key = (_grant(text) if text is not None else None for text in (row.each_user, row.each_key))
        return Tenant(row.name, _grant(row.grant), each_user, each_key, row.disabled, _sealed(row))
    if kind is Secrets:
        return Secrets(row.tenant, _sealed(row))
    return (Project if kind is Project else User)(row.tenant, row.name, _grant(row.grant), row.disabled)


def _sealed(row: Row[Any]) -> dict[str, str]:
    return msgspec.json.decode(row.secrets, type=dict[str, str])


def _grant(text: str) -> Grant:
    return msgspec.json.decode(text, type=Grant)


def _json(value: object) -> str | None:
    return msgspec.json.encode(value).decode() if value is not None else None
