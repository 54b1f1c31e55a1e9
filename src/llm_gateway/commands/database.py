"""`llm-gateway db`: the database's tables, which a start brings up to date by itself.

Law: opens the database that the configuration names, whether or not a gateway runs: migrations are made under a lock, and are such that
an older gateway works on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import typer

from llm_gateway.commands.reading import ConfigOption, sound
from llm_gateway.config.state import address


def app() -> typer.Typer:
    made = typer.Typer(help="The database's tables.", no_args_is_help=True)
    made.command("status")(status)
    made.command("upgrade")(upgrade)
    return made


def status(config: ConfigOption = None) -> None:
    """Say which revision the database is at, and which are pending. Fails where some are."""
    found = _asked(config, "status")
    known = "newer than this gateway, which is fine" if found.newer else ", ".join(found.pending) or "nothing"
    print(f"at {found.present or 'nothing'}; this gateway knows {found.newest}; pending: {known}")
    if found.pending:
        raise typer.Exit(1)


def upgrade(config: ConfigOption = None) -> None:
    """Bring the database to this gateway's tables. Nothing is dropped."""
    found = _asked(config, "upgrade")
    print(f"done: {', '.join(found.pending)}" if found.pending else "nothing to do")


def _asked(config: str | None, what: str) -> Any:
    """Ends the command where the configuration is wrong or nobody answers."""
    done, told = asyncio.run(load_migrations()(address(sound(config).root), what))
    if not done:
        print(f"the database does not answer: {told}", file=sys.stderr)
        raise typer.Exit(1)
    return told


def load_migrations() -> Callable[[str, str], Coroutine[Any, Any, tuple[bool, Any]]]:
    from llm_gateway.commands.migrations import asked  # noqa: PLC0415  half a second, for these two commands alone

    return asked
