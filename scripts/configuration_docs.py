"""Writes the table of options into docs/configuration.md, from the schema. `--check` only says whether it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from llm_gateway.config.schema_json import options
from llm_gateway.providers.table import SERVICES

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- options: made by scripts/configuration_docs.py -->", "<!-- end of options -->"


def table() -> str:
    lines = ["| Option | Default | |", "|---|---|---|"]
    for name, default, description in options():
        shown = f"`{default}`" if default and default != "required" else default
        lines.append(f"| `{name}` | {shown} | {description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def page(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    services = ", ".join(f"`{name}`" for name in SERVICES)
    return f"{before}{BEGIN}\n\n{table()}\n\nKnown services: {services}.\n\n{END}{after}"


def main(arguments: list[str]) -> int:
    text = PAGE.read_text()
    made = page(text)
    if arguments == ["--check"]:
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
