"""Who was made at run time, as a worker knows them: the key table that the operator wrote, and what changed since.

Law: reads what it is given and writes nothing. Deltas come before the table, the newest first; one that the table holds already is
dropped, whichever of the two arrives first. A table from before the gateway's last start is good enough to say what tenants may use,
but opens no door: a key in it may have been revoked meanwhile, elsewhere. A damaged table is not taken; a record that is damaged
refuses whoever needs it, since what it restricted is not known.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.tenancy import Entry, Key, Record, Secrets, place, secrets_id
from llm_gateway.stores.tables import Table, TableError, identity

KEYS = "keys.table"  # in data_dir


class Directory:
    """`confirmed`: the operator has said which table holds. `awaited`: it is going to."""

    def __init__(self) -> None:
        self.confirmed = False
        self.awaited = False
        self.serial = 0
        self.changes = 0  # since it was made: whoever remembers what was found here looks again when that has grown
        self._table: Table | None = None
        self._delta: dict[bytes, bytes | None] = {}
        self._decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)

    def __repr__(self) -> str:
        return f"<Directory: {self._table!r}, {len(self._delta)} since, {'' if self.confirmed else 'not '}confirmed>"

    def holds(self, path: Path) -> bool:
        """Whether it is this very file that is open, and the operator has said so."""
        return self.confirmed and self._table is not None and self._table.file == identity(path)

    def open(self, path: Path, *, confirmed: bool = True) -> str:
        """Reads that table from now on; returns why it cannot, "" if it does. The old one stays then."""
        try:
            table = Table(path)
        except (TableError, OSError) as error:
            return str(error)
        self._table, self.confirmed = table, confirmed
        self.serial, self._delta = table.serial, {}
        self.changes += 1
        return ""

    def change(self, serial: int, entries: dict[bytes, bytes | None]) -> bool:
        """False where the table is newer than that."""
        if serial <= self.serial:
            return False
        self._delta |= entries
        self.changes += 1
        return True

    def key(self, at: bytes) -> Key | None:
        """The key with that digest, or the signer at that place."""
        record = self._record(at) if self.confirmed else None
        return record if isinstance(record, Key) else None

    def find(self, holder: str) -> Record | None:
        """The tenant, project or user of that id."""
        record = self._record(place(holder))
        return record if not isinstance(record, Secrets) else None

    def secrets(self, tenant: str) -> dict[str, str]:
        """Of a tenant that config.yaml defines, its own keys at providers, sealed; {} where it has none."""
        record = self._record(place(secrets_id(tenant)))
        return record.secrets if isinstance(record, Secrets) else {}

    def _record(self, at: bytes) -> Entry | None:
        value = self._delta[at] if at in self._delta else self._stored(at)
        return self._decoder.decode(value) if value is not None else None

    def _stored(self, at: bytes) -> bytes | None:
        if self._table is None:
            return None
        try:
            return self._table.get(at)
        except TableError as error:
            raise Fault(Kind.UNAVAILABLE, "The gateway cannot read who may do what. Its operator has to look.", code="directory_damaged") from error
