"""`llm-gateway explain`: where a request would go, by what the running gateway knows, or by the configuration alone."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from llm_gateway.commands.calls import load_keyed, running
from llm_gateway.commands.reading import ConfigOption, compiled, read
from llm_gateway.explaining import Asked, by_configuration
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.routing.explain import lines


def explain(
    model: Annotated[str, typer.Argument(help="What a client would put under `model`.")],
    *,
    prompt: Annotated[str, typer.Option(help="What it would say.")] = "Hello",
    request: Annotated[Path | None, typer.Option(help="A JSON file with the rest of its request.")] = None,
    path: Annotated[str, typer.Option(help="The API it would call.")] = "/v1/chat/completions",
    key: Annotated[str, typer.Option(help="The name or id of its key.")] = "",
    header: Annotated[list[str] | None, typer.Option(help="`name: value`, such as `x-gateway-tags: batch`; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="By the configuration alone, not by what the running gateway knows.")] = False,
    config: ConfigOption = None,
) -> None:
    """Say where a request would go, in which order and why, without sending it."""
    body: dict[str, object] = {"messages": [{"role": "user", "content": prompt}]}
    if request is not None:
        body = _rest(request)
    headers = {name.strip(): value.strip() for name, _, value in (each.partition(":") for each in header or ())}
    asked = {"request": {**body, "model": model}, "path": path, "key": key, "headers": headers}
    told = None if offline else _ask_running(config, asked)
    if told is None:
        print("no gateway is running: by the configuration alone" if not offline else "by the configuration alone", file=sys.stderr)
        told = _ask_configuration(config, asked, keyed=bool(key) and not offline)
    if "error" in told:
        print(told["error"]["message"], file=sys.stderr)
        raise typer.Exit(1)
    print(json.dumps(told, indent=2) if as_json else "\n".join(lines(told)))
    if told["refusal"] is not None:
        raise typer.Exit(1)


def _rest(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds no JSON object")
    return found


def _ask_running(config: str | None, asked: dict[str, Any]) -> dict[str, Any] | None:
    """None if no gateway answers."""
    try:
        _, text = running(read(config), "POST", "/admin/v1/explain", json.dumps(asked))
        told = json.loads(text)
    except (OSError, http.client.HTTPException, ValueError):  # others may listen there
        return None
    if not isinstance(told, dict) or not isinstance(told.get("error", {}), dict):
        return None
    return cast("dict[str, Any]", told)


def _ask_configuration(config: str | None, asked: dict[str, Any], *, keyed: bool) -> dict[str, Any]:
    """keyed: the key may be of the gateway's database."""
    catalogue = load_catalogue()
    loaded, _, made = compiled(config, catalogue, write=False)
    body, at, directory = json.dumps(asked["request"]).encode(), b"", None
    if keyed and not any(asked["key"] in (each.name, each.id) for each in made.snapshot.keys):
        try:
            at, directory = asyncio.run(load_keyed()(loaded, asked["key"]))
        except ValueError as error:
            return {"error": {"message": str(error)}}
    return by_configuration(made.snapshot, catalogue, Asked(asked["path"], asked["headers"], body, asked["key"], at), directory)
