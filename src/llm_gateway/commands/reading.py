"""The configuration as a command reads it.

Law: whoever runs the command is told all that is wrong with it, and the command ends; nothing is written to `data_dir` before it is known to be good.
Only who looks for the gateway that runs takes it as it is: what is wrong with the file now is no reason why a key cannot be revoked there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llm_gateway.config.compile import Compiled, compile_snapshot
from llm_gateway.config.load import Loaded, load
from llm_gateway.config.material import Material, imagined, prepare
from llm_gateway.config.problems import ConfigError
from llm_gateway.models.catalogue import Catalogue
from llm_gateway.supervisor.plan import Address

DEFAULT = "config.yaml"
INVALID = 2
ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help=f"The file; ./{DEFAULT} if it is there, else the environment alone.")]


def configuration(given: str | None) -> str | None:
    """The file that is meant."""
    return given or (DEFAULT if Path(DEFAULT).is_file() else None)


def address(loaded: Loaded) -> Address:
    """The operator plane's."""
    server = loaded.root.server
    return Address(server.metrics_host or server.host, server.metrics_port, None, "server.metrics_port (METRICS_PORT)")


def read(config: str | None) -> Loaded:
    """Whatever can be made out; the rest has its defaults."""
    try:
        return load(configuration(config), os.environ)
    except ConfigError as error:
        raise refused(error) from error


def sound(config: str | None) -> Loaded:
    """Only where the schema has nothing against it."""
    loaded = read(config)
    if loaded.problems:
        raise refused(ConfigError(loaded.problems))
    return loaded


def compiled(config: str | None, catalogue: Catalogue, *, write: bool) -> tuple[Loaded, Material, Compiled]:
    """write: also makes what `data_dir` lacks."""
    loaded = read(config)
    try:
        material = imagined(loaded.root)
        made = compile_snapshot(loaded, os.environ, material, catalogue.resolve, 1)
        if write:
            material = prepare(loaded.root, made.snapshot.data_dir, serving=True)
            made = compile_snapshot(loaded, os.environ, material, catalogue.resolve, 1)
    except ConfigError as error:
        raise refused(error) from error
    return loaded, material, made


def prepared(loaded: Loaded) -> Material:
    try:
        return prepare(loaded.root, loaded.root.data_dir)
    except ConfigError as error:
        raise refused(error) from error


def refused(error: ConfigError) -> typer.Exit:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} problem{'s' if count != 1 else ''} in the configuration", file=sys.stderr)
    return typer.Exit(INVALID)
