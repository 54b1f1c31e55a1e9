"""What callers may ask of routing, asked by their SDKs; sessions; where data may not go, told in each API's words."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.routing import options
from replay.faulty import FaultyUpstream, answering
from routing.test_breakers import Gateway
from routing.test_failover import KEY, Loop

HI: Any = [{"role": "user", "content": "hi"}]
INSIDE, FEW = "sk-inside-0123456789", "sk-few-0123456789"


class Place:
    def __init__(self, folder: Path, loop: Loop) -> None:
        self.upstream = FaultyUpstream()
        loop.run(self.upstream.start())
        at: dict[str, Any] = {"type": "openai_compatible", "base_url": self.upstream.url, "api_key": "k", "max_retries": 0}
        self.gateway = Gateway(folder, {
            "providers": {
                "near": {**at, "region": "eu-west-1"}, "far": {**at, "region": "us-east-1"}, "nowhere": at,
            },
            "models": {
                "m": {"targets": ["far/x"], "fallbacks": ["near/y", "nowhere/z"]},
                "spread": {"strategy": "round_robin", "sticky": "prefix", "targets": ["near/x", "far/x", "nowhere/x"]},
                "ruled": {"targets": ["far/x"], "rules": [{"when": {"tags": ["batch"], "prompt_over": 100}, "use": "slow"}]},
                "slow": {"targets": ["nowhere/slow"]},
                "abroad": {"targets": ["far/x", "nowhere/x"]},
            },
            "keys": [
                {"name": "f", "key": KEY}, {"name": "in", "key": INSIDE, "tenant": "inside"}, {"name": "few", "key": FEW, "models": ["m"]},
            ],
            "prices": {"far/x": {"input": 1, "output": 1}, "near/y": {"input": 9, "output": 9}},
            "residency": {"tenants": {"inside": ["eu"]}},
            "resilience": {"breaker": {"enabled": False}, "health": {"enabled": False}},
        })  # fmt: skip
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)

    def went(self, model: str = "m", messages: Any = None, key: str = KEY, headers: dict[str, str] | None = None, **body: Any) -> str:
        raw = self.client.with_options(api_key=key).chat.completions.with_raw_response.create(
            model=model, messages=messages or HI, extra_body=body, extra_headers=headers or {}
        )
        self.headers = dict(raw.headers)
        return f"{raw.headers['x-gateway-provider']}/{raw.headers['x-gateway-model']}"

    def post(self, path: str, body: dict[str, Any], key: str) -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.gateway.port}{path}", json.dumps(body).encode())
        request.add_header("authorization", f"Bearer {key}")
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("wishes"), Loop())
    yield made
    made.client.close()
    made.gateway.process.send_signal(2)
    made.gateway.process.wait(10)


@pytest.mark.parametrize(
    ("wish", "goes_to"),
    [
        ({}, "far/x"),
        ({"order": ["nowhere", "near"]}, "nowhere/z"),
        ({"only": ["near"]}, "near/y"),
        ({"ignore": ["far/x"]}, "near/y"),
        ({"region": "eu"}, "near/y"),
        ({"region": ["us-*"]}, "far/x"),
        ({"sort": "price", "ignore": ["nowhere"]}, "far/x"),
        ({"sort": {"by": "price"}, "ignore": ["far"]}, "near/y"),
        ({"max_price": {"prompt": 20}, "ignore": ["far"]}, "near/y"),
        ({"max_price": {"completion": 5}}, "far/x"),
        (None, "far/x"),
    ],
)
def test_wishes_are_honoured_and_stripped(place: Place, wish: Any, goes_to: str) -> None:
    place.upstream.forget()
    assert place.went(provider=wish) == goes_to
    assert place.upstream.received[0].json().keys() == {"model", "messages"}


def test_other_models_follow(place: Place) -> None:
    place.upstream.script("status:500", "status:500", "status:500")
    assert place.went(models=["slow"]) == "nowhere/slow"
    place.upstream.script("status:500")
    with pytest.raises(openai.InternalServerError):
        place.went(provider={"allow_fallbacks": False})


def test_a_key_cannot_name_models_it_may_not_use(place: Place) -> None:
    place.upstream.script(*["status:500"] * 3)
    with pytest.raises(openai.InternalServerError):
        place.went(models=["slow", "near/secret"], key=FEW)
    with pytest.raises(openai.NotFoundError):
        place.went("slow", models=["m"], key=FEW)


def test_what_leaves_nobody_is_said_by_name(place: Place) -> None:
    for wish in ({"only": ["nobody"]}, {"region": "asia"}, {"max_price": {"prompt": 0.1}}):
        with pytest.raises(openai.BadRequestError) as refused:
            place.went(provider=wish)
        assert (refused.value.code, refused.value.param) == ("no_provider_left", "provider")
    with pytest.raises(openai.BadRequestError) as refused:
        place.went(provider={"sort": "beauty"})
    assert refused.value.param == "provider.sort"


def test_what_nobody_knows_is_said_to_be_dropped_and_writes_no_header(place: Place) -> None:
    place.went(provider={"zdr": True, "a\r\nx-evil: 1": 1})
    assert place.headers["x-gateway-dropped-params"] == "provider.zdr, provider.a??x-evil: 1"
    assert "x-evil" not in place.headers


@pytest.mark.parametrize("inner", ['{"zdr":%s}', '{"only":%s}', "%s"])
def test_wishes_nested_too_deeply_are_the_callers_fault(inner: str) -> None:
    for depth in range(800, 1100):
        for member in ("provider", "models"):
            said = Raw((inner % ('{"a":' * depth + "1" + "}" * depth)).encode())
            with contextlib.suppress(Fault):
                options.take({member: said})


def test_nor_is_it_silent_where_the_request_is_long_and_crosses(place: Place) -> None:
    body = {"model": "near/y", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 60_000}], "top_k": 3, "provider": {"zdr": True}}
    request = urllib.request.Request(f"http://127.0.0.1:{place.gateway.port}/v1/messages", json.dumps(body).encode())
    request.add_header("x-api-key", KEY)
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.headers["x-gateway-dropped-params"] == "provider.zdr, top_k"


def test_every_shape_hears_them(place: Place) -> None:
    wish = {"provider": {"only": ["near"]}}
    for path, body in (
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": HI}),
        ("/v1/responses", {"model": "m", "input": "hi", "store": False}),
        ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        ("/api/chat", {"model": "m", "messages": HI, "stream": False}),
    ):
        place.upstream.forget()
        assert place.post(path, {**body, **wish}, KEY)[0] == 200
        assert place.upstream.received[0].json()["model"] == "y", path
        status, _ = place.post(path, {**body, "provider": ["near"]}, KEY)
        assert status == 400, path


def test_a_conversation_stays_where_its_beginning_is_cached(place: Place) -> None:
    begun = [{"role": "system", "content": "You are the assistant of a shipping company. " * 40}]
    first = place.went("spread", [*begun, {"role": "user", "content": "hi"}])
    grown = [*begun, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "where?"}]
    assert {place.went("spread", grown) for _ in range(6)} == {first}
    others = {place.went("spread", [{"role": "system", "content": f"{number} is your number. " * 60}]) for number in range(24)}
    assert len(others) == 3, "other conversations are spread"
    assert len({place.went("spread", headers={"x-gateway-session": "s"}) for _ in range(6)}) == 1
    assert len({place.went("spread", prompt_cache_key="k") for _ in range(6)}) == 1


def test_rules_go_by_tags_and_sizes(place: Place) -> None:
    long: Any = [{"role": "user", "content": "word " * 500}]
    assert place.went("ruled", long, headers={"x-gateway-tags": "night, batch"}) == "nowhere/slow"
    assert place.went("ruled", HI, headers={"x-gateway-tags": "batch"}) == "far/x"
    assert place.went("ruled", long) == "far/x"
    with pytest.raises(openai.BadRequestError, match="x-gateway-tags"):
        place.went("ruled", headers={"x-gateway-tags": "a b"})


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/chat/completions", {"model": "abroad", "messages": HI}, lambda told: (told["error"]["type"], told["error"]["code"])),
        ("/v1/messages", {"model": "abroad", "max_tokens": 9, "messages": HI}, lambda told: (told["type"], told["error"]["type"])),
        ("/v1beta/models/abroad:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}, lambda told: (told["error"]["code"], told["error"]["status"])),
        ("/model/abroad/converse", {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, lambda told: "eu" in told["message"]),
        ("/api/chat", {"model": "abroad", "messages": HI, "stream": False}, lambda told: "eu" in told["error"]),
        ("/v1/embeddings", {"model": "abroad", "input": "hi"}, lambda told: told["error"]["code"]),
    ],
)
def test_where_data_may_not_go_it_is_refused_in_each_apis_words(place: Place, path: str, body: Any, code: Any) -> None:
    place.upstream.forget()
    status, told = place.post(path, body, INSIDE)
    assert status == 403
    assert code(told) in [("permission_error", "residency"), ("error", "permission_error"), (403, "PERMISSION_DENIED"), True, "residency"]
    assert not place.upstream.received, "nothing left"
    if "embeddings" not in path:
        assert place.post(path, body, KEY)[0] == 200, "others may"


def test_data_stays_inside_whatever_its_sender_wishes(place: Place) -> None:
    assert place.went(key=INSIDE) == "near/y"
    assert place.went(key=INSIDE, models=["abroad", "far/other"], provider={"order": ["far"]}) == "near/y"
    place.upstream.script(answering(500, b"{}"))
    with pytest.raises(openai.InternalServerError):
        place.went(key=INSIDE)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        place.went("far/x", key=INSIDE)
    assert refused.value.code == "residency"
