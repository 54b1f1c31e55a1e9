"""The operator's own log: a line for each notice, and nobody who waits for whoever reads it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from llm_gateway.admin.notices import Notices

NASTY = "k\n\x1b[2Joperator: key created by=admin token\x9b2J"
SAYING = """
from llm_gateway.admin.notices import Notices, Unawaited
notices = Notices(Unawaited(), "json", "info")
for number in range(3000):
    notices.say("info", "something", number=number, name="\\ud800")
print("said")
"""


@pytest.mark.row(38)
def test_a_reader_that_stands_still_stops_nobody() -> None:
    reading, writing = os.pipe()
    done = subprocess.run([sys.executable, "-c", SAYING], stdout=subprocess.PIPE, stderr=writing, timeout=10, check=True)
    os.close(writing)
    assert done.stdout == b"said\n"
    whole = os.read(reading, 1 << 20).rpartition(b"\n")[0].splitlines()
    os.close(reading)
    assert [json.loads(line)["number"] for line in whole] == list(range(len(whole)))


def test_a_name_that_somebody_chose_begins_no_line_and_moves_no_cursor() -> None:
    said = io.StringIO()
    Notices(said, "text", "info").say("info", "key created", by="boss", name=NASTY)
    assert said.getvalue() == "operator: key created by=boss name=k\\n\\x1b[2Joperator: key created by=admin token\\x9b2J\n"
