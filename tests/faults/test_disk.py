"""Row 32, its journal: a disk that is full."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from faults.conftest import Seen
from faults.house import KEY, Gateway, House
from processes import eventually

pytestmark = pytest.mark.slow

SMALL_DISK = 'mount -t tmpfs -o size=32m tmpfs "$0" && exec "$@"'
WRONG = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nX-Request-ID: {{:0120d}}\r\nContent-Length: 2\r\n\r\n{{{{}}}}"


def told(gateway: Gateway, first: int, count: int) -> list[int]:
    """Statuses of so many requests that are answered at once and leave a row each, 10 at a time on one connection."""
    sock, found = gateway.connect(gateway.port), list[int]()
    for begin in range(first, first + count, 10):
        sock.sendall("".join(WRONG.format(number) for number in range(begin, begin + 10)).encode())
        got = b""
        while got.count(b"HTTP/1.1 ") < 10 or not got.endswith(b"}"):
            data = sock.recv(65536)
            if not data:
                return found
            got += data
        found += [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]
    sock.close()
    return found


@pytest.mark.row(32)
def test_a_full_disk_stops_new_work_when_memory_for_rows_is_full_and_loses_none(house: House, seen: Seen) -> None:
    """data_dir is a tmpfs of 32 MB in a mount namespace, filled up; requests until rows find no room; then the space is given back."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    data = house.folder / "data"
    data.mkdir()
    gateway = house.gateway({"up": house.upstream().url}, before=["unshare", "--mount", "sh", "-c", SMALL_DISK, str(data)], data_dir=str(data))
    gateway.data = Path(f"/proc/{gateway.worker()}/root{data}")  # as the gateway sees it
    assert gateway.ask("up/ok").status == 200
    filler = gateway.data / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * (64 << 20))
    statuses: list[int] = []
    while 503 not in statuses[-100:]:
        assert len(statuses) < 100_000, "rows find room for ever"
        statuses += told(gateway, len(statuses), 1000)
    full = gateway.ask("up/ok")
    assert (full.status, full.code, full.headers["retry-after"]) == (503, "journal_full", "5")
    assert gateway.fetch("GET", "/health/live").status == 200
    eventually(lambda: gateway.metric("llm_gateway_journal_waiting_bytes") > 1e6)
    assert gateway.metric("llm_gateway_journal_errors_total") > 0
    filler.unlink()
    eventually(lambda: gateway.ask("up/ok").status == 200, 20)
    eventually(lambda: gateway.metric("llm_gateway_journal_waiting_bytes") == 0, 20)
    for file in (gateway.data / "journal").glob("*.jsonl"):
        assert file.read_bytes().endswith(b"\n")
    rows = Counter(row["request_id"] for row in gateway.rows())
    answered = [number for number, status in enumerate(statuses) if status == 400]
    assert [rows[f"{number:0120d}"] for number in answered] == [1] * len(answered)
    assert max(rows.values()) == 1
    seen(f"{len(answered)} rows found room in memory, then 503 `journal_full` with Retry-After, liveness green, `llm_gateway_journal_waiting_bytes` above 0; "
         "with space again each has exactly one row, no line broken, and requests are served")
