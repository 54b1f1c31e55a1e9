"""The operator's own log: a line for each notice, and nobody who waits for whoever reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
