"""What the gateway keeps for itself in `data_dir`: its secret, its name, an admin token, a development key. Made once, mode 0600.

Law: the only part of configuration that writes. All is there before a process of the gateway starts: on a disk that was filled since, they
start again.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from llm_gateway.config.problems import ConfigError, Problem
from llm_gateway.config.schema import Root

SECRET, ADMIN_TOKEN, DEVELOPMENT_KEY, REPLICA = "secret", "admin.token", "dev.key", "replica"
ADMIN_SOCKET = "admin.sock"  # where the operator listens for commands


class Material(Struct, frozen=True):
    """`development_key`: None where the configuration has keys, or needs none."""

    secret: bytes
    admin_token: str
    development_key: str | None = None


def prepare(root: Root, data_dir: str, *, serving: bool = False) -> Material:
    """Reads what is there and makes what is not. ConfigError if `data_dir` cannot be used. serving: by a gateway, which has a name."""
    folder = Path(data_dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = root.secret.get_secret_value() if root.secret else _keep(folder / SECRET, _random_secret)
        token = root.admin.token.get_secret_value() if root.admin.token else _keep(folder / ADMIN_TOKEN, _random_token)
        if serving:
            replica(folder)
        development = None if root.keys or not root.auth.required else _keep(folder / DEVELOPMENT_KEY, _random_key)
    except OSError as error:
        message = f"{error.filename or folder} cannot be used: {error.strerror}"
        raise ConfigError([Problem("", "data_dir", message, "set data_dir or LLM_GATEWAY__DATA_DIR")]) from error
    return Material(secret.encode(), token, development)


def replica(folder: Path) -> str:
    """The name of this gateway in the world: under it the database knows the files of its journal. OSError where it is not there and cannot be made."""
    return _keep(folder / REPLICA, _random_name)


def imagined(root: Root) -> Material:
    """Stands in where configuration is only checked: nothing is written, and nothing made with it may be used."""
    return Material(
        b"imagined", "imagined", None if root.keys or not root.auth.required else "imagined-development-key"
    )


def _keep(path: Path, make: Callable[[], str]) -> str:
    """The content of `path`, written first if it is not there. Of two processes that start at once, one writes."""
    try:
        return _content(path)
    except FileNotFoundError:
        fd, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(fd, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, it never replaces
        except FileExistsError:
            return _content(path)
        finally:
            Path(draft).unlink()
    return _content(path)


def _content(path: Path) -> str:
    content = path.read_text().strip()
    if not content:
        raise OSError(0, "it is empty; remove it to have a new one made", str(path))
    return content


def _random_secret() -> str:
    return secrets.token_hex(32)


def _random_name() -> str:
    return secrets.token_hex(16)


def _random_token() -> str:
    return "admin-" + secrets.token_urlsafe(32)


def _random_key() -> str:
    return "sk-dev-" + secrets.token_urlsafe(24)
