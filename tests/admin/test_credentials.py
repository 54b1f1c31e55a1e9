"""The keyring: when it fetches, what it hands on, what it says when it cannot. Sources are scripted, time is short."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Callable

import pytest

from llm_gateway.admin import credentials
from llm_gateway.admin.clouds import Credential
from llm_gateway.admin.credentials import Keyring
from llm_gateway.admin.notices import Notices
from llm_gateway.config.snapshot import Aws, Google, Provider, Server, Snapshot

Script = Callable[[], Credential]


def snapshot(*providers: Provider) -> Snapshot:
    return Snapshot(
        generation=1, digest="", version="", workers=1, data_dir="", secret=b"", server=Server(listeners=()), providers=providers,
        aliases=(), keys=(),
    )  # fmt: skip


def aws(name: str = "aws", region: str = "eu-west-1", profile: str | None = None) -> Provider:
    return Provider(name=name, type="bedrock", base_url=f"https://{region}", region=region, cloud=Aws(profile))


class Bench:
    """A keyring over scripted sources, and everything that came out of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fetch: Callable[[object], Credential]) -> None:
        self.published: list[dict[str, str]] = []
        self.log = io.StringIO()
        self.skew = 0.0
        monkeypatch.setattr(credentials, "source", lambda cloud, _: lambda: fetch(cloud))
        self.keyring = Keyring(self.published.append, Notices(self.log, "json", "info"), self.now)

    def now(self) -> float:
        return time.time_ns() / 1e9 + self.skew

    def said(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(6):
            while not check():
                await asyncio.sleep(0.01)


def numbered(validity: float | None) -> tuple[Callable[[object], Credential], list[float]]:
    asked: list[float] = []

    def fetch(_: object) -> Credential:
        asked.append(time.monotonic())
        ends = time.time_ns() / 1e9 + validity if validity is not None else None
        return Credential(f"key-{len(asked)}", ends)

    return fetch, asked


async def test_what_ends_soon_is_fetched_again_before_it_ends(monkeypatch):
    fetch, asked = numbered(4.0)
    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    assert bench.keyring.troubles() == {"aws": "credentials are being fetched"}
    await bench.until(lambda: len(bench.published) == 3)
    await bench.keyring.close()
    assert bench.published == [{}, {"aws": "key-1"}, {"aws": "key-2"}]
    assert 1.5 < asked[1] - asked[0] < 3.5
    assert [entry["event"] for entry in bench.said()] == ["cloud credentials fetched"] * 2
    assert "key-" not in bench.log.getvalue()


@pytest.mark.parametrize(
    ("left", "low", "high"),
    [(3600.0, 3300.0, 3360.0), (900.0, 600.0, 660.0), (500.0, 249.0, 261.0), (200.0, 99.0, 101.0), (1.0, 1.0, 1.0), (0.0, 60.0, 60.0), (-5.0, 60.0, 60.0)],
)
def test_the_wait_leaves_five_minutes_and_never_less_than_half(monkeypatch, left, low, high):
    bench = Bench(monkeypatch, numbered(left)[0])
    wait = bench.keyring._until_next(Credential("k", bench.now() + left))
    assert low - 0.1 <= wait <= high + 0.1


def test_what_never_ends_is_looked_for_again(monkeypatch):
    assert Bench(monkeypatch, numbered(None)[0]).keyring._until_next(Credential("k")) == credentials.UNDATED


async def test_a_failure_changes_nothing_but_what_is_said(monkeypatch):
    state = {"broken": False}

    def fetch(_: object) -> Credential:
        if state["broken"]:
            raise OSError(f"denied\nfor token {'x' * 80}")
        state["broken"] = True
        return Credential("key-1", time.time_ns() / 1e9 + 3)

    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(lambda: bench.keyring.troubles() == {"aws": "its credentials still hold, but the last attempt to renew them failed"})
    assert bench.keyring.keys() == {"aws": "key-1"}
    assert bench.keyring.metrics()["llm_gateway_credentials_failures_total"] == {'provider="aws"': 1}
    assert 0 < bench.keyring.metrics()["llm_gateway_credentials_expiry_seconds"]['provider="aws"'] < 3
    bench.skew = 10.0
    assert bench.keyring.troubles() == {"aws": "its credentials have expired"}
    assert bench.keyring.metrics()["llm_gateway_credentials_expiry_seconds"]['provider="aws"'] < 0
    bench.skew, state["broken"] = 0.0, False
    await bench.until(lambda: not bench.keyring.troubles())
    await bench.keyring.close()
    failed = next(entry for entry in bench.said() if entry["event"] == "cloud credentials not fetched")
    assert failed["error"] == "OSError: denied for token [...]"
    assert failed["provider"] == "aws"


async def test_the_first_may_fail_too(monkeypatch):
    tries = []

    def fetch(_: object) -> Credential:
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("AccessKeyId")
        return Credential("key", None)

    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(lambda: tries)
    await bench.until(lambda: bench.keyring.troubles() == {"aws": "no credentials: the last attempt to get some failed"})
    assert bench.published == [{}]
    assert bench.keyring.metrics()["llm_gateway_credentials_expiry_seconds"] == {}
    await bench.until(lambda: len(bench.published) == 2)
    await bench.keyring.close()


async def test_a_reload_keeps_who_stayed_and_begins_anew_with_who_changed(monkeypatch):
    asked: list[object] = []

    def fetch(cloud: object) -> Credential:
        asked.append(cloud)
        return Credential(f"key-{len(asked)}", None)

    bench = Bench(monkeypatch, fetch)
    plain = Provider(name="openai", type="openai", base_url="https://o")
    google = Provider(name="google", type="vertex", base_url="https://g", cloud=Google("{}"))
    bench.keyring.adopt(snapshot(plain, aws(), google))
    await bench.until(lambda: len(bench.keyring.keys()) == 2)
    before = bench.keyring.keys()
    bench.keyring.adopt(snapshot(plain, aws(profile="blue"), google))
    assert bench.published[-1] == {"google": before["google"]}, "said again, since workers forget"
    await bench.until(lambda: bench.keyring.keys().get("aws"))
    assert asked[2:] == [Aws("blue")]
    bench.keyring.adopt(snapshot(plain))
    assert bench.published[-1] == {}, "so that nobody who starts later gets what no longer holds"
    await bench.keyring.close()


async def test_the_same_again_is_not_handed_on_again(monkeypatch):
    tries = []

    def fetch(_: object) -> Credential:
        tries.append(1)
        return Credential("same", time.time_ns() / 1e9 + 1.5)

    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(lambda: len(tries) == 3)
    await bench.keyring.close()
    assert bench.published == [{}, {"aws": "same"}]


@pytest.mark.parametrize("value", ["", "a\r\nx: y", "é", None, 5])
async def test_what_is_no_credential_is_not_handed_on(monkeypatch, value):
    bench = Bench(monkeypatch, lambda _: Credential(value, None))
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(bench.said)
    await bench.keyring.close()
    assert bench.said()[0]["error"] == "what came back is no credential"
    assert bench.published == [{}]


async def test_a_library_that_runs_out_of_time_says_so_itself(monkeypatch):
    def fetch(_: object) -> Credential:
        raise TimeoutError("the metadata server did not answer")

    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(bench.said)
    await bench.keyring.close()
    assert bench.said()[0]["error"] == "TimeoutError: the metadata server did not answer"


async def test_a_cloud_that_hangs_holds_nobody_up(monkeypatch):
    gate = threading.Event()

    def fetch(_: object) -> Credential:
        gate.wait(20)
        return Credential("late", None)

    monkeypatch.setattr(credentials, "PATIENCE", 0.2)
    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(bench.said)
    assert bench.said()[0]["error"] == "no answer within 0 s"
    begun = time.monotonic()
    await bench.keyring.close()
    assert time.monotonic() - begun < 0.5
    gate.set()
    await asyncio.sleep(0.05)
    assert bench.published == [{}], "who is no longer waited for is not heard"


@pytest.mark.parametrize("step", [3500.0, 5000.0])
async def test_a_clock_that_is_set_and_a_machine_that_slept_are_noticed(monkeypatch, step):
    """Who waits for 55 minutes by another clock would go on with what has ended."""
    monkeypatch.setattr(credentials, "BEAT", 0.05, raising=False)
    asked = []

    def fetch(_: object) -> Credential:
        asked.append(1)
        return Credential(f"key-{len(asked)}", bench.now() + 3600)

    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(lambda: bench.published[1:])
    bench.skew = -5000.0
    await asyncio.sleep(0.2)
    assert len(asked) == 1, "nothing ends sooner by a clock that is set back"
    bench.skew = step
    await bench.until(lambda: bench.published[2:])
    await bench.keyring.close()
    assert bench.published[2:] == [{"aws": "key-2"}]


async def test_a_cloud_that_hangs_for_ever_takes_few_threads(monkeypatch):
    """Each may have a process of its own, that says who we are."""
    gate = threading.Event()
    asked = []

    def fetch(_: object) -> Credential:
        asked.append(1)
        gate.wait(30)
        return Credential(f"key-{len(asked)}", None)

    for name, seconds in (("PATIENCE", 0.02), ("SOONEST", 0.01), ("LONGEST_PAUSE", 0.02)):
        monkeypatch.setattr(credentials, name, seconds)
    bench = Bench(monkeypatch, fetch)
    bench.keyring.adopt(snapshot(aws()))
    await bench.until(lambda: bench.keyring.metrics()["llm_gateway_credentials_failures_total"]['provider="aws"'] >= 30)
    assert len(asked) < 10
    gate.set()
    await bench.until(bench.keyring.keys)
    await bench.keyring.close()
