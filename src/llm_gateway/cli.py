"""`llm-gateway`: what a person types.

Law: commands are the only place that reads the process's environment and working directory for configuration, and the only one that
prints for people. `serve` turns into the supervisor by exec, so that nothing imported here stays in memory; and since everybody waits for
it, and for `check`, no other command's imports come before theirs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from llm_gateway import __version__
from llm_gateway.commands.reading import DEFAULT, ConfigOption, address, compiled, configuration, refused
from llm_gateway.config import helping, present
from llm_gateway.config.problems import ConfigError
from llm_gateway.config.snapshot import Operator
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.supervisor import boot
from llm_gateway.supervisor.plan import Address, Plan, encode

ConfigArgument = Annotated[str | None, typer.Argument(metavar="[FILE]", help=f"The file; ./{DEFAULT} if it is there.")]


def main() -> None:
    app = typer.Typer(
        name="llm-gateway", help="One API in front of many LLM providers.", no_args_is_help=True, add_completion=False
    )
    for command in (serve, check, version):
        app.command()(command)
    if sys.argv[1:2] not in (["serve"], ["check"], ["version"]):
        load_others()(app)
    try:
        app()
    except ConfigError as error:
        sys.exit(refused(error).exit_code)
    except OSError as error:  # a file that this user may not read, a full disk behind standard output
        sys.exit(f"llm-gateway: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def load_others() -> Callable[[typer.Typer], None]:
    from llm_gateway.commands.others import add_to  # noqa: PLC0415  half a second

    return add_to


def serve(config: ConfigOption = None) -> None:
    """Run the gateway until SIGTERM (drains) or Ctrl-C."""
    catalogue = load_catalogue()
    loaded, material, made = compiled(config, catalogue, write=True)
    for warning in (*made.warnings, present.interpreter()):
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    snapshot, path = made.snapshot, configuration(config)
    operator = Operator(
        str(Path(path).absolute()) if path is not None else None, material.admin_token, time.monotonic(), made.webhooks, made.database,
        loaded.files, (address(loaded).host, address(loaded).port),
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
    loaded, _, made = compiled(config, load_catalogue(), write=False)
    print(present.report(configuration(config) or "environment", loaded, made.snapshot, made.warnings))


def version() -> None:
    """Print the version."""
    print(__version__)


def _module(name: str) -> tuple[str, ...]:
    """-P: a file in the working directory must not stand in for a module of ours."""
    return (sys.executable, "-P", "-m", name)
