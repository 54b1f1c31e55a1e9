"""What workers tell, one another and people, by way of the real operator."""

from __future__ import annotations

import io
import json
import os
import signal

import pytest

from admin.conftest import TOKEN
from llm_gateway.admin.events import KEPT, Events
from llm_gateway.admin.notices import Notices
from llm_gateway.core.changes import Change
from llm_gateway.core.happenings import GRAVE, KINDS, Happening
from processes import eventually

OPENED = {"provider": "echo", "key": "0", "model": "m", "what": "breaker_opened", "seconds": 30.0, "reason": "5 failures in a row"}
DISABLED = {"provider": "echo", "key": "0", "model": "", "what": "key_disabled", "reason": "401"}


class Bench:
    def __init__(self) -> None:
        self.log = io.StringIO()
        self.offered: list[Happening] = []
        self.now = 1_700_000_000_123_456_789
        self.events = Events(Notices(self.log, "json", "info"), self.offered.append, lambda: self.now)

    def kinds(self) -> list[str]:
        return [each.type for each in self.offered]


def test_what_one_worker_tells_the_others_hear_and_it_does_not(plane):
    running = plane(workers=3)
    running.tell(1, OPENED, DISABLED)
    eventually(lambda: len(running.told("changed")) == 2)
    assert sorted(each["index"] for each in running.told("changed")) == [0, 2]
    assert running.told("changed")[0]["changed"] == [OPENED, DISABLED | {"seconds": 0.0}]
    assert [each["type"] for each in running.events()] == ["breaker_opened", "key_disabled"]
    assert running.events()[0]["data"] == {name: value for name, value in OPENED.items() if name != "what"}


def test_a_worker_that_joins_late_is_told_what_still_holds(plane):
    running = plane()
    short = OPENED | {"model": "short", "seconds": 0.01}
    running.tell(0, OPENED, DISABLED, short, OPENED | {"model": "closed"}, OPENED | {"model": "closed", "what": "breaker_closed"})
    eventually(running.events)
    os.kill(running.children("worker 0")[0], signal.SIGKILL)
    (told,) = eventually(lambda: running.told("changed"))
    found = {each["model"]: each for each in told["changed"]}
    assert found.keys() == {"m", ""}
    assert 0 < found["m"]["seconds"] < 30
    assert found[""]["seconds"] == 0
    eventually(lambda: running.events("?event=worker_restarted")[0]["data"]["worker"] == 0)


@pytest.mark.slow
def test_a_provider_that_the_configuration_changes_starts_afresh(plane):
    running = plane("providers: {echo: {}}\n")
    running.tell(0, DISABLED)
    eventually(running.events)
    running.config.write_text(running.config.read_text().replace("echo: {}", "echo: {max_retries: 0}"))
    running.reload()
    os.kill(running.children("worker 0")[0], signal.SIGKILL)
    eventually(lambda: running.events("?event=worker_restarted"))
    eventually(lambda: running.metric("http_requests_total") > 3)
    assert running.told("changed") == []


def test_reloads_are_events_and_have_one_line_each(plane):
    running = plane()
    running.config.write_text(running.config.read_text() + "journal: {on_error: continue}\n")
    running.reload()
    running.config.write_text(running.config.read_text() + "workerss: 1\n")
    running.reload()
    told = eventually(lambda: (found := running.events())[-1]["type"] == "config_refused" and found)
    assert told[0]["type"] == "config_reloaded"
    assert told[0]["data"]["generation"] == 2
    assert "did you mean `workers`?" in told[-1]["data"]["errors"][0]
    assert not running.notices("config_reloaded") + running.notices("config_refused")
    assert running.notices("configuration reloaded")


def test_the_list_wants_the_token_and_can_be_asked_for_parts(plane):
    running = plane()
    running.tell(0, OPENED, DISABLED)
    first, second = eventually(running.events)
    assert first["id"] < second["id"]
    assert first["gateway"]
    assert [each["type"] for each in running.events(f"?since={first['id']}")] == ["key_disabled"]
    assert [each["type"] for each in running.events("?event=breaker_opened")] == ["breaker_opened"]
    assert running.events(f"?since={second['id']}") == []
    assert running.ask("/admin/v1/events")[0] == 401
    status, text = running.ask("/admin/v1/events?event=nonsense", TOKEN)
    assert status == 400
    assert "breaker_opened" in text
    assert running.metric('llm_gateway_events_total{event="key_disabled"}') == 1
    assert running.metric('llm_gateway_events_total{event="provider_up"}') == 0
    (line,) = running.notices("breaker_opened")
    assert (line["level"], line["provider"], line["seconds"]) == ("warn", "echo", 30.0)


def test_the_same_said_by_several_workers_is_one_event():
    bench = Bench()
    opened, closed = Change("a", "0", "m", "breaker_opened", 10.0, "5 failures"), Change("a", "0", "m", "breaker_closed")
    bench.events.changes([opened])
    bench.events.changes([Change("a", "0", "m", "breaker_opened", 9.9, "6 failures"), Change("a", "1", "m", "breaker_opened", 10.0)])
    assert len(bench.offered) == 2
    bench.now += 4_900_000_000
    bench.events.changes([opened])
    assert len(bench.offered) == 2
    bench.events.changes([closed, closed, opened])
    assert bench.kinds()[2:] == ["breaker_closed", "breaker_opened"]
    bench.now += 5_000_000_000
    bench.events.changes([opened])
    assert len(bench.offered) == 5


def test_ids_sort_even_where_the_clock_goes_back_and_the_ring_has_an_end():
    bench = Bench()
    for _ in range(KEPT + 10):
        bench.now -= 1_000_000
        bench.events.tell("worker_restarted", {"worker": 0})
    ids = [each.id for each in bench.offered]
    assert ids == sorted(set(ids))
    assert [each.id for each in bench.events.since("")] == ids[10:]
    assert [each.id for each in bench.events.since(ids[-2])] == ids[-1:]
    assert bench.offered[0].timestamp == "2023-11-14T22:13:20.122Z"
    assert len(bench.log.getvalue().splitlines()) == KEPT + 10
    assert json.loads(bench.log.getvalue().splitlines()[0])["event"] == "worker_restarted"


def test_many_models_are_not_remembered_for_ever():
    bench = Bench()
    for number in range(5000):
        bench.now += 10_000_000
        bench.events.changes([Change("a", "0", f"m{number}", "cooling", 1.0)])
    assert len(bench.events._said) < 2500


def test_every_grave_event_is_one():
    assert set(KINDS) > GRAVE
