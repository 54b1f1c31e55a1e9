"""`llm-gateway audit`: whether the audit log is what was written, and what it says.

Law: reads files only; a running gateway is not needed, and not disturbed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from llm_gateway.commands.reading import ConfigOption, sound
from llm_gateway.config.material import SECRET
from llm_gateway.telemetry.audit import read
from llm_gateway.telemetry.audit import verify as check
from llm_gateway.telemetry.trail import Wanted

DataDirOption = Annotated[str | None, typer.Option("--data-dir", help="Where the gateway keeps its things; the configuration's, if not given.")]


def app() -> typer.Typer:
    made = typer.Typer(help="The audit log.", no_args_is_help=True)
    made.command("verify")(verify)
    made.command("show")(show)
    return made


def verify(data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Check every line's hash and place. Fails, and names the first line, where something was changed, taken out or put in."""
    folder, secret = _place(data_dir, config)
    found = check(folder, secret)
    if found.broken:
        print(f"BROKEN at {found.broken}; {found.lines} lines before it hold")
        raise typer.Exit(1)
    since = f", from number {found.first} on: what was before is not here" if found.first > 1 else ""
    print(f"{found.lines} lines hold{since}; the last is number {found.last}")


def show(
    since: Annotated[str, typer.Option(help="Only lines from this time on, such as 2026-01-31.")] = "",
    until: Annotated[str, typer.Option(help="Only lines before this time.")] = "",
    kind: Annotated[str, typer.Option(help="Only change, refused, request or reload.")] = "",
    actor: Annotated[str, typer.Option(help="Only what this one did, such as `admin token`.")] = "",
    action: Annotated[str, typer.Option(help="Only what has this in its action, such as /admin/v1/keys.")] = "",
    tenant: Annotated[str, typer.Option(help="Only what is about this tenant.")] = "",
    *,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Print lines as JSON, the oldest first."""
    folder, _ = _place(data_dir, config)
    wanted = Wanted(since, until, kind, actor, action, tenant)
    for line in filter(wanted.has, read(folder)):
        print(json.dumps(line))


def _place(data_dir: str | None, config: str | None) -> tuple[Path, bytes]:
    """The log's folder, and the secret it was written with."""
    root = sound(config).root
    folder = Path(data_dir or root.data_dir)
    if not (folder / "audit").is_dir():
        raise typer.BadParameter(f"there is no audit log in {folder}")
    kept = folder / SECRET
    if root.secret is None and not kept.is_file():
        raise typer.BadParameter(f"it was written with a secret that is not here: neither `secret` nor {kept}")
    return folder / "audit", (root.secret.get_secret_value() if root.secret is not None else kept.read_text().strip()).encode()
