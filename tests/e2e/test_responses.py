"""The responses API through the real gateway with the official SDK: same shape, crossed, and what the provider keeps."""

from __future__ import annotations

import json
import socket
import urllib.request

import openai
import pytest
from openai.types.responses import Response

from e2e.conftest import HARD_KEY, KEY, OTHER_KEY, Gateway
from e2e.recorded import chosen
from e2e.test_jobs import row
from processes import eventually
from replay.recordings import Recordings
from replay.studio import Studio


def test_recorded_replies_arrive_with_nothing_changed_but_their_ids(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    cases = [each for each in recordings.select(provider="openai", api="responses", streaming=False) if each.status == 200 and each.request]
    assert len(cases) > 20
    asked = 0
    for each in cases:
        if "model" not in each.request or "input" not in each.request or each.request.get("previous_response_id"):
            continue
        got = openai_client.responses.create(model=f"openai/{each.id}", input="hi").to_dict()
        wanted = Response.construct(**json.loads(each.body)).to_dict()
        assert got.pop("id").startswith("resp_")
        assert got.pop("id", None) != wanted.pop("id")
        for sealed in ("previous_response_id", "conversation"):
            got.pop(sealed, None), wanted.pop(sealed, None)
        assert got == wanted, each.id
        asked += 1
    assert asked > 15


def test_recorded_streams_accumulate(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    cases = [each for each in recordings.select(provider="openai", api="responses", streaming=True) if b"event: response.completed" in each.body][:12]
    for each in cases:
        wanted = [json.loads(line[6:]) for line in each.body.decode().splitlines() if line.startswith("data: {")]
        got = list(openai_client.responses.create(model=f"openai/{each.id}", input="hi", stream=True))
        assert [event.type for event in got] == [event["type"] for event in wanted], each.id
        ids = {event.response.id for event in got if hasattr(event, "response")}
        assert len(ids) == 1


def test_it_reaches_other_shapes(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = next(each for each in chosen(recordings, "anthropic", "messages", streaming=False) if b'"text":' in each.body)
    reply = openai_client.responses.create(model=f"anthropic/{each.id}", input="hi")
    assert reply.output_text == "".join(block.get("text") or "" for block in json.loads(each.body)["content"])
    streamed = next(each for each in chosen(recordings, "anthropic", "messages", streaming=True) if b"text_delta" in each.body)
    with openai_client.responses.stream(model=f"anthropic/{streamed.id}", input="hi") as stream:
        final = stream.get_final_response()
    assert final.output_text
    assert final.usage.output_tokens
    with pytest.raises(openai.BadRequestError):
        openai_client.responses.create(model=f"anthropic/{each.id}", input="hi", background=True)


@pytest.mark.parametrize("stream", [False, True])
def test_an_id_goes_sealed_and_comes_back_to_who_made_it(openai_client: openai.OpenAI, studio: Studio, *, stream: bool) -> None:
    if stream:
        *_, last = openai_client.responses.create(model="studio/m", input="one", stream=True)
        first = last.response
    else:
        first = openai_client.responses.create(model="studio/m", input="one")
    assert first.id.startswith("resp_")
    assert first.id != "resp_made"
    second = openai_client.responses.create(model="studio/m", input="two", previous_response_id=first.id)
    assert json.loads(second.output_text)["previous_response_id"] == "resp_made"
    assert second.previous_response_id == first.id


def test_what_is_kept_can_be_asked_for_and_is_not_billed_again(openai_client: openai.OpenAI, studio: Studio, gateway: Gateway) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    raw = openai_client.responses.with_raw_response.retrieve(made.id, include=["message.output_text.logprobs"])
    assert raw.parse().id == made.id
    assert studio.received[-1].path == "/v1/responses/resp_made?include%5B%5D=message.output_text.logprobs"
    booked = row(gateway, raw.headers["x-request-id"])
    assert (booked.get("input", 0), booked["provider"]) == (0, "studio")
    streamed = openai_client.responses.with_raw_response.retrieve(made.id, stream=True, starting_after=6)
    (event,) = streamed.parse()
    assert event.response.id == made.id
    assert row(gateway, streamed.headers["x-request-id"]).get("output", 0) == 0
    assert openai_client.responses.input_items.list(made.id).data == []
    assert openai_client.responses.cancel(made.id).id == made.id
    openai_client.responses.delete(made.id)
    assert (studio.received[-1].method, studio.received[-1].path) == ("DELETE", "/v1/responses/resp_made")


def test_a_key_in_the_query_is_for_the_gateway_alone(openai_client: openai.OpenAI, gateway: Gateway, studio: Studio) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    for query in (f"key={KEY}&include=a", f"include=a&key={KEY}", f"%6bey=x&include=a&key={KEY}&key=b"):
        with urllib.request.urlopen(f"{gateway.url}/v1/responses/{made.id}?{query}") as reply:
            assert json.load(reply)["id"] == made.id
        asked = studio.received[-1].path
        assert "include=a" in asked
        assert KEY not in asked


def test_another_tenant_finds_nothing(openai_client: openai.OpenAI, gateway: Gateway, studio: Studio) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    stranger = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=OTHER_KEY, max_retries=0)
    before = len(studio.received)
    for name in (made.id, "resp_made", "resp_", "x"):
        with pytest.raises(openai.NotFoundError) as caught:
            stranger.responses.retrieve(name)
        assert caught.value.param == "response_id"
    for wrong in ({"previous_response_id": made.id}, {"conversation": "conv_1"}, {"previous_response_id": "resp_made"}):
        with pytest.raises(openai.NotFoundError):
            stranger.responses.create(model="studio/m", input="two", **wrong)
    assert len(studio.received) == before
    with pytest.raises(openai.NotFoundError, match="another model's provider"):
        openai_client.responses.create(model="broken/fine", input="two", previous_response_id=made.id)


def test_azures_paths_are_served(gateway: Gateway, studio: Studio) -> None:
    for version in ("2025-04-01-preview", "preview"):
        client = openai.AzureOpenAI(azure_endpoint=gateway.url, api_key=KEY, api_version=version, max_retries=0)
        made = client.responses.create(model="studio/m", input="one")
        assert made.output_text
        assert client.responses.retrieve(made.id, include=["message.output_text.logprobs"]).id == made.id
        assert studio.received[-1].path == "/v1/responses/resp_made?include%5B%5D=message.output_text.logprobs"


def test_of_a_kept_stream_a_head_request_gets_the_head_alone(openai_client: openai.OpenAI, gateway: Gateway) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    host, port = gateway.url.removeprefix("http://").split(":")
    lines = f"HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(f"HEAD /v1/responses/{made.id}?stream=true {lines}\r\n".encode())
        replies = b""
        while b"\r\n\r\n" not in replies:
            replies += sock.recv(65536)
        sock.sendall(f"GET /health/live {lines}Connection: close\r\n\r\n".encode())
        while data := sock.recv(65536):
            replies += data
    first, _, second = replies.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 200 "), second[:200]


def test_what_is_only_looked_at_is_looked_at_each_time_whatever_its_idempotency_key(openai_client: openai.OpenAI, studio: Studio) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    before = len(studio.received)
    for more in ({}, {}, {"starting_after": 3}):
        reply = openai_client.responses.with_raw_response.retrieve(made.id, extra_query=more, extra_headers={"Idempotency-Key": "whole-job"})
        assert reply.headers.get("idempotent-replayed") is None
    assert len(studio.received) == before + 3
    for _ in range(2):
        openai_client.responses.delete(made.id, extra_headers={"Idempotency-Key": "whole-job"})
    assert len(studio.received) == before + 4


@pytest.mark.parametrize(("more", "output"), [({}, 256), ({"max_output_tokens": 40}, 40)])
def test_what_answers_later_is_billed_by_estimate_since_nobody_will_say(
    openai_client: openai.OpenAI, gateway: Gateway, more: dict[str, int], output: int
) -> None:
    raw = openai_client.responses.with_raw_response.create(model="studio/m", input="one two " * 200, background=True, extra_body=more)
    made = raw.parse()
    assert made.status == "queued"
    booked = row(gateway, raw.headers["x-request-id"])
    assert (booked["estimated"], booked["output"], 300 < booked["input"] < 500) == (True, output, True)
    later = openai_client.responses.with_raw_response.retrieve(made.id)
    assert "input" not in row(gateway, later.headers["x-request-id"])


@pytest.mark.parametrize("query", ["stream=True", "include=a&stream=TRUE&starting_after=6"])
def test_a_kept_stream_is_sealed_however_it_was_asked_for(openai_client: openai.OpenAI, gateway: Gateway, query: str) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    asked = urllib.request.Request(f"{gateway.url}/v1/responses/{made.id}?{query}", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked) as reply:
        body = reply.read()
    assert reply.headers["content-type"] == "text/event-stream"
    assert json.loads(body.partition(b"data: ")[2])["response"]["id"] == made.id


def test_a_response_that_failed_is_told_as_it_is_kept_and_is_nobodys_failure_now(
    openai_client: openai.OpenAI, gateway: Gateway, studio: Studio
) -> None:
    made, before = openai_client.responses.create(model="studio/m", input="one"), len(studio.received)
    for _ in range(6):
        streamed = openai_client.responses.with_raw_response.retrieve(made.id, stream=True, extra_query={"include": "failed"})
        (event,) = streamed.parse()
        assert (event.type, event.response.id, event.response.error.message) == ("response.failed", made.id, "no answer came")
    assert "outcome" not in row(gateway, streamed.headers["x-request-id"])
    assert openai_client.responses.retrieve(made.id).id == made.id
    assert len(studio.received) == before + 7


def test_of_a_response_that_is_gone_is_said_that_it_is_no_missing_model(openai_client: openai.OpenAI, studio: Studio) -> None:
    made, before = openai_client.responses.create(model="studio/m", input="one"), len(studio.received)
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.responses.retrieve(made.id, extra_query={"include": "gone"})
    assert (caught.value.code, caught.value.param) == ("not_found", "response_id")
    assert "resp_made" not in caught.value.message
    assert len(studio.received) == before + 1


@pytest.mark.parametrize("words", [10, 2000])
def test_what_goes_on_when_its_client_leaves_is_billed_as_what_it_will_be(openai_client: openai.OpenAI, gateway: Gateway, words: int) -> None:
    raw = openai_client.responses.with_raw_response.create(model="studio/m", input="word " * words, background=True, stream=True)
    stream = raw.parse()
    assert next(iter(stream)).response.id
    stream.close()
    eventually(lambda: row(gateway, raw.headers["x-request-id"])["status"] == 499, 20.0, StopIteration)
    booked = row(gateway, raw.headers["x-request-id"])
    assert (booked["estimated"], booked["output"] >= 256, booked["input"] >= words) == (True, True, True)


def test_what_is_kept_costs_nothing_under_a_hard_budget_too(openai_client: openai.OpenAI, gateway: Gateway, studio: Studio) -> None:
    made = openai_client.responses.create(model="studio/m", input="one")
    careful = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=HARD_KEY, max_retries=0, timeout=20)
    for _ in range(3):
        assert careful.responses.retrieve(made.id).id == made.id
    assert [event.type for event in careful.responses.retrieve(made.id, stream=True)] == ["response.completed"]
    assert careful.responses.input_items.list(made.id).data == []
    told = careful.responses.with_raw_response.cancel(made.id).headers["x-ratelimit-remaining-tokens"]
    assert int(told) > 190
    careful.responses.delete(made.id)
    assert studio.received[-1].method == "DELETE"
