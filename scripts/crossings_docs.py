"""Writes docs/crossings.md from the tables in formats/crossings.py and formats/embedding_crossings.py. `--check` only says whether it is
current."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from llm_gateway.formats import crossings, embedding_crossings
from llm_gateway.formats.crossings import Fate

PAGE = Path(__file__).parents[1] / "docs" / "crossings.md"
_MARKS = {Fate.KEEP: "kept", Fate.ADJUST: "adjusted", Fate.DROP: "—", Fate.REFUSE: "**400**"}
_INTRO = """\
# Crossings

What becomes of each field of a request on its way to a model that is reached in another shape than the client speaks. Made by
`scripts/crossings_docs.py` from the tables that the code obeys (`formats/crossings.py`, `formats/embedding_crossings.py`).

To a model reached in the client's own shape a request passes as it was written, unknown fields included. To another:

- **kept**: said there in the same words or other ones.
- **adjusted**: kept in its meaning, its wording or value changed, or kept where the model has it; what is lost is reported.
- **—**: dropped, and named in the reply's `x-gateway-dropped-params`, by the name that the client's API has for it.
- **400**: refused, naming the client's own field, since without it the reply would be another one than was asked for.

A field that no table names is dropped and reported. `make replay` holds all this against recorded traffic: [replay.md](replay.md).
"""


def page() -> str:
    lines = [_INTRO, "## Conversations", "", *_matrix(crossings), "", *_notes(), "", "### Where shapes meet, beyond the table", ""]
    lines += [*_prose(crossings), "", "## Embeddings", "", *_matrix(embedding_crossings), "", *_prose(embedding_crossings), ""]
    return "\n".join(lines)


def _matrix(table: ModuleType) -> Iterable[str]:
    yield f"| Field | {' | '.join(f'`{shape}`' for shape in table.COLUMNS)} |"
    yield "|" + "---|" * (len(table.COLUMNS) + 1)
    for row in table.TABLE:
        yield f"| `{row.field}` | {' | '.join(_MARKS[table.fate(row, shape)] for shape in table.COLUMNS)} |"


def _notes() -> Iterable[str]:
    yield "| Field | What it comes to | Asks for nothing |"
    yield "|---|---|---|"
    for row in crossings.TABLE:
        if row.note or row.idle:
            idle = ", ".join(f"`{_shown(value)}`" for value in row.idle)
            yield f"| `{row.field}` | {row.note} | {idle} |"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _prose(table: ModuleType) -> Iterable[str]:
    """The list in the module's docstring, an item a paragraph."""
    text = re.split(r"[Bb]eyond the table:\n", table.__doc__ or "", maxsplit=1)[1]
    for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
        words = " ".join(item.split())
        subject, colon, rest = words.partition(": ")
        yield f"- **{subject}**{colon}{rest}" if colon and len(subject) < 40 else f"- {words}"


def main(arguments: list[str]) -> int:
    made = page()
    if arguments == ["--check"]:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
