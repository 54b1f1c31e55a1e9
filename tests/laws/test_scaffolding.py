"""What builds and installs this: locked by hash, said once, free of anybody's machine."""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKED = sorted((ROOT / "requirements").glob("*.txt"))


def entries(path: Path) -> list[str]:
    """The requirement lines of a file without comments, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text())
    return [
        line.split("#")[0].strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.name)
def test_every_package_is_pinned_with_hashes(path):
    assert entries(path)
    for entry in entries(path):
        assert re.match(r"[a-z0-9._\[\]-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), entry[:80]


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_no_file_of_requirements_names_a_place_to_get_them(path):
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|^-i ", path.read_text(), re.MULTILINE)


def test_the_package_declares_what_is_locked():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(declared) == sorted(entries(ROOT / "requirements" / "runtime.in"))


def test_what_tests_install_holds_what_runs():
    runtime = {entry.split(" ")[0] for entry in entries(ROOT / "requirements" / "runtime.txt")}
    dev = {entry.split(" ")[0] for entry in entries(ROOT / "requirements" / "dev.txt")}
    assert runtime <= dev


def test_ci_calls_the_tests():
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_make_help_names_every_command():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("run", "test", "lint", "lock", "bench", "demo", "replay", "faults", "soak", "clean"):
        assert re.search(rf"make {command}\s+\S", shown)


def test_shell_scripts_are_plain_posix():
    for path in (ROOT / "scripts").glob("*.sh"):
        assert path.read_text().startswith("#!/bin/sh\n")
        subprocess.run(["sh", "-n", path], check=True)


def test_no_file_knows_a_machine_it_was_written_on():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    around = ROOT if ROOT.parent == Path(tempfile.gettempdir()) else ROOT.parent  # anybody's files may lie in /tmp, a clone of this too
    here = re.compile(re.escape(str(around)) + r"\b/|/home/\w+/|/Users/\w+/")
    guilty = [
        name
        for name in tracked
        if (ROOT / name).suffix in (".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".txt", ".in")
        and (ROOT / name).is_file()
        and here.search((ROOT / name).read_text(errors="replace"))
    ]
    assert guilty == []
