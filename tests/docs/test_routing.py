"""What docs/routing.md shows of `explain` is what the command says of the page's own configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from docs.blocks import ROOT, blocks
from docs.conftest import BIN, Place


def test_the_explanation_is_the_commands_own(place: Place, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
    first = next(block.text for block in blocks() if block.page == "docs/routing.md" and block.language == "yaml")
    shown = re.findall(r"^    (smart: .*\n(?:      ?.*\n)+)", page, re.MULTILINE)[0].replace("\n    ", "\n").rstrip()
    (tmp_path / "config.yaml").write_text(first)
    given = dict.fromkeys(re.findall(r"\$\{(\w+)\}", first), "sk-made-up-0123456789")
    command = [BIN / "llm-gateway", "explain", "smart", "--offline"]
    done = subprocess.run(command, cwd=tmp_path, env=place.environ | given, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.rstrip() == shown
