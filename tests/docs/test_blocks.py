"""Every code block of README and docs/ does what a reader expects when it is pasted."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.blocks import PAGES, ROOT, Block, blocks
from docs.conftest import Place
from typed import typed

SHELLS = ("sh", "bash")
# A failing request fails its block, except where the block looks at the status itself.
CURL = """
curl() {
    case " $* " in
    *" -w "*) command curl --silent --show-error --noproxy '*' "$@" ;;
    *) command curl --silent --show-error --noproxy '*' --fail-with-body "$@" ;;
    esac
}
"""
BLOCKS = blocks()


def those(*languages: str, run: bool) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and (block.reason is None) is run]


def weighed(found: list[Block]) -> list[Any]:
    """Blocks that start the program again and again are `make slow`'s: tests/commands has what they say, in less time."""
    return [pytest.param(each, id=str(each), marks=pytest.mark.slow if each.text.count("llm-gateway ") > 2 else ()) for each in found]


@pytest.mark.parametrize("block", weighed(those(*SHELLS, run=True)))
def test_a_shell_block_succeeds(block: Block, place: Place) -> None:
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("no curl here")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", CURL + place.here(block.text)],
        cwd=place.folder, env=place.environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or "test " in block.text, "it says nothing"


@pytest.mark.parametrize("block", those("python", run=True), ids=str)
def test_a_python_block_runs(block: Block, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process: importing an SDK takes seconds, and others that are tested here have done so."""
    monkeypatch.chdir(place.folder)
    for name in os.environ.keys() - place.environ.keys():
        monkeypatch.delenv(name)
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    exec(compile(place.here(block.text), str(block), "exec"), {"__name__": "__main__"})  # noqa: S102  a document's, which is ours
    if "print(" in block.text:
        assert re.search(r"story|Hello", capsys.readouterr().out), "the echo of what was asked"


@pytest.mark.parametrize("block", [each for each in those("yaml", run=True) if "scrape_configs" not in each.text], ids=str)
def test_a_configuration_is_valid(block: Block, place: Place, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(block.text)
    given = dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "sk-made-up-0123456789")
    done = typed("check", "config.yaml", folder=tmp_path, environ=place.environ | given)
    assert done.returncode == 0, done.stderr
    assert "Warnings" not in done.stdout, done.stdout


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language in ("json", "yaml", "python", *SHELLS)], ids=str)
def test_every_block_is_well_formed(block: Block) -> None:
    match block.language:
        case "json":
            json.loads(block.text)
        case "yaml":
            yaml.safe_load(block.text)
        case "python":
            text = block.text.strip()
            ast.parse(f"{{{text}}}" if re.match(r'"\w+": ', text) else text)  # a row of a table is a piece of a dict
        case _:
            done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False, timeout=5)
            assert done.returncode == 0, done.stderr


def test_no_block_has_a_language_that_nobody_checks() -> None:
    assert {block.language for block in BLOCKS} <= {"json", "yaml", "python", *SHELLS}
    fences = sum(text.count("\n```") // 2 + text.startswith("```") for text in (page.read_text() for page in PAGES))
    assert fences == len(BLOCKS), "a fence without a language, or one that is not closed"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_most_blocks_are_really_run() -> None:
    run = [block for block in BLOCKS if block.reason is None]
    assert len(those(*SHELLS, run=True)) >= 8
    assert len(those("python", run=True)) >= 3
    assert {block.page for block in run} >= {"README.md", "docs/errors.md", "docs/journal.md", "docs/metrics.md"}


def test_readme_opens_with_the_two_commands() -> None:
    first = next(block for block in BLOCKS if block.page == "README.md")
    assert [line.split("#")[0].strip() for line in first.text.splitlines()] == ["make run", "make test"]
    assert first.line < 12
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^run:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)
