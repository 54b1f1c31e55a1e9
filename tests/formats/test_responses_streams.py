"""The Responses shape's streams and ids: what the SDK makes of them, what they tell, what they cost."""

from __future__ import annotations

import json
import sys

import httpx  # noqa: TID251  the SDK's own transport
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from openai import APIError, OpenAI

from formats.sampling import generated
from formats.shapes import CALL, NOW, SHAPES, asked
from formats.test_responses import JSON, RESPONSES, USER, event, request
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, Failed
from llm_gateway.core.types import Tool
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import handed_ids, sealed_reply, with_ids
from llm_gateway.formats.openai_responses.watch import SealedPassage

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]


# -- ids that the provider hands out --------------------------------------------------------------------------------------


def test_handed_ids_are_found_and_replaced_and_nothing_else_is():
    own = {"type": "message", "id": "msg_2", "role": "assistant", "content": "x"}
    body = request(
        previous_response_id="resp_1", conversation={"id": "conv_1"}, odd=[1.0],
        input=[{"type": "item_reference", "id": "msg_1"}, {"id": "msg_3"}, own],
    )  # fmt: skip
    peek = RESPONSES.peek(body)
    assert handed_ids(peek) == {"msg_1": "input", "msg_3": "input", "resp_1": "previous_response_id", "conv_1": "conversation"}
    changed = with_ids(peek, {"resp_1": "A", "conv_1": "B", "msg_3": "C", "msg_2": "never"})
    sent = json.loads(RESPONSES.forward(changed, "m").body)
    assert sent == {
        "model": "m", "previous_response_id": "A", "conversation": {"id": "B"}, "odd": [1.0],
        "input": [{"type": "item_reference", "id": "msg_1"}, {"id": "C"}, own],
    }  # fmt: skip
    assert handed_ids(RESPONSES.peek(request(conversation="conv_2"))) == {"conv_2": "conversation"}
    assert handed_ids(RESPONSES.peek(request(input=[own, USER], previous_response_id=None))) == {}


def test_a_sealed_reply_keeps_every_other_value():
    body = b'{"id":"r1","a":1.0,"previous_response_id":"r0","conversation":{"id":"c0","x":1e3},"output":[{"id":"r1"}]}'
    told_ = sealed_reply(body, "s-{}".format)
    assert told_ == (
        b'{"id":"s-r1","a":1.0,"previous_response_id":"s-r0","conversation":{"id":"s-c0","x":1e3},"output":[{"id":"r1"}]}'
    )
    for other in (b"junk", b"[]", b'{"error":{"message":"x"}}'):
        assert sealed_reply(other, "s-{}".format) == other


# -- streams ------------------------------------------------------------------------------------------------------------


DELTA = event(
    "response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=" word", sequence_number=9
)
OPENING = event("response.created", response={"id": "r"}, sequence_number=0) + event(
    "response.content_part.added", output_index=0, content_index=0, part={"type": "output_text", "text": ""}
)
BLOCKS = [
    {"type": "message_start", "message": {"id": "m", "model": "claude"}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "SIG"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": '{"a":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "1}"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"input_tokens": 3, "output_tokens": 5}},
    {"type": "message_stop"},
]


def anthropic_stream() -> bytes:
    return b"".join(event(block["type"], **{name: block[name] for name in block if name != "type"}) for block in BLOCKS)


