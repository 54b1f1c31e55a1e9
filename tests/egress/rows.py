"""Usage rows of a gateway's journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows(folder: Path) -> list[dict[str, Any]]:
    """All there are. folder: where the gateway keeps `data`."""
    text = "".join(path.read_text() for path in sorted((folder / "data" / "journal").glob("*.jsonl")))
    return [json.loads(line) for line in text.splitlines()]
