"""The real operator asking providers that come and go."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from admin.stage import Stage
from llm_gateway.admin.probes import load_speakers, probe
from llm_gateway.config.snapshot import Aws, Health, Provider, ProviderKey
from processes import eventually

FAST = "resilience: {health: {interval: 0.1, timeout: 1, fall: 3, rise: 2}}\n"


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def start(*statuses: int) -> Stage:
        made.append(Stage(*statuses))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def health(running) -> dict[str, dict]:
    return {each["name"]: each for each in json.loads(running.ask("/health")[1])["providers"]}


def found(entry, name: str) -> bool | None:
    """What a worker was told of a provider: nothing, where it came before the first probe."""
    return entry["probed"].get(name, (None,))[0]


def test_a_provider_falls_and_rises(plane, stage):
    upstream = stage()
    lab = f"{{type: openai_compatible, base_url: '{upstream.url}', api_key: sk-lab}}"
    running = plane(f"providers: {{lab: {lab}, echo: {{}}}}\n{FAST}", workers=2)
    eventually(lambda: health(running)["lab"]["latency_ms"] is not None)
    assert (health(running)["lab"]["healthy"], upstream.asked[0].path) == (True, "/v1/models")
    assert upstream.asked[0].headers["authorization"] == "Bearer sk-lab"
    upstream.stop()
    eventually(lambda: not health(running)["lab"]["healthy"])
    assert running.metric('llm_gateway_probes_total{provider="lab",result="down"}') >= 3
    assert running.metric('llm_gateway_provider_healthy{provider="lab"}') == 0
    assert running.metric('llm_gateway_provider_healthy{provider="echo"}') == 1
    assert json.loads(running.ask("/health")[1])["status"] == "degraded"
    down = eventually(lambda: running.events("?event=provider_down"))[0]
    assert down["data"]["provider"] == "lab"
    assert "Could not connect" in down["data"]["reason"]
    eventually(lambda: {entry["index"] for entry in running.told("probed") if found(entry, "lab") is False} == {0, 1})
    (told,) = {entry["changed"][0]["what"] for entry in running.told("changed")}
    assert told == "provider_down"
    upstream.start()
    eventually(lambda: health(running)["lab"]["healthy"])
    assert [each["type"] for each in running.events() if each["type"].startswith("provider_")] == ["provider_down", "provider_up"]
    assert running.notices("provider_down")[0]["provider"] == "lab"
    eventually(lambda: found(running.told("probed")[-1], "lab") is True)
    assert "echo" not in running.told("probed")[-1]["probed"]


def test_only_what_is_broken_is_down_and_a_refused_key_is_told_once(plane, stage):
    refused, missing, failing, redirecting = stage(401), stage(404), stage(500), stage(302)
    lines = "".join(
        f"  {name}: {{type: openai_compatible, base_url: '{each.url}', api_key: sk-{name}}}\n"
        for name, each in (("refused", refused), ("missing", missing), ("failing", failing), ("redirecting", redirecting))
    )
    running = plane(f"providers:\n{lines}  open: {{type: openai_compatible, base_url: '{refused.url}'}}\n{FAST}")
    eventually(lambda: not health(running)["failing"]["healthy"])
    eventually(lambda: running.metric('llm_gateway_probes_total{provider="refused"') >= 5)
    shown = health(running)
    assert [name for name, each in shown.items() if not each["healthy"]] == ["failing"]
    told = [each["data"] for each in running.events("?event=credentials_refused")]
    assert told == [{"provider": "refused", "key": "0", "status": 401}]  # once, and not of the one without a key
    assert "sk-refused" not in (running.folder / "log").read_text()
    assert not [each for each in redirecting.asked if each.path == "/elsewhere"]


@pytest.mark.slow
def test_each_key_gets_its_turn_and_never_are_two_asked_at_once(plane, stage):
    upstream = stage()
    upstream.pause = 0.25
    keys = "[{key: sk-one, name: one}, {key: sk-two, name: two}]"
    running = plane(f"providers: {{lab: {{type: openai, base_url: '{upstream.url}', keys: {keys}, headers: {{x-team: blue}}}}}}\n{FAST}")
    eventually(lambda: len(upstream.asked) >= 4)
    assert [each.headers["authorization"] for each in upstream.asked[:4]] == ["Bearer sk-one", "Bearer sk-two"] * 2
    assert (upstream.at_once, upstream.asked[0].headers["x-team"]) == (1, "blue")
    assert running.metric('llm_gateway_probe_latency_seconds{provider="lab"}') > 0.2


def test_a_provider_that_is_too_slow_is_down(plane, stage):
    upstream = stage()
    upstream.pause = 1.0
    own = "health: {interval: 0.1, timeout: 0.1, fall: 1, path: '/health?deep=1'}"
    off = f"off: {{type: vllm, base_url: '{upstream.url}/off', health: {{enabled: false}}}}"
    running = plane(f"providers: {{lab: {{type: vllm, base_url: '{upstream.url}', {own}}}, {off}}}")
    eventually(lambda: not health(running)["lab"]["healthy"])
    assert {each.path for each in upstream.asked} == {"/health?deep=1"}
    assert health(running)["off"] == {"name": "off", "healthy": True, "latency_ms": None}
    down = eventually(lambda: running.events("?event=provider_down"))[0]
    assert down["data"]["reason"] == "no answer within 0.1 s"


@pytest.mark.slow
def test_a_reload_asks_the_new_ones_and_leaves_the_old_alone(plane, stage):
    first, second = stage(), stage()
    running = plane(f"providers: {{lab: {{type: vllm, base_url: '{first.url}'}}}}\n{FAST}")
    eventually(lambda: first.asked)
    running.config.write_text(running.config.read_text().replace(first.url, second.url))
    running.reload()
    eventually(lambda: second.asked)
    before = len(first.asked)
    seen = len(second.asked)
    eventually(lambda: len(second.asked) > seen + 3)
    assert len(first.asked) - before <= 1  # one may have been under way


def test_a_worker_that_comes_late_is_told_what_was_found(plane, stage):
    upstream = stage(500)
    running = plane(f"providers: {{lab: {{type: vllm, base_url: '{upstream.url}'}}}}\n{FAST}")
    eventually(lambda: running.events("?event=provider_down"))
    os.kill(running.children("worker 0")[0], signal.SIGKILL)
    pid = eventually(lambda: running.children("worker 0")[1])
    eventually(lambda: [each for each in running.told("changed") if each["pid"] == pid])
    told = next(each["changed"] for each in running.told("changed") if each["pid"] == pid)
    assert [(each["provider"], each["what"]) for each in told] == [("lab", "provider_down")]
    eventually(lambda: [each for each in running.told("probed") if each["pid"] == pid and found(each, "lab") is False])


SPEAKERS = load_speakers()


def made(kind: str, **more: object) -> Provider:
    return Provider(name="p", type=kind, base_url="https://host.example:8443/api", **more)


def test_what_is_sent_is_the_services_own_cheap_request():
    found = probe(made("anthropic", keys=(ProviderKey("a", "sk-1"),), headers=(("X-Team", "blue"),)), None, 0, SPEAKERS("anthropic"))
    head = found.request.decode().split("\r\n")
    assert head[0] == "GET /api/v1/models HTTP/1.1"
    assert {"host: host.example:8443", "x-api-key: sk-1", "x-team: blue", "user-agent: llm-gateway"} <= set(head)
    assert (found.key, found.origin.host, head[-2:]) == ("a", "host.example", ["", ""])


def test_a_service_without_one_is_asked_only_for_a_configured_path():
    key = (ProviderKey("a", "bedrock-key"),)
    assert probe(made("bedrock", keys=key), None, 0, SPEAKERS("bedrock")) is None
    found = probe(made("bedrock", keys=key, health=Health(path="/ping")), None, 0, SPEAKERS("bedrock"))
    assert found.request.startswith(b"GET /ping HTTP/1.1\r\n")
    assert b"bedrock-key" not in found.request
    assert found.key == ""


def test_cloud_credentials_are_sent_as_the_cloud_wants_them():
    found = probe(made("vertex", cloud=Aws()), "ya29.token", 3, SPEAKERS("vertex"))
    assert b"authorization: Bearer ya29.token\r\n" in found.request
    assert found.key == "cloud"


@pytest.mark.slow
def test_nobody_is_asked_for_before_the_operator_answers(plane, stage):
    """Loading every provider's module takes longer than an answer of the operator may."""
    upstream = stage()
    running = plane(f"providers: {{lab: {{type: vllm, base_url: '{upstream.url}'}}}}\n{FAST}")
    os.kill(running.children("operator")[0], signal.SIGKILL)
    count = len(upstream.asked)
    begun = time.monotonic()
    eventually(lambda: running.ask("/health/live")[0] == 200)
    assert time.monotonic() - begun < 5.0
    eventually(lambda: len(upstream.asked) > count)
