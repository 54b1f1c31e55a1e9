"""`llm-gateway keys`: clients' keys, as the admin API has them.

Law: says what was asked in the API's words and prints what it answers. A secret is printed once, and kept nowhere.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from llm_gateway.commands.calls import Body, JsonOption, at, call, every
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

PATH = "/admin/v1/keys"
COLUMNS = ("id", "name", "tenant", "project", "user", "scopes", "status", "expires", "source")
SECRETS = ("key", "aws_access_key_id", "aws_secret_access_key")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Such as key_0123456789abcdef, from `keys list`.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Whose; `default` if not said.")]
ProjectOption = Annotated[str | None, typer.Option("--project", help="The project it is for.")]
UserOption = Annotated[str | None, typer.Option("--user", help="The user who has it.")]
ExpiresOption = Annotated[str | None, typer.Option("--expires", help="2026-12-31 or 2026-12-31T12:00:00Z; never, if not said.")]
IpOption = Annotated[list[str] | None, typer.Option("--ip", help="A network it may come from, such as 10.0.0.0/8; any if none is said. May be repeated.")]
ScopeOption = Annotated[list[str] | None, typer.Option("--scope", help="inference, read or admin; inference, if none is said. May be repeated.")]


def add_to(group: typer.Typer) -> None:
    for name, command in (("create", create), ("list", rows), ("show", show), ("set", change), ("rotate", rotate), ("revoke", revoke), ("delete", delete)):
        group.command(name)(command)


def create(
    name: Annotated[str, typer.Argument(help="What the key is called in logs.")],
    *,
    tenant: TenantOption = None,
    project: ProjectOption = None,
    user: UserOption = None,
    expires: ExpiresOption = None,
    ip: IpOption = None,
    scope: ScopeOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    model: ModelOption = None,
    region: RegionOption = None,
    max_output_tokens: OutputOption = None,
    aws: Annotated[bool, typer.Option("--aws", help="AWS credentials instead, for clients of Bedrock's API.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a key. Its secret is shown once."""
    own = given(name=name, tenant=tenant, project=project, user=user, expires=expires, ips=ip, scopes=scope, aws=aws or None)
    _shown(call(config, "POST", PATH, own | said(limit, budget, model, region, max_output_tokens)), as_json=as_json)


def rows(
    *,
    tenant: TenantOption = None,
    project: ProjectOption = None,
    user: UserOption = None,
    name: Annotated[str | None, typer.Option(help="Only those called so.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--revoked", help="Only those that are, or are not.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List keys: those of config.yaml too."""
    wanted = None if enabled is None else "true" if enabled else "false"
    found = every(config, PATH, tenant=tenant, project=project, user=user, name=name, enabled=wanted)
    print(json.dumps(found, indent=2) if as_json else table(found, COLUMNS))


def show(key: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show all of one key but its secret."""
    printed(call(config, "GET", at(PATH, key)), as_json=as_json)


def change(
    key: IdArgument,
    *,
    name: Annotated[str | None, typer.Option(help="Call it so.")] = None,
    project: ProjectOption = None,
    user: UserOption = None,
    expires: ExpiresOption = None,
    ip: IpOption = None,
    scope: ScopeOption = None,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    model: ModelOption = None,
    region: RegionOption = None,
    max_output_tokens: OutputOption = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Let it be used, or not.")] = None,
    unset: UnsetOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change what a key may do. Lists replace those that were; limits are changed one by one."""
    own: dict[str, Any] = given(name=name, project=project, user=user, expires=expires, ips=ip, scopes=scope, enabled=enabled)
    own |= said(limit, budget, model, region, max_output_tokens)
    printed(call(config, "PATCH", at(PATH, key), taken_back(unset) | own), as_json=as_json)


def rotate(
    key: IdArgument,
    overlap: Annotated[str, typer.Option(help="For how long the secret of before works, too, such as 30m or 24h; at most 31 days.")] = "0",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Give a key a new secret, shown once. Its id, limits and spending stay."""
    _shown(call(config, "POST", at(PATH, key, "rotate"), {"overlap_seconds": overlap}), as_json=as_json)


def revoke(key: IdArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Refuse a key from now on, everywhere; it stays in the list."""
    printed(call(config, "POST", at(PATH, key, "revoke")), as_json=as_json)


def delete(key: IdArgument, config: ConfigOption = None) -> None:
    """Refuse a key from now on, and take it out of the list."""
    call(config, "DELETE", at(PATH, key))


def _shown(made: Body, *, as_json: bool) -> None:
    if as_json:
        printed(made, as_json=True)
        return
    print("# shown once:")
    for name in SECRETS:
        if name in made:
            print(f"{name.upper() if name != 'key' else 'KEY'}={made[name]}")
    printed({name: value for name, value in made.items() if name not in SECRETS}, as_json=False)
