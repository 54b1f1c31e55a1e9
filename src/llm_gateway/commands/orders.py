"""What the running gateway is told to do: `llm-gateway reload`, `llm-gateway cache purge`."""

from __future__ import annotations

import http.client
import json
import sys
from typing import Annotated

import typer

from llm_gateway.commands.calls import running
from llm_gateway.commands.reading import ConfigOption, address, read


def cache() -> typer.Typer:
    made = typer.Typer(help="The response cache.", no_args_is_help=True)
    made.callback()(_together)
    made.command("purge")(purge_cache)
    return made


def reload(config: ConfigOption = None) -> None:
    """Have the running gateway read its configuration again, and say what came of it."""
    _order(config, "/admin/v1/reload")


def _together() -> None:
    """A group of one command stays a group."""


def purge_cache(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's replies.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's: as clients name it, or the provider's own name.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those whose request bore this tag (`x-gateway-tags`).")] = None,
    config: ConfigOption = None,
) -> None:
    """Have the running gateway forget replies; all of them, if nothing is said."""
    _order(config, "/admin/v1/cache/purge", json.dumps({"tenant": tenant, "model": model, "tag": tag}))


def _order(config: str | None, path: str, body: str | None = None) -> None:
    """Prints what the running gateway says; fails where it refuses or is not there."""
    loaded = read(config)
    try:
        status, text = running(loaded, "POST", path, body)
        if not isinstance(json.loads(text), dict):
            raise http.client.HTTPException("what answers is no gateway")  # others may listen there, and answer everything with 200
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"no gateway answers on {address(loaded)}: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(text)
    if status != 200:
        raise typer.Exit(1)
