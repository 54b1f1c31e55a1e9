"""Conversations with a splice: what the upstream says, what the client gets, what we know."""

from __future__ import annotations

import json

import pytest

from formats.shapes import SHAPES, asked
from llm_gateway.core.errors import Fault, Kind

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
DONE = b"data: [DONE]\n\n"


def chunk(delta=None, *, finish=None, sep=(",", ":"), **more) -> bytes:
    fields = {
        "id": "c",
        "choices": [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return b"data: " + json.dumps(fields, separators=sep).encode() + b"\n\n"


def event(kind: str, **fields) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


ROLE = chunk({"role": "assistant", "content": ""})
HELLO = chunk({"content": "hello"}, usage=None)
STOP = chunk({}, finish="stop")
USAGE = chunk(usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})


def test_a_usual_chunk_passes_as_the_very_object_it_was():
    splice = OPENAI.splice(asked())
    assert splice.feed(ROLE) is ROLE
    assert not splice.meaningful
    assert splice.feed(HELLO) is HELLO
    assert splice.meaningful
    assert splice.characters == 5
    two = HELLO + HELLO
    assert splice.feed(two) is two


def test_a_usage_chunk_that_only_we_asked_for_is_dropped_and_the_end_held():
    splice = OPENAI.splice(asked(usage=False))
    assert splice.feed(ROLE + HELLO + STOP + USAGE + DONE) == ROLE + HELLO + STOP
    assert splice.ended
    assert splice.usage is not None
    assert (splice.usage.input, splice.usage.output, splice.finish) == (3, 2, "stop")
    assert splice.tail(0.5) == DONE


@pytest.mark.parametrize("more", [b": " + b"x" * 30_000 + b"\n\n", chunk({"content": "x" * 30_000})])
def test_an_upstream_that_goes_on_for_ever_behind_its_end_is_given_up(more: bytes):
    splice = OPENAI.splice(asked())
    splice.feed(ROLE + HELLO + STOP + USAGE)
    for _ in range(1000):  # 30 MB
        assert splice.feed(more) == b""
    assert splice.failed is not None
    assert splice.failed.kind is Kind.UPSTREAM_BROKEN


def test_the_clients_own_usage_chunk_is_held_and_carries_the_cost():
    splice = OPENAI.splice(asked())
    assert splice.feed(ROLE + HELLO + STOP + USAGE) == ROLE + HELLO + STOP
    assert splice.feed(DONE) == b""
    usage, done, _ = splice.tail(0.25).split(b"\n\n")
    assert json.loads(usage[6:])["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "cost": 0.25,
    }
    assert done == b"data: [DONE]"


def test_without_a_price_the_held_end_is_the_upstreams_own():
    splice = OPENAI.splice(asked())
    assert splice.feed(HELLO + STOP + USAGE + DONE) + splice.tail(None) == HELLO + STOP + USAGE + DONE


def test_usage_in_a_chunk_with_choices_is_never_dropped():
    last = chunk({"content": ""}, finish="stop", usage={"prompt_tokens": 1, "completion_tokens": 1})
    splice = OPENAI.splice(asked(usage=False))
    assert splice.feed(HELLO + last + DONE) == HELLO + last
    assert splice.usage is not None


def test_azures_first_chunk_without_choices_is_no_usage():
    first = chunk(prompt_filter_results=[], usage=None)
    splice = OPENAI.splice(asked(usage=False))
    assert splice.feed(first) == first
    assert not splice.meaningful


def test_a_complete_stream_without_done_gets_one():
    splice = OPENAI.splice(asked())
    assert splice.feed(HELLO + STOP) + splice.close() == HELLO + STOP
    assert splice.ended
    assert splice.tail(None) == DONE


def test_of_two_choices_both_must_finish():
    one = b'data: {"choices":[{"index":%d,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
    splice = OPENAI.splice(asked())
    splice.feed(one % (0, b"null") + one % (1, b"null") + one % (0, b'"stop"'))
    splice.close()
    assert splice.failed is not None


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_clean_end_without_end_mark_is_a_cut(shape):
    splice = shape.splice(asked())
    splice.feed(
        HELLO if shape is OPENAI else event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"})
    )
    assert splice.close() == b""
    assert splice.failed is not None
    assert splice.failed.kind is Kind.UPSTREAM_CUT
    assert not splice.ended


@pytest.mark.parametrize("sep", [(",", ":"), (", ", ": ")])
def test_an_error_inside_a_200_fails_with_its_own_kind_and_message(sep):
    splice = OPENAI.splice(asked())
    assert splice.feed(ROLE + chunk(error={"code": 429, "message": "slow down"}, sep=sep) + HELLO) == ROLE
    assert splice.failed is not None
    assert (splice.failed.kind, splice.failed.message) == (Kind.UPSTREAM_RATE_LIMIT, "slow down")
    assert splice.feed(HELLO) == b""
    assert not splice.meaningful


def test_generated_text_cannot_fake_an_error_an_end_or_usage():
    tricky = chunk({"content": '"error":{"message":"x"} data: [DONE] "usage":{"prompt_tokens":9} \n\ndata: [DONE]\n\n'})
    splice = OPENAI.splice(asked())
    assert splice.feed(tricky) is tricky
    assert (splice.failed, splice.ended, splice.usage) == (None, False, None)


def test_an_event_that_is_no_json_fails_the_stream():
    splice = OPENAI.splice(asked())
    assert splice.feed(HELLO + b"data: upstream exploded\n\n" + HELLO) == HELLO
    assert splice.failed is not None
    assert splice.failed.kind is Kind.UPSTREAM_BROKEN


def test_a_well_formed_event_of_unknown_kind_passes():
    odd = b'data: {"choices":"later"}\n\n'
    splice = OPENAI.splice(asked())
    assert splice.feed(odd) == odd
    assert splice.failed is None


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        ({"role": "assistant"}, False),
        ({"content": None}, False),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}, True),
        ({"audio": {"id": "a"}}, True),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, True),
    ],
)
def test_what_a_client_would_notice(delta, said):
    splice = OPENAI.splice(asked())
    splice.feed(chunk(delta))
    assert splice.meaningful is said


