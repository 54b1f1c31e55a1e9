"""Who there is, as the operator's part of it: the database, the API that changes it, and the table that tells workers.

Law: wiring of admin/{database,keytable,roles,tenancy,secrets,keys}; decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from starlette.routing import Route

from llm_gateway.admin.database import Database
from llm_gateway.admin.keys import ClientKeys
from llm_gateway.admin.keytable import KeyTable, Workers
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.roles import Roles
from llm_gateway.admin.secrets import ProviderKeys
from llm_gateway.admin.tenancy import Ground, Members, Tenants
from llm_gateway.admission.tokens import Tokens
from llm_gateway.admission.vault import Vault
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.tenancy import Project, User
from llm_gateway.stores.sql.directory import Register
from llm_gateway.supervisor.channel import Delta


def wall() -> float:
    """Unix seconds."""
    return time.time_ns() / 1e9


def _look_elsewhere(_issuer: str) -> None:
    return


class Registry:
    """state: the admin token and the configuration in force. workers: None where none run, and nobody has to be told. want: told of an issuer
    whose newest keys are wanted."""

    def __init__(
        self, database: Database, workers: Workers | None, notices: Notices, state: Callable[[], tuple[str, Snapshot]], *,
        want: Callable[[str], object] = _look_elsewhere,
    ) -> None:  # fmt: skip
        _, snapshot = state()
        register = Register(database.engine)
        self.table = KeyTable(register, Path(snapshot.data_dir), workers or _Nobody(), notices, ready=database.ready, clock=wall)
        self.roles = Roles(state, self.table.directory, Tokens(want), wall)
        look, kept = (self.table.try_to_look, self.table.kept) if workers is not None else (_look_away, self.table.write)
        self.ground = ground = Ground(
            register, self.roles, lambda: state()[1], ready=database.ready, told=notices.say, clock=wall, look=look, kept=kept,
        )  # fmt: skip
        members = (Members(ground, Project), Members(ground, User))
        self._resources = (Tenants(ground), ProviderKeys(ground, Vault(snapshot.secret)), *members, ClientKeys(ground, snapshot.secret))

    def routes(self) -> list[Route]:
        return [route for each in self._resources for route in each.routes()]


class _Nobody:
    """No workers."""

    differences = 0

    def table(self, keys: str, serial: int, *, anew: bool = False) -> None: ...
    def absent(self) -> None: ...
    def differ(self, delta: Delta) -> None: ...


async def _look_away() -> None:
    return
