"""All rows of the fault matrix against real processes, and what was seen as a page: `make faults` writes docs/faults.md.

    python tests/faults/report.py [pytest's arguments]       with arguments only the rows of the tests that ran are written anew

Law: nothing vanishes. A row that no test is about stands there with the reason, so does one that this machine cannot do; a
row that failed is called failed. Ends with pytest's status.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a program: `faults` is a package of the tests' folder

from faults.matrix import MATRIX, OPEN

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "faults.md"
KEPT = CHECKOUT / "build" / "faults.json"  # what each test saw last
_INTRO = """\
# What was seen when things went wrong

Made by `make faults` (`tests/faults/report.py`) on {machine}: the gateway as `llm-gateway serve` starts it, upstreams as
processes of their own, {tests} tests of {rows} rows. Figures are those of each test's last run, on a shared machine. Beside these, `make faults`
runs the tests of clients and upstreams that break byte by byte (`tests/ingress`, `tests/upstream`, `tests/egress`).

Networks are namespaces without a name, joined by a wire in userspace (`tests/faults/wire.py`) that delays, loses, slows down or
swallows packets by seeded dice; clocks are told by libfaketime; memory limits are cgroups. A test that a machine cannot do
skips, and says so here.

| | Fault | Promised | Seen | How it is made |
|---|---|---|---|---|
"""
Line = Mapping[str, Any]


def page(lines: Sequence[Line], machine: str) -> str:
    """The whole page from what the tests said."""
    tested = {row for line in lines for row in line["rows"] if line["outcome"] != "skipped"}
    made = _INTRO.format(machine=machine, tests=sum(line["outcome"] != "skipped" for line in lines), rows=len(tested & MATRIX.keys()))
    for number, (fault, promised) in MATRIX.items():
        mine = [line for line in lines if number in line["rows"]]
        seen = "<br>".join(dict.fromkeys(map(_seen, mine))) if mine else f"*Not covered:* {OPEN.get(number, 'no test of it ran.')}"
        made += _row(str(number), fault, promised, seen, mine)
    for line in (each for each in lines if not MATRIX.keys() & set(each["rows"])):
        made += _row("", ", ".join(map(str, line["rows"])), "", _seen(line), [line])
    return made


def _row(number: str, fault: str, promised: str, seen: str, lines: Sequence[Line]) -> str:
    how = "<br>".join(dict.fromkeys(line["how"] for line in lines))
    cells = (number, fault, promised, seen, how)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _seen(line: Line) -> str:
    if line["outcome"] == "skipped":
        return f"*Skipped here:* {line['reason']}."
    said = "; ".join(line["seen"])
    said = said[:1].upper() + said[1:]
    return f"{said}." if line["outcome"] == "passed" else f"**Failed** ({line['test']}): {said or 'nothing was seen'}."


def main(arguments: Sequence[str]) -> int:
    pytest = [sys.executable, "-m", "pytest", "-q"]
    others = ["tests/e2e/test_broken.py", "tests/egress", "tests/upstream", "tests/ingress"]
    first = 0 if arguments else subprocess.run([*pytest, *others], cwd=CHECKOUT, check=False).returncode
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "seen"
        done = subprocess.run([*pytest, "tests/faults", *arguments], cwd=CHECKOUT, env={**os.environ, "FAULTS_SEEN": str(file)}, check=False)
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if arguments:
        lines = replaced(json.loads(KEPT.read_text()) if KEPT.exists() else [], lines)
    if arguments and not KEPT.exists():
        return done.returncode
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(lines))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    PAGE.write_text(page(lines, machine))
    print(f"{PAGE.relative_to(CHECKOUT)}: {len(lines)} tests")
    return done.returncode or first


def replaced(before: Sequence[Line], after: Sequence[Line]) -> list[Line]:
    """What was seen before, with what was seen now in the place of the same tests'."""
    now = {line["test"] for line in after}
    return [*(line for line in before if line["test"] not in now), *after]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
