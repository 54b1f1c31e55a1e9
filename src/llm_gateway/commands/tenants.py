"""`llm-gateway tenants`: tenants, and with `--project` or `--user` one of theirs, as the admin API has them.

Law: as keys.py.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from llm_gateway.commands.calls import JsonOption, at, call, every
from llm_gateway.commands.grants import (
    BudgetOption,
    LimitOption,
    ModelOption,
    OutputOption,
    RegionOption,
    UnsetOption,
    given,
    printed,
    said,
    table,
    taken_back,
)
from llm_gateway.commands.reading import ConfigOption

PATH = "/admin/v1/tenants"
COLUMNS = ("name", "enabled", "limits", "budgets", "models", "source")
SECRET_COLUMNS = ("provider", "source", "used")

NameArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Its name.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="This project of it, instead of itself.")]
UserOption = Annotated[str | None, typer.Option("--user", help="This user of it, instead of itself.")]
EnabledOption = Annotated[bool | None, typer.Option("--enable/--disable", help="Let its keys be used, or not.")]


def app() -> typer.Typer:
    made = typer.Typer(help="Tenants, their projects and users, and what they may use.", no_args_is_help=True)
    for name, command in (("create", create), ("list", rows), ("show", show), ("set", change), ("delete", delete), ("secret", secret)):
        made.command(name)(command)
    return made


def create(
    tenant: NameArgument,
    *,
    project: ProjectOption = None,
    user: UserOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    model: ModelOption = None,
    region: RegionOption = None,
    max_output_tokens: OutputOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a tenant; with --project or --user, one of those."""
    path, name = _where(tenant, project, user)
    made = {"name": name} | said(limit, budget, model, region, max_output_tokens)
    printed(call(config, "POST", path.rpartition("/")[0], made), as_json=as_json)


def rows(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="Whose projects or users.")] = None,
    *,
    users: Annotated[bool, typer.Option("--users", help="Its users, instead of its projects.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List tenants: those of config.yaml too. With a tenant, list its projects."""
    found = every(config, PATH if tenant is None else at(PATH, tenant, "users" if users else "projects"))
    print(json.dumps(found, indent=2) if as_json else table(found, COLUMNS))


def show(tenant: NameArgument, project: ProjectOption = None, user: UserOption = None, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show all of one."""
    printed(call(config, "GET", _where(tenant, project, user)[0]), as_json=as_json)


def change(
    tenant: NameArgument,
    *,
    project: ProjectOption = None,
    user: UserOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    model: ModelOption = None,
    region: RegionOption = None,
    max_output_tokens: OutputOption = None,
    enabled: EnabledOption = None,
    unset: UnsetOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change what it may use. Lists replace those that were; limits are changed one by one."""
    own = said(limit, budget, model, region, max_output_tokens) | given(enabled=enabled)
    printed(call(config, "PATCH", _where(tenant, project, user)[0], taken_back(unset) | own), as_json=as_json)


def delete(
    tenant: NameArgument,
    project: ProjectOption = None,
    user: UserOption = None,
    cascade: Annotated[bool, typer.Option("--cascade", help="Its keys too; refused without, while there are some.")] = False,
    config: ConfigOption = None,
) -> None:
    """Delete it."""
    call(config, "DELETE", _where(tenant, project, user)[0], None, {"cascade": "true" if cascade else None})


def secret(
    tenant: NameArgument,
    provider: Annotated[str | None, typer.Argument(metavar="[PROVIDER]", help="As it is called in config.yaml.")] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take it back.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Entrust the gateway with a tenant's own key at a provider (asked for, or on standard input). It is kept encrypted. Without PROVIDER, list
    where it has some."""
    path = at(PATH, tenant, "secrets")
    if provider is None:
        if remove:
            raise typer.BadParameter("say of which provider")
        found = call(config, "GET", path)["data"]
        print(json.dumps(found, indent=2) if as_json else table(found, SECRET_COLUMNS))
        return
    path = at(path, provider)
    if remove:
        call(config, "DELETE", path)
        return
    key = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    call(config, "PUT", path, {"key": key})


def _where(tenant: str, project: str | None, user: str | None) -> tuple[str, str]:
    """Path and name of what is meant."""
    if project is not None and user is not None:
        raise typer.BadParameter("say --project or --user, not both")
    kind, name = ("projects", project) if project is not None else ("users", user)
    return (at(PATH, tenant), tenant) if name is None else (at(PATH, tenant, kind, name), name)
