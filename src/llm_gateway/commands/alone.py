"""The admin API without a gateway: put together for one call, on the gateway's database.

Law: changes nothing but by the API's own code, and into the audit log. Half a second to import: only who needs it does.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.auditing import UNCHANGING, Audited, Auditing
from llm_gateway.admin.books import told
from llm_gateway.admin.database import Database
from llm_gateway.admin.explain import placed
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.registry import Registry, wall
from llm_gateway.admin.usage import Usage
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import Loaded
from llm_gateway.config.material import prepare
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.stores.sql.directory import Register

PATIENCE = 10.0  # seconds


async def alone(loaded: Loaded, method: str, path: str, body: bytes) -> tuple[int, str]:
    """Status and text. Raises ConfigError."""
    material = prepare(loaded.root, loaded.root.data_dir)
    compiled = compile_snapshot(loaded, os.environ, material, load_catalogue().resolve, 1)
    notices = Notices(sys.stderr, "text", "error")
    database = Database(compiled.database.url, notices, lambda *_: None)
    state = material.admin_token, compiled.snapshot
    auditing = Auditing(Path(compiled.snapshot.data_dir), compiled.snapshot.secret, socket.gethostname(), notices, lambda _: None)
    try:
        registry = Registry(database, None, notices, lambda: state)
        usage = Usage(registry.ground, database.engine, lambda: compiled.database.usage_days)
        _turn(auditing, method)
        app = Audited(Starlette(routes=[*registry.routes(), *usage.routes()]), auditing)
        return await ask(app, method, path, (material.admin_token, body))
    except SQLAlchemyError as error:  # of a database that is none, say: one that is away the API itself tells
        return 503, json.dumps({"error": {"message": f"the database cannot be used: {told(error)}"}})
    finally:
        auditing.close()
        await database.close()


def _turn(auditing: Auditing, method: str) -> None:
    """Of several commands at once one writes the log; who changes something waits for it, and is refused if that takes too long."""
    end = time.monotonic() + PATIENCE
    while method not in UNCHANGING and not auditing.writable and time.monotonic() < end:
        time.sleep(0.02)


async def keyed(loaded: Loaded, key: str) -> tuple[bytes, Directory]:
    """Where the client's key of that name or id stands in the gateway's database, b"" if nowhere, and all who stand there. ValueError where it
    cannot be told."""
    material = prepare(loaded.root, loaded.root.data_dir)
    compiled = compile_snapshot(loaded, os.environ, material, load_catalogue().resolve, 1)
    database = Database(compiled.database.url, Notices(sys.stderr, "text", "error"), lambda *_: None)
    directory = Directory()
    try:
        await database.ready()
        register = Register(database.engine)
        at = await placed(key, compiled.snapshot, register, wall())
        if at:
            with tempfile.TemporaryDirectory() as folder:
                await register.export(Path(folder) / KEYS, wall())
                directory.open(Path(folder) / KEYS)
        return at, directory
    except Refusal as refusal:
        raise ValueError(refusal.message) from refusal
    except (SQLAlchemyError, OSError) as error:
        raise ValueError(f"the database does not answer: {told(error)}") from error
    finally:
        await database.close()


async def ask(app: ASGIApp, method: str, path: str, said: tuple[str, bytes]) -> tuple[int, str]:
    """One request without a socket. said: token and body. Returns status and text."""
    where, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
        "path": unquote(where), "raw_path": where.encode(), "query_string": query.encode(), "client": None, "server": None,
        "headers": [(b"authorization", f"Bearer {said[0]}".encode())],
    }  # fmt: skip
    heard: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": said[1], "more_body": False}

    async def send(message: Message) -> None:
        heard.append(message)

    await app(scope, receive, send)
    return heard[0]["status"], b"".join(each.get("body", b"") for each in heard).decode()
