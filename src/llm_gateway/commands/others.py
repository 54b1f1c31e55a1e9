"""All commands but those that must be quick."""

from __future__ import annotations

import json

import typer

from llm_gateway.commands import audit, database, keys, orders, tenants, usage, written
from llm_gateway.commands.explain import explain
from llm_gateway.commands.journal import journal
from llm_gateway.config import schema_json


def add_to(app: typer.Typer) -> None:
    for command in (explain, schema, orders.reload, journal):
        app.command()(command)
    some = typer.Typer(help="API keys of clients.", no_args_is_help=True)
    some.command("hash")(written.hash_key)
    some.command("new")(written.new_key)
    keys.add_to(some)
    app.add_typer(some, name="keys")
    app.add_typer(tenants.app(), name="tenants")
    app.add_typer(orders.cache(), name="cache")
    app.add_typer(audit.app(), name="audit")
    app.add_typer(usage.app(), name="usage")
    app.add_typer(database.app(), name="db")


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    print(json.dumps(schema_json.document(), indent=2))
