"""Lines of a journal as workers write them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llm_gateway.stores.sql.booking import Batch, read
from llm_gateway.stores.sql.rows import Rows, decode
from llm_gateway.stores.sql.tables import usage

SAID: dict[str, Any] = {
    "ts": "2026-11-27T01:02:03.004Z", "id": "a", "request_id": "r", "tenant": "acme", "project": "search", "user": "bob", "key_id": "k1", "key": "ci",
    "peer": "10.0.0.7", "method": "POST", "route": "/v1/chat/completions", "status": 200, "ms": 12.5, "bytes_in": 100, "bytes_out": 200,
    "model": "gpt-4", "provider": "openai", "upstream_model": "gpt-4o", "input": 20, "output": 5, "cost": 1000, "prices": "genai-prices 1",
}  # fmt: skip

# What a row has where nothing is said: the table's own defaults.
UNSAID: dict[str, Any] = {
    each.name: None if each.nullable else each.type.python_type() if each.server_default is not None else None for each in usage.c
}


def line(**fields: Any) -> bytes:
    """None takes a field away."""
    said = {name: value for name, value in (SAID | fields).items() if value is not None}
    return json.dumps(said).encode() + b"\n"


def table(*lines: bytes) -> Rows:  # by column
    """All of them must be fit to read."""
    found, refused = decode(list(lines))
    assert not refused
    return found


def rows(*lines: bytes) -> list[SimpleNamespace]:
    """One by one, with every column."""
    found = table(*lines)
    return [SimpleNamespace(**UNSAID | {name: values[number] for name, values in found.columns.items()}) for number in range(found.count)]


def batch(*lines: bytes, start: int = 0, name: str = "1-0-1-0.jsonl", replica: str = "here") -> Batch:
    return read(replica, name, start, list(lines))


def write(folder: Path, *lines: bytes, name: str = "1764000000000-0-1-0.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("ab") as file:
        file.writelines(lines)
    return folder / name