def sdk(body: bytes) -> OpenAI:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    return OpenAI(
        api_key="k",
        base_url="http://127.0.0.1:1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    )


def test_the_sdk_accumulates_what_was_written():
    call = structs.replace(CALL, tools=(Tool("f"),))
    there = Crossing(ANTHROPIC.stream_reader(), RESPONSES.stream_writer(call, NOW))
    body = there.feed(anthropic_stream()) + there.close() + there.tail(0.25)
    with sdk(body).responses.stream(model="m", input="x") as stream:
        kinds = [one.type for one in stream]
        final = stream.get_final_response()
    assert kinds.count("response.output_text.delta") == 2
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert final.output_text == '{"a":1}'
    assert (final.status, final.store, final.usage and final.usage.total_tokens) == ("completed", False, 8)
    assert final.id == "resp_m"
    assert [item.id for item in final.output] == ["rs_m_0", "msg_m_1", "fc_m_2"]
    with sdk(body).responses.create(model="m", input="x", stream=True) as plain:
        assert [one.sequence_number for one in plain] == list(range(len(kinds)))


def test_the_sdk_raises_on_what_failed():
    writer = RESPONSES.stream_writer(CALL, NOW)
    splice = RESPONSES.splice(asked())
    splice.feed(OPENING + DELTA)
    for body in (
        writer.fail(Fault(Kind.OVERLOADED, "Later.")),
        OPENING + DELTA + splice.fail(Fault(Kind.OVERLOADED, "Later.")),
    ):
        with (
            pytest.raises(APIError, match="Later"),
            sdk(body).responses.create(model="m", input="x", stream=True) as stream,
        ):
            list(stream)
    assert b'"sequence_number":10' in splice.fail(Fault(Kind.OVERLOADED, "Later."))


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("stop", "completed", None),
    ],
)
def test_how_it_ended_whole_and_streamed(finish, status, reason):
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": finish}
    told_ = json.loads(
        RESPONSES.write_reply(OPENAI.read_reply(json.dumps({"id": "c", "choices": [choice]}).encode()), CALL, NOW).body
    )
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": finish}]}
    there = Crossing(OPENAI.stream_reader(), RESPONSES.stream_writer(CALL, NOW))
    body = there.feed(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n") + there.tail(None)
    last = json.loads(body.split(b"data: ")[-1])
    assert last["type"] == f"response.{status}"
    for response in (told_, last["response"]):
        assert (response["status"], (response["incomplete_details"] or {}).get("reason")) == (status, reason)
        assert RESPONSES.read_reply(json.dumps(response).encode()).choices[0].finish == finish


def test_what_only_done_events_tell_is_told():
    item = {"type": "message", "content": [{"type": "output_text", "text": "all"}]}
    for body in (
        event("response.output_item.done", output_index=0, item=item)
        + event("response.completed", response={"output": [item]}),
        event("response.completed", response={"output": [item]}),
    ):
        events = RESPONSES.stream_reader().feed(body)
        assert [one.text for one in events if isinstance(one, Delta)] == ["all"]


def test_an_end_of_more_than_64_kib_is_read():
    item = {"type": "message", "content": [{"type": "output_text", "text": "x" * 200_000}]}
    end = event(
        "response.completed",
        response={"id": "r", "status": "completed", "output": [item], "usage": {"input_tokens": 1, "output_tokens": 2}},
    )
    splice = RESPONSES.splice(asked())
    splice.seal = "s-{}".format
    passed = b"".join(splice.feed(end[at : at + 16_384]) for at in range(0, len(end), 16_384))
    assert (passed, splice.ended, splice.usage and splice.usage.output) == (b"", True, 2)
    response = json.loads(splice.tail(0.5).split(b"data: ")[1])["response"]
    assert (response["id"], response["usage"]["cost"]) == ("s-r", 0.5)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", Kind.UPSTREAM_RATE_LIMIT),
        ("server_error", Kind.UPSTREAM_ERROR),
        ("invalid_prompt", Kind.CONTENT_FILTER),
        ("image_too_large", Kind.INVALID),
    ],
)
def test_a_failed_response_says_whose_mistake_it_was(code, kind):
    response = {"id": "r", "status": "failed", "error": {"code": code, "message": "No."}, "output": []}
    body = event("response.failed", response=response)
    splice = RESPONSES.splice(asked())
    assert splice.feed(body) == b""
    assert splice.failed is not None
    failed = RESPONSES.stream_reader().feed(body)[-1]
    assert isinstance(failed, Failed)
    summary = RESPONSES.summarise(json.dumps(response).encode())
    assert summary.fault is not None
    assert {splice.failed.kind, failed.fault.kind, summary.fault.kind} == {kind}


# -- cost ---------------------------------------------------------------------------------------------------------------


def calls(function, argument) -> int:
    counted = 0

    def count(_frame, what, _argument):
        nonlocal counted
        counted += what == "call"

    sys.setprofile(count)
    try:
        function(argument)
    finally:
        sys.setprofile(None)
    return counted


def test_a_passed_chunk_costs_three_calls_sealed_or_not():
    for seal in (None, str.upper):
        splice = RESPONSES.splice(asked())
        splice.seal = seal
        splice.feed(OPENING)
        assert splice.feed(DELTA) is DELTA
        assert calls(splice.feed, DELTA) <= 3


def test_a_translated_chunk_costs_few_calls():
    for reader, writer, opening, chunk in (
        (RESPONSES, OPENAI, OPENING, DELTA),
        (RESPONSES, ANTHROPIC, OPENING, DELTA),
        (
            ANTHROPIC,
            RESPONSES,
            anthropic_stream().split(b"event: content_block_delta")[0],
            event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "x"}),
        ),
    ):
        crossing = Crossing(reader.stream_reader(), writer.stream_writer(CALL, NOW))
        crossing.feed(opening)
        crossing.feed(chunk)
        assert calls(crossing.feed, chunk) <= 16


@generated(100)
@given(st.lists(st.tuples(st.sampled_from(sorted({
    "response.created", "response.output_item.added", "response.output_item.done", "response.content_part.added",
    "response.output_text.delta", "response.reasoning_summary_text.delta", "response.function_call_arguments.delta",
    "response.output_text.annotation.added", "response.completed", "response.failed", "error",
})), st.dictionaries(st.sampled_from(["item", "delta", "part", "response", "output_index", "annotation"]), JSON)), max_size=6))  # fmt: skip
def test_any_stream_ends_in_an_end_or_a_failure(events):
    stream = b"".join(b"data: " + json.dumps({**fields, "type": kind}).encode() + b"\n\n" for kind, fields in events)
    splice = RESPONSES.splice(asked())
    splice.seal = str.upper
    for passage in (
        splice,
        *(Crossing(RESPONSES.stream_reader(), one.stream_writer(CALL, NOW)) for one in (RESPONSES, OPENAI)),
    ):
        passage.feed(stream)
        passage.close()
        assert passage.ended != (passage.failed is not None)


@pytest.mark.parametrize("kind", ["response.created", "response.queued", "response.in_progress"])
def test_of_a_kept_response_every_event_is_what_was_asked_for(kind: str) -> None:
    event = b'event: %b\ndata: {"type":"%b","sequence_number":0,"response":{"id":"resp_1"}}\n\n' % (kind.encode(), kind.encode())
    for kept in (True, False):
        passage = SealedPassage(kept=kept)
        assert passage.feed(event) == event
        assert passage.meaningful is kept  # nobody else could answer; a first one may still be another's
