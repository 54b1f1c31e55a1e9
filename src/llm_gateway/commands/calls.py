"""The admin API as commands call it: of the running gateway, or, where none runs, of one that is put together for this one call.

Law: both are the same code, so that a command means the same either way; and a change is in the audit log either way.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote, urlencode

import typer

from llm_gateway.admission.directory import Directory
from llm_gateway.commands.reading import address, read, refused
from llm_gateway.config.load import Loaded
from llm_gateway.config.material import ADMIN_SOCKET, prepare
from llm_gateway.config.present import ANY_ADDRESS
from llm_gateway.config.problems import ConfigError

PATIENCE = 30.0
JsonOption = Annotated[bool, typer.Option("--json", help="The admin API's own answer, as JSON.")]

Body = dict[str, Any]


def running(loaded: Loaded, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """The running gateway's answer: status and text. By the socket in its data_dir, which says for sure whose it is; else by its port. Raises
    OSError if there is none."""
    with _connection(loaded) as connection:
        connection.request(method, path, body, _authorization(loaded))
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")


def _connection(loaded: Loaded) -> closing[http.client.HTTPConnection]:
    where = address(loaded)
    host = "127.0.0.1" if where.host in ANY_ADDRESS else where.host
    connection = http.client.HTTPConnection(host, where.port, timeout=PATIENCE)
    connection.sock = _local(Path(loaded.root.data_dir) / ADMIN_SOCKET)
    return closing(connection)


def _authorization(loaded: Loaded) -> dict[str, str]:
    return {"Authorization": f"Bearer {prepare(loaded.root, loaded.root.data_dir).admin_token}"}


def _local(path: Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(str(path))
    except OSError:  # none is there, or nobody listens any more, or the path is too long for one
        sock.close()
        return None
    return sock


def at(path: str, *steps: str) -> str:
    """What is below `path`, by names as a person types them. Raises typer.BadParameter where one is empty: a script's variable that is not set."""
    if not all(steps):
        raise typer.BadParameter("there is no name or id in it")
    return "/".join([path, *(quote(step, safe="") for step in steps)])


def call(config: str | None, method: str, path: str, body: Body | None = None, query: Mapping[str, str | None] | None = None) -> Body:
    """What the admin API answers; an empty answer is {}. query: parameters; None is not sent. Ends the command, with what it says, where
    that is a refusal."""
    loaded = read(config)
    said = urlencode({name: value for name, value in (query or {}).items() if value is not None})
    try:
        status, text = _answer(loaded, method, f"{path}?{said}" if said else path, json.dumps(body) if body is not None else "")
    except ConfigError as error:
        raise refused(error) from error
    answer = _heard(text, status)
    if status >= 300:
        errors = answer.get("errors") or [answer["error"]]
        print("\n".join(f"{each['param']}: {each['message']}" if answer.get("errors") else each["message"] for each in errors), file=sys.stderr)
        raise typer.Exit(1)
    return answer


def _heard(text: str, status: int) -> Body:
    """As JSON. Ends the command where that is no answer of a gateway: others may listen there where none runs."""
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (status >= 300 and not isinstance(answer.get("error"), dict)):
        print(f"what answers there (status {status}) is no gateway", file=sys.stderr)
        raise typer.Exit(1)
    return answer


def download(config: str | None, path: str, query: Mapping[str, str | None], file: BinaryIO) -> None:
    """What the admin API answers, as it comes, into `file`. Ends the command where that is a refusal, or breaks off."""
    said = urlencode({name: value for name, value in query.items() if value is not None})
    loaded = read(config)
    try:
        _fetch(loaded, f"{path}?{said}", file)
    except ConnectionRefusedError:
        print("no gateway is running: by its database", file=sys.stderr)
        try:
            asyncio.run(load_exported()(loaded, said, file))
        except (ValueError, ImportError, OSError) as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
    except (http.client.HTTPException, OSError) as error:
        print(f"the answer broke off: {error!r}", file=sys.stderr)
        raise typer.Exit(1) from error


def _fetch(loaded: Loaded, path: str, file: BinaryIO) -> None:
    with _connection(loaded) as connection:
        connection.request("GET", path, headers=_authorization(loaded))
        reply = connection.getresponse()
        if reply.status >= 400:
            print(_heard(reply.read().decode(errors="replace"), reply.status)["error"]["message"], file=sys.stderr)
            raise typer.Exit(1)
        while piece := reply.read1(1 << 16):
            file.write(piece)


def every(config: str | None, path: str, **query: str | None) -> list[Body]:
    """All pages of a list."""
    rows: list[Body] = []
    after: str | None = None
    while True:
        page = call(config, "GET", path, None, {**query, "limit": "1000", "after": after})
        rows += page["data"]
        after = page["next"]
        if after is None:
            return rows


def _answer(loaded: Loaded, method: str, path: str, body: str) -> tuple[int, str]:
    try:
        return running(loaded, method, path, body)
    except ConnectionRefusedError:
        print("no gateway is running: by its database", file=sys.stderr)
        return asyncio.run(load_alone()(loaded, method, path, body.encode()))
    except (http.client.HTTPException, OSError) as error:
        print(f"the gateway did not answer: {error!r}", file=sys.stderr)
        raise typer.Exit(1) from error


def load_alone() -> Callable[[Loaded, str, str, bytes], Coroutine[Any, Any, tuple[int, str]]]:
    from llm_gateway.commands.alone import alone  # noqa: PLC0415

    return alone


def load_keyed() -> Callable[[Loaded, str], Coroutine[Any, Any, tuple[bytes, Directory]]]:
    from llm_gateway.commands.alone import keyed  # noqa: PLC0415

    return keyed


def load_exported() -> Callable[[Loaded, str, BinaryIO], Coroutine[Any, Any, None]]:
    from llm_gateway.commands.exported import exported  # noqa: PLC0415

    return exported