def test_an_event_over_64_kib_passes_in_pieces():
    big = b"data: " + b"x" * 200_000 + b"\n\n"
    splice = OPENAI.splice(asked())
    passed = b"".join(splice.feed(big[start : start + 10_000]) for start in range(0, 150_000, 10_000))
    assert not splice.between
    assert big.startswith(passed)
    assert len(passed) > 100_000
    passed += splice.feed(big[150_000:] + HELLO + STOP + DONE)
    assert splice.between
    assert passed + splice.tail(None) == big + HELLO + STOP + DONE
    assert splice.ended


def test_a_stream_that_ends_inside_an_oversize_event_is_cut():
    splice = OPENAI.splice(asked())
    splice.feed(STOP + b"data: " + b"x" * 100_000)
    splice.close()
    assert splice.failed is not None


def test_a_splice_prints_its_state():
    splice = OPENAI.splice(asked())
    assert repr(splice) == "Splice(passing, finish=None, characters=0)"
    splice.feed(HELLO + STOP + USAGE)
    assert repr(splice) == "Splice(held, finish='stop', characters=5)"
    splice.feed(DONE)
    assert repr(splice) == "Splice(ended, finish='stop', characters=5)"


START = event(
    "message_start",
    message={"id": "m", "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}},
)
OPEN = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
SAY = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"})
CLOSE = event("content_block_stop", index=0)
LAST = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7})
PING = event("ping")
OVER = event("message_stop")


def test_a_message_passes_and_its_end_is_held():
    splice = ANTHROPIC.splice(asked())
    assert splice.feed(START + OPEN + PING) == START + OPEN + PING
    assert not splice.meaningful
    assert splice.feed(SAY) is SAY
    assert splice.meaningful
    assert splice.feed(CLOSE + LAST) == CLOSE
    assert splice.feed(PING + OVER) == b""
    assert splice.ended
    assert splice.usage is not None
    assert (splice.usage.input, splice.usage.cache_read, splice.usage.output) == (15, 5, 7)
    assert splice.tail(None) == LAST + PING + OVER


def test_a_messages_final_usage_carries_the_cost():
    splice = ANTHROPIC.splice(asked())
    splice.feed(START + OPEN + SAY + CLOSE + LAST + OVER)
    data = splice.tail(0.5).split(b"data: ")[1].split(b"\n")[0]
    assert json.loads(data)["usage"] == {"output_tokens": 7, "cost": 0.5}


def test_a_message_that_lacks_only_its_stop_gets_one():
    splice = ANTHROPIC.splice(asked())
    splice.feed(START + OPEN + SAY + CLOSE + LAST)
    splice.close()
    assert splice.ended
    assert splice.tail(None).endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_an_error_event_fails_a_message():
    splice = ANTHROPIC.splice(asked())
    assert splice.feed(START + event("error", error={"type": "overloaded_error", "message": "Overloaded"})) == START
    assert splice.failed is not None
    assert splice.failed.kind is Kind.OVERLOADED


@pytest.mark.parametrize(
    "block", [{"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "redacted_thinking", "data": "x"}]
)
def test_a_block_that_says_something_by_opening_is_meaningful(block):
    splice = ANTHROPIC.splice(asked())
    splice.feed(event("content_block_start", index=0, content_block=block))
    assert splice.meaningful


def test_failures_are_told_in_the_shapes_own_words():
    fault = Fault(Kind.UPSTREAM_CUT, "It broke.")
    told = OPENAI.splice(asked()).fail(fault)
    assert json.loads(told[6:])["error"] == {
        "message": "It broke.",
        "type": "server_error",
        "param": None,
        "code": "upstream_cut",
    }
    assert b"[DONE]" not in told
    told = ANTHROPIC.splice(asked()).fail(fault)
    assert told.startswith(b"event: error\ndata: ")
    assert json.loads(told.split(b"data: ")[1])["error"] == {"type": "api_error", "message": "It broke."}


def test_heartbeats():
    assert OPENAI.splice(asked()).heartbeat() == b": \n\n"
    assert ANTHROPIC.splice(asked()).heartbeat().startswith(b"event: ping\n")
