"""The fenced code blocks of the documents, with what is to become of them.

`<!-- not run: reason -->` on the line before a block says that it cannot run here; such a block is checked for syntax only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Pages whose blocks have their own tests, or measure for minutes.
ELSEWHERE = {
    "docs/configuration.md": "tests/config/test_docs.py loads its examples",
    "docs/benchmarks.md": "its commands run for minutes to hours",
}
FENCE = re.compile(r"^(?:<!-- not run: (?P<reason>[^>\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    reason: str | None  # why it is not run

    def __str__(self) -> str:
        return f"{self.page}:{self.line}-{self.language}"


def blocks() -> list[Block]:
    found = []
    for path in PAGES:
        page, text = str(path.relative_to(ROOT)), path.read_text()
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("text"))
            reason = match["reason"] or ELSEWHERE.get(page)
            found.append(Block(page, line, match["language"], match["text"], reason))
    return found
