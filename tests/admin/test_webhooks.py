"""Events, posted: signed so that others' libraries would believe it, again until taken, and never where they must not go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from admin.stage import Asked, Stage
from admin.test_events import DISABLED, OPENED
from llm_gateway.admin import webhooks
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.webhooks import Webhooks, signature
from llm_gateway.config.snapshot import Webhook
from llm_gateway.core.happenings import Happening
from llm_gateway.upstream.call import Caller
from processes import eventually

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = bytes(range(32))


def verified(asked: Asked, key: bytes = KEY) -> dict:
    """As a receiver does it, said anew and not by what is tested."""
    identity, stamp = asked.headers["webhook-id"], asked.headers["webhook-timestamp"]
    wanted = base64.b64encode(hmac.new(key, b".".join([identity.encode(), stamp.encode(), asked.body]), hashlib.sha256).digest()).decode()
    assert asked.headers["webhook-signature"] == f"v1,{wanted}"
    assert abs(int(stamp) - time.time_ns() / 1e9) < 60
    body = json.loads(asked.body)
    assert body["id"] == identity
    return body


def happening(number: int, kind: str = "cooling") -> Happening:
    return Happening(f"evt_{number:04}", kind, "2026-01-01T00:00:00.000Z", "host", {"number": number})


class Office:
    """Webhooks in this process, with pauses as short as a test wants."""

    def __init__(self) -> None:
        self.log = io.StringIO()
        self.caller = Caller()
        self.webhooks = Webhooks(self.caller, Notices(self.log, "json", "info"))

    def metric(self, outcome: str) -> float:
        counts = self.webhooks.metrics()["llm_gateway_webhook_events_total"]
        return sum(count for labels, count in counts.items() if f'outcome="{outcome}"' in labels)

    def said(self, event: str) -> list[dict]:
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["event"] == event]

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(8):
            while not check():
                await asyncio.sleep(0.01)


@pytest.fixture
async def office(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    monkeypatch.setattr(webhooks, "PAUSES", (0.05, 0.05, 0.05))
    made = Office()
    yield made
    await made.webhooks.close()
    made.caller.close()
    await asyncio.sleep(0.01)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def start(*statuses: int) -> Stage:
        made.append(Stage(*statuses))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def hook(stage: Stage, *kinds: str, **more: object) -> Webhook:
    return Webhook(f"{stage.url}/hook?token=t", KEY, kinds, **({"private": True} | more))


def test_the_signature_is_the_conventions():
    """The example that comes with Standard Webhooks' own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_running_gateway_posts_what_workers_tell(plane, stage):
    every, some = stage(), stage()
    text = f"""
events:
  webhooks:
    - {{url: '{every.url}/hook', secret: '{SECRET}', allow_private: true}}
    - {{url: '{some.url}', secret: 'a plain text of enough letters', events: [key_disabled], allow_private: true}}
"""
    running = plane(text, workers=2)
    running.tell(0, OPENED, DISABLED)
    running.tell(1, OPENED)
    eventually(lambda: len(every.asked) == 2 and some.asked)
    first, second = sorted(map(verified, every.asked), key=lambda body: body["id"])
    assert list(first) == ["id", "type", "timestamp", "gateway", "data"]
    assert (first["type"], second["type"]) == ("breaker_opened", "key_disabled")
    assert first == running.events()[0]
    assert every.asked[0].path == "/hook"
    assert [verified(each, b"a plain text of enough letters")["type"] for each in some.asked] == ["key_disabled"]
    assert running.metric("llm_gateway_webhook_events_total{") == 3
    shown = running.ask("/admin/v1/config", "admin-token-of-the-tests")[1]
    assert json.loads(shown)["config"]["webhooks"][0]["url"] == f"{every.url}/[redacted]"
    assert "a plain text" not in shown + (running.folder / "log").read_text()
    assert SECRET.removeprefix("whsec_") not in shown


def test_a_reload_changes_who_is_told(plane, stage):
    first, second = stage(), stage()
    running = plane(f"events: {{webhooks: [{{url: '{first.url}', secret: '{SECRET}', allow_private: true}}]}}\n")
    running.config.write_text(running.config.read_text().replace(first.url, second.url))
    running.reload()
    eventually(lambda: second.asked)
    assert verified(second.asked[0])["type"] == "config_reloaded"
    assert first.asked == []


