"""Keys for the file: `llm-gateway keys new`, and `keys hash` for one that is there already. The database's are in keys.py."""

from __future__ import annotations

import json
import secrets
import sys
from typing import Annotated

import typer

from llm_gateway.admission.auth import aws_secret
from llm_gateway.commands.reading import ConfigOption, prepared, sound
from llm_gateway.config.tenancy import key_digest


def hash_key(config: ConfigOption = None) -> None:
    """Turn a client's key (asked for, or on standard input) into the `digest` that config.yaml may hold instead of it."""
    material = prepared(sound(config))
    key = typer.prompt("Key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key:
        raise typer.BadParameter("there is no key")
    print(f"digest: {key_digest(material.secret, key).hex()}")


def new_key(
    name: Annotated[str, typer.Argument(help="What the key is called in logs.")] = "client",
    aws: Annotated[bool, typer.Option("--aws", help="AWS credentials instead, for clients of Bedrock's API.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a key, and the entry that config.yaml needs for it. The key is shown once and kept nowhere."""
    if aws:
        material = prepared(sound(config))
        key_id = "AKGW" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
        print(f"# AWS_ACCESS_KEY_ID={key_id}\n# AWS_SECRET_ACCESS_KEY={aws_secret(material.secret, key_id)}")
        print(f"keys:\n  - {{name: {json.dumps(name)}, aws: {key_id}}}")
        return
    print(f"keys:\n  - {{name: {json.dumps(name)}, key: {json.dumps('sk-' + secrets.token_urlsafe(32))}}}")
