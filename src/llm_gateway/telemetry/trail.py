"""What the audit log says, the newest first, a page at a time.

Law: reads files from their ends, in pieces, and no more lines than it is told to; decides nothing about who may read what.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from llm_gateway.telemetry.audit import decoded

BLOCK = 64 << 10
MOST_READ = 200_000  # lines of one page, of which few may be wanted
LINE_END = b"\n"

Line = dict[str, Any]


class Wanted(Struct, frozen=True):
    """All that every word given is true of. `since`, `until`: RFC 3339 as lines have it, the end left out; `action`: a part of it."""

    since: str = ""
    until: str = ""
    kind: str = ""
    actor: str = ""
    action: str = ""
    tenant: str = ""

    def has(self, line: Line) -> bool:
        return (
            line["ts"] >= self.since
            and (not self.until or line["ts"] < self.until)
            and self.kind in ("", line["kind"])
            and self.actor in ("", line.get("actor", ""))
            and self.tenant in ("", line.get("tenant", ""))
            and self.action in line.get("action", "")
        )


class Page(Struct, frozen=True):
    """`behind`: the number of the line behind which the next page begins; 0: this was the last."""

    lines: list[Line]
    behind: int


def page(directory: Path, wanted: Wanted, most: int, behind: int = 0, *, read: int = MOST_READ) -> Page:
    """behind: as the page before said; 0: from the newest on. Raises OSError."""
    found: list[Line] = []
    last = count = 0
    for line in backwards(directory, wanted.since[:7]):
        if behind and line["seq"] >= behind:
            continue  # not one of this page's: or one that begins far back would have none, and be followed by itself
        if len(found) == most or count >= read:
            return Page(found, last)
        last, count = line["seq"], count + 1
        if wanted.has(line):
            found.append(line)
    return Page(found, 0)


def backwards(directory: Path, month: str = "") -> Iterator[Line]:
    """All lines, the newest first, of months from that one on; a torn last one is left out. What a file is called is never before its lines."""
    for path in sorted(directory.glob("*.jsonl"), reverse=True):
        if path.stem >= month:
            yield from filter(None, map(decoded, _lines(path)))


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        at, rest, torn = file.seek(0, 2), b"", True
        while at:
            size = min(BLOCK, at)
            at -= size
            file.seek(at)
            parts = (file.read(size) + rest).split(LINE_END)
            if torn and len(parts) > 1:  # behind the last line's end there is nothing, or half a line
                parts.pop()
                torn = False
            rest = parts[0]
            if not torn:
                yield from reversed(parts[1:])
        if not torn:
            yield rest