async def test_an_event_is_posted_again_until_it_is_taken_and_later_ones_do_not_wait_for_it(office, stage):
    receiver = stage(500, 200, 302, 404, 200)
    office.webhooks.adopt((hook(receiver),))
    office.webhooks.offer(happening(1))
    office.webhooks.offer(happening(2))
    await office.until(lambda: office.metric("delivered") == 2)
    ids = [verified(each)["id"] for each in receiver.asked]
    assert ids == ["evt_0001", "evt_0002", "evt_0001", "evt_0001", "evt_0001"]
    assert receiver.asked[0].path == "/hook?token=t"
    assert office.metric("failed") == 3
    assert len(office.said("webhook failing")) == 2  # 500; and 302 after 200
    assert office.said("webhook failing")[0]["webhook"] == f"127.0.0.1:{receiver.port}"


async def test_a_receiver_that_is_away_gets_it_when_it_is_back(office, stage):
    receiver = stage()
    receiver.stop()
    office.webhooks.adopt((hook(receiver),))
    office.webhooks.offer(happening(1))
    await office.until(lambda: office.metric("failed") >= 1)
    receiver.start()
    await office.until(lambda: office.metric("delivered") == 1)


async def test_it_is_given_up_in_the_end(office, stage):
    receiver = stage(500)
    office.webhooks.adopt((hook(receiver),))
    office.webhooks.offer(happening(1))
    await office.until(lambda: office.metric("given_up") == 1)
    assert len(receiver.asked) == 4
    assert office.said("webhook given up")[0]["id"] == "evt_0001"


async def test_who_is_gone_is_left_alone(office, stage):
    receiver = stage(410)
    office.webhooks.adopt((hook(receiver),))
    office.webhooks.offer(happening(1))
    office.webhooks.offer(happening(2))
    await office.until(lambda: office.said("webhook gone"))
    office.webhooks.offer(happening(3))
    await asyncio.sleep(0.2)
    assert len(receiver.asked) == 1
    assert office.metric("dropped") == 2


async def test_of_too_many_the_oldest_goes_and_is_counted(office, stage, monkeypatch):
    monkeypatch.setattr(webhooks, "MOST_WAITING", 10)
    receiver = stage()
    receiver.pause = 0.2
    office.webhooks.adopt((hook(receiver),))
    for number in range(14):
        office.webhooks.offer(happening(number))
    assert office.webhooks.metrics()["llm_gateway_webhook_waiting_events"] == {f'webhook="127.0.0.1:{receiver.port}"': 10}
    assert office.metric("dropped") == 4
    receiver.pause = 0.0
    await office.until(lambda: office.metric("delivered") == 10)
    assert [verified(each)["data"]["number"] for each in receiver.asked] == list(range(4, 14))


async def test_a_slow_one_holds_up_nobody(office, stage):
    slow, quick = stage(), stage()
    slow.pause = 3.0
    office.webhooks.adopt((hook(slow, timeout=0.2), hook(quick)))
    for number in range(3):
        office.webhooks.offer(happening(number))
    await office.until(lambda: len(quick.asked) == 3)
    await office.until(lambda: office.metric("failed") >= 2)
    assert "no answer within 0.2 s" in office.said("webhook failing")[0]["error"]


async def test_each_gets_what_it_wants(office, stage):
    receiver = stage()
    office.webhooks.adopt((hook(receiver, "cooling", "provider_up"),))
    for number, kind in enumerate(("cooling", "provider_down", "provider_up")):
        office.webhooks.offer(happening(number, kind))
    await office.until(lambda: office.metric("delivered") == 2)
    assert [verified(each)["type"] for each in receiver.asked] == ["cooling", "provider_up"]


async def test_no_private_network_unless_allowed_and_no_redirect(office, stage):
    inside, redirecting = stage(), stage(307, 200)
    named = Webhook(f"http://localhost:{inside.port}/", KEY)
    office.webhooks.adopt((named, hook(inside, private=False), hook(redirecting)))
    office.webhooks.offer(happening(1))
    await office.until(lambda: office.metric("given_up") == 2 and office.metric("delivered") == 1)
    assert inside.asked == []
    assert {each.path for each in redirecting.asked} == {"/hook?token=t"}
    assert {line["error"] for line in office.said("webhook given up")} == {"its name leads into a network of one's own"}


async def test_what_waits_for_one_that_stays_goes_on_waiting(office, stage, monkeypatch):
    monkeypatch.setattr(webhooks, "PAUSES", (0.5,))
    stays, goes = stage(500, 200), stage(500)
    office.webhooks.adopt((hook(stays), hook(goes)))
    office.webhooks.offer(happening(1))
    await office.until(lambda: office.metric("failed") == 2)
    office.webhooks.adopt((hook(stays),))
    assert office.metric("dropped") == 1
    await office.until(lambda: office.metric("delivered") == 1)
    assert len(goes.asked) == 1


def test_a_webhook_does_not_print_what_signs():
    assert "plain" not in repr(Webhook("https://h/secret-path", b"plain"))
    assert "secret-path" not in repr(Webhook("https://h/secret-path", b"plain"))
