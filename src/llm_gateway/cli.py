"""`llm-gateway`: what a person types.

Law: the only place that reads the process's environment and working directory for configuration, and the only one that
prints for people. `serve` turns into the supervisor by exec, so that nothing imported here stays in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from llm_gateway import __version__
from llm_gateway.accounting.journal import read
from llm_gateway.accounting.summary import Summary
from llm_gateway.admission.auth import aws_secret
from llm_gateway.commands import audit, database, tenants, usage
from llm_gateway.commands import keys as key_commands
from llm_gateway.commands.calls import DEFAULT, INVALID, ConfigOption, address, configuration, load_keyed, running
from llm_gateway.config import helping, present, schema_json
from llm_gateway.config.compile import Compiled, compile_snapshot
from llm_gateway.config.load import Loaded, load
from llm_gateway.config.material import Material, imagined, prepare
from llm_gateway.config.problems import ConfigError
from llm_gateway.config.snapshot import Operator
from llm_gateway.config.tenancy import key_digest
from llm_gateway.explaining import Asked, by_configuration
from llm_gateway.models.catalogue import Catalogue, load_catalogue
from llm_gateway.routing.explain import lines
from llm_gateway.supervisor import boot
from llm_gateway.supervisor.plan import Address, Plan, encode

ConfigArgument = Annotated[str | None, typer.Argument(metavar="[FILE]", help=f"The file; ./{DEFAULT} if it is there.")]


def main() -> None:
    app = typer.Typer(
        name="llm-gateway", help="One API in front of many LLM providers.", no_args_is_help=True, add_completion=False
    )
    for command in (serve, check, explain, schema, reload, journal, version):
        app.command()(command)
    keys = typer.Typer(help="API keys of clients.", no_args_is_help=True)
    keys.command("hash")(hash_key)
    keys.command("new")(new_key)
    key_commands.add_to(keys)
    app.add_typer(keys, name="keys")
    app.add_typer(tenants.app(), name="tenants")
    cache = typer.Typer(help="The response cache.", no_args_is_help=True)
    cache.callback()(_together)
    cache.command("purge")(purge_cache)
    app.add_typer(cache, name="cache")
    app.add_typer(audit.app(configuration), name="audit")
    app.add_typer(usage.app(), name="usage")
    app.add_typer(database.app(), name="db")
    app()


def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM (drains) or Ctrl-C."""
    path = configuration(config)
    catalogue = load_catalogue()
    loaded, material, compiled = _compile(path, catalogue, write=True)
    for warning in (*compiled.warnings, present.interpreter()):
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    snapshot = compiled.snapshot
    operator = Operator(
        str(Path(path).absolute()) if path is not None else None, material.admin_token, time.monotonic(), compiled.webhooks, compiled.database
    )
    plan = Plan(
        workers=snapshot.workers,
        listeners=tuple(
            Address(
                each.host,
                each.port or 0,
                each.path,
                "server.port (SERVER_PORT)" if each.path is None else "server.unix_socket",
            )
            for each in snapshot.server.listeners
        ),
        metrics=address(loaded),
        worker=_module("llm_gateway.worker"),
        operator=_module("llm_gateway.operator"),
        snapshot=boot.create(msgspec.msgpack.encode(snapshot)),
        state=boot.create(msgspec.msgpack.encode(operator)),
        lame_duck=snapshot.server.lame_duck,
        drain_timeout=snapshot.server.drain_timeout,
        log_format=snapshot.logging.format,
        quiet=snapshot.logging.level in ("warn", "error"),
        banner=present.banner(snapshot, material, catalogue),
        helper=_module("llm_gateway.helper") if helping.wanted(loaded.root, snapshot) else (),
    )
    if snapshot.workers > 1 and sys.platform == "darwin":
        print("warning: macOS does not spread connections over workers; use one", file=sys.stderr)
    plan_fd = boot.create(encode(plan))
    for fd in (plan.snapshot, plan.state, plan_fd):
        os.set_inheritable(fd, True)
    argv = [*_module("llm_gateway.supervisor"), "--plan", str(plan_fd)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(argv[0], argv)  # noqa: S606  our own interpreter and module


def check(config: ConfigArgument = None) -> None:
    """Validate a configuration, say everything that is wrong with it, and print where each model leads."""
    path = configuration(config)
    loaded, _, compiled = _compile(path, load_catalogue(), write=False)
    print(present.report(path or "environment", loaded, compiled.snapshot, compiled.warnings))


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
        body = json.loads(request.read_text())
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


def _ask_running(config: str | None, asked: dict[str, Any]) -> dict[str, Any] | None:
    """None if no gateway answers."""
    try:
        _, text = running(_load(configuration(config)), "POST", "/admin/v1/explain", json.dumps(asked))
    except OSError:
        return None
    return cast("dict[str, Any]", json.loads(text))


def _ask_configuration(config: str | None, asked: dict[str, Any], *, keyed: bool) -> dict[str, Any]:
    """keyed: the key may be of the gateway's database."""
    catalogue = load_catalogue()
    loaded, _, compiled = _compile(configuration(config), catalogue, write=False)
    body, at, directory = json.dumps(asked["request"]).encode(), b"", None
    if keyed and not any(asked["key"] in (each.name, each.id) for each in compiled.snapshot.keys):
        try:
            at, directory = asyncio.run(load_keyed()(loaded, asked["key"]))
        except ValueError as error:
            return {"error": {"message": str(error)}}
    return by_configuration(compiled.snapshot, catalogue, Asked(asked["path"], asked["headers"], body, asked["key"], at), directory)


def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    print(json.dumps(schema_json.document(), indent=2))


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
    loaded = _load(configuration(config))
    try:
        status, text = running(loaded, "POST", path, body)
    except OSError as error:
        print(f"no gateway answers on {address(loaded)}: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(text)
    if status != 200:
        raise typer.Exit(1)


def hash_key(config: ConfigOption = None) -> None:
    """Turn a client's key (asked for, or on standard input) into the `digest` that config.yaml may hold instead of it."""
    loaded = _load(configuration(config))
    try:
        material = prepare(loaded.root, loaded.root.data_dir)
    except ConfigError as error:
        raise _refuse(error) from error
    key = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    print(f"digest: {key_digest(material.secret, key).hex()}")


def new_key(
    name: Annotated[str, typer.Argument(help="What the key is called in logs.")] = "client",
    aws: Annotated[bool, typer.Option("--aws", help="AWS credentials instead, for clients of Bedrock's API.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a key, and the entry that config.yaml needs for it. The key is shown once and kept nowhere."""
    if aws:
        loaded = _load(configuration(config))
        try:
            material = prepare(loaded.root, loaded.root.data_dir)
        except ConfigError as error:
            raise _refuse(error) from error
        key_id = "AKGW" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
        print(f"# AWS_ACCESS_KEY_ID={key_id}\n# AWS_SECRET_ACCESS_KEY={aws_secret(material.secret, key_id)}")
        print(f"keys:\n  - {{name: {json.dumps(name)}, aws: {key_id}}}")
        return
    print(f"keys:\n  - {{name: {json.dumps(name)}, key: {json.dumps('sk-' + secrets.token_urlsafe(32))}}}")


def journal(
    data_dir: Annotated[str | None, typer.Option(help="Where the journal is; the configuration's, if not given.")] = None,
    since: Annotated[str | None, typer.Option(help="A time (2026-01-31, 2026-01-31T12:00Z), or 30m, 24h, 7d ago.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Only what all of it adds up to.")] = False,
    config: ConfigOption = None,
) -> None:
    """Print usage rows as JSON lines, and to standard error what they add up to by model."""
    folder = Path(data_dir or _load(configuration(config)).root.data_dir) / "journal"
    first = _moment(since) if since is not None else ""
    added = Summary()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends us without a word
    try:
        for row in read(folder):
            if row["ts"] >= first:
                added.add(row)
                if not summary:
                    print(msgspec.json.encode(row).decode())
    except ValueError as error:
        print(f"the journal is damaged: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print("\n".join(added.lines()), file=sys.stdout if summary else sys.stderr)


def version() -> None:
    """Print the version."""
    print(__version__)


def _moment(text: str) -> str:
    """As rows write it, so that the two compare as text."""
    ago = re.fullmatch(r"(\d+)([smhd])", text)
    try:
        if ago is not None:
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
            moment = datetime.now(UTC) - timedelta(**{unit: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00Z, 30m, 24h or 7d") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _load(path: str | None) -> Loaded:
    try:
        return load(path, os.environ)
    except ConfigError as error:
        raise _refuse(error) from error


def _compile(path: str | None, catalogue: Catalogue, *, write: bool) -> tuple[Loaded, Material, Compiled]:
    """Nothing is written to `data_dir` before the configuration is known to be good."""
    loaded = _load(path)
    try:
        material = imagined(loaded.root)
        compiled = compile_snapshot(loaded, os.environ, material, catalogue.resolve, 1)
        if write:
            material = prepare(loaded.root, compiled.snapshot.data_dir, serving=True)
            compiled = compile_snapshot(loaded, os.environ, material, catalogue.resolve, 1)
    except ConfigError as error:
        raise _refuse(error) from error
    return loaded, material, compiled


def _refuse(error: ConfigError) -> typer.Exit:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count != 1 else ''} in the configuration", file=sys.stderr)
    return typer.Exit(INVALID)


def _module(name: str) -> tuple[str, ...]:
    """-P: a file in the working directory must not stand in for a module of ours."""
    return (sys.executable, "-P", "-m", name)
