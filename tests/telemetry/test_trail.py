"""The audit log read from its end: everything once, in pages, whatever its files look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_gateway.telemetry import trail
from llm_gateway.telemetry.audit import Chain, Entry, read
from llm_gateway.telemetry.trail import Page, Wanted, page

SECRET = b"the gateway's secret"


def entry(number: int, month: str = "2026-11", **more: object) -> Entry:
    said = {"kind": "change", "actor": "a", "action": f"POST /{number}", "tenant": "acme"} | more
    return Entry(ts=f"{month}-{number % 28 + 1:02}T00:00:00.000Z", gateway="g", **said)  # type: ignore[arg-type]


def log(folder: Path, *several: list[Entry]) -> Path:
    chain = Chain(folder, SECRET)
    for each in several:
        chain.append(each)
    chain.close()
    return folder


def numbers(found: Page) -> list[int]:
    return [line["seq"] for line in found.lines]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return log(tmp_path, [entry(number) for number in range(20)], [entry(number, "2026-12") for number in range(5)])


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 16])
def test_all_lines_the_newest_first_however_they_lie_in_blocks(written: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(trail, "BLOCK", block)
    found = page(written, Wanted(), 100)
    assert found == Page(list(read(written))[::-1], 0)


def test_pages_follow_each_other_and_nothing_comes_twice(written: Path) -> None:
    seen, behind = list[int](), 0
    while True:
        found = page(written, Wanted(), 7, behind)
        seen += numbers(found)
        if not (behind := found.behind):
            break
        log(written, [entry(9, "2026-12")])  # what is written meanwhile is newer than all of them
    assert seen == list(range(25, 0, -1))


@pytest.mark.parametrize(("wanted", "seen"), [(Wanted(action="/0"), [21, 1]), (Wanted(actor="nobody"), [])])
def test_a_search_comes_to_the_end_however_few_lines_a_page_may_read(written: Path, wanted: Wanted, seen: list[int]) -> None:
    found, behind = list[int](), 0
    for _ in range(20):
        each = page(written, wanted, 3, behind, read=4)
        found += numbers(each)
        if not (behind := each.behind):
            break
    assert (found, behind) == (seen, 0)


def test_a_torn_last_line_is_left_out(written: Path) -> None:
    with (written / "2026-12.jsonl").open("ab") as file:
        file.write(b'{"seq": 26, "half')
    assert numbers(page(written, Wanted(), 2)) == [25, 24]
    (written / "2027-01.jsonl").write_bytes(b'{"seq"')
    assert numbers(page(written, Wanted(), 2)) == [25, 24]
    (written / "2027-02.jsonl").write_bytes(b"")
    assert numbers(page(written, Wanted(), 2)) == [25, 24]


def test_only_what_is_wanted(tmp_path: Path) -> None:
    folder = log(tmp_path, [
        entry(1), entry(2, actor="b"), entry(3, tenant="other"), entry(4, kind="refused"), entry(5, action="DELETE /admin/v1/keys/k"), entry(6, "2026-12"),
    ])  # fmt: skip
    for wanted, expected in (
        (Wanted(actor="b"), [2]), (Wanted(tenant="other"), [3]), (Wanted(kind="refused"), [4]), (Wanted(action="/keys"), [5]),
        (Wanted(since="2026-11-06"), [6, 5]), (Wanted(until="2026-11-03"), [1]), (Wanted(since="2026-11-04", until="2026-12-01"), [5, 4, 3]),
        (Wanted(actor="a", tenant="acme", kind="change", action="POST"), [6, 1]), (Wanted(tenant="nobody"), []),
    ):  # fmt: skip
        assert numbers(page(folder, wanted, 100)) == expected, wanted


def test_a_page_reads_no_more_than_it_may_and_says_where_to_go_on(written: Path) -> None:
    found = page(written, Wanted(actor="nobody"), 5, read=10)
    assert found == Page([], 16)
    found = page(written, Wanted(action="POST /0"), 5, 16, read=100)
    assert (numbers(found), found.behind) == ([1], 0)


def test_months_before_what_is_wanted_are_not_read(written: Path) -> None:
    (written / "2026-11.jsonl").write_bytes(b"no line of this log\n")
    assert len(page(written, Wanted(since="2026-12-01"), 100).lines) == 5


def test_of_no_log_there_is_nothing(tmp_path: Path) -> None:
    assert page(tmp_path / "none", Wanted(), 5) == Page([], 0)
