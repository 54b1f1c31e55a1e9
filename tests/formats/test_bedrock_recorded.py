"""Every recorded Converse conversation: told, passed through, cut everywhere, crossed both ways, read by botocore."""

from __future__ import annotations

import json
import random

import pytest

from formats.bedrock import CLAUDE, CONVERSE, by_boto, complaints, events, recorded, reply_by_boto
from formats.sampling import each
from formats.shapes import CALL, GEMINI, NOW, SHAPES, asked, peeked, request_body, shape_of
from formats.shapes import recorded as others
from formats.test_recorded import REFUSED, said, spoken, texts
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, End, Failed, Finish, UsageUpdate
from llm_gateway.formats.crossing import Crossing
from replay.recordings import cut

ALL = recorded("converse", "converse-stream")
GOOD = [one for one in ALL if one.status == 200]
PLAIN = [one for one in GOOD if not one.row["streaming"]]
STREAMS = [one for one in GOOD if one.row["streaming"]]
ASKED = [one for one in ALL if isinstance(one.request, dict)]
FOREIGN = [one for one in others() if one.status < 400 and one.row["api"] in SHAPES]
SHORT = 8 << 10


both = pytest.mark.parametrize("other", [*SHAPES.values(), GEMINI], ids=lambda shape: shape.name)


def test_there_is_traffic():
    if not ALL:
        pytest.skip("no recorded traffic")
    assert len(PLAIN) >= 20
    assert len(STREAMS) >= 30


# -- replies ----------------------------------------------------------------------------------------------------------


@each(PLAIN)
def test_a_reply_is_summarised(interaction):
    told = json.loads(interaction.body)
    summary = CONVERSE.summarise(interaction.body)
    assert summary.finish == told["stopReason"]
    assert summary.usage is not None
    assert summary.usage.input + summary.usage.output == told["usage"]["totalTokens"]
    assert summary.fault is None


@each(PLAIN)
def test_a_reply_of_its_own_shape_keeps_every_block(interaction):
    reply = CONVERSE.read_reply(interaction.body)
    again = json.loads(CONVERSE.write_reply(reply, CALL).body)
    told = json.loads(interaction.body)
    content = [block for block in told["output"]["message"]["content"] if block != {"text": ""}]
    for block in content:
        if block.get("toolUse", {}).get("type") == "tool_use":
            del block["toolUse"]["type"]
    assert again["output"]["message"]["content"] == content
    assert again["stopReason"] == told["stopReason"]
    assert again["usage"]["totalTokens"] == told["usage"]["totalTokens"]


@each(PLAIN)
@both
def test_a_reply_crosses_and_comes_back(interaction, other):
    reply = CONVERSE.read_reply(interaction.body)
    there = other.read_reply(other.write_reply(reply, CALL, NOW).body)
    assert said(there.choices[0].parts) == said(reply.choices[0].parts)
    back = reply_by_boto(CONVERSE.write_reply(there, CALL).body)
    assert back["output"]["message"]["role"] == "assistant"
    assert back["usage"]["totalTokens"] == json.loads(interaction.body)["usage"]["totalTokens"]


@each([one for one in FOREIGN if not one.row["streaming"]])
def test_a_foreign_reply_is_read_by_botocore(interaction):
    reply = shape_of(interaction).read_reply(interaction.body)
    told = reply_by_boto(CONVERSE.write_reply(reply, CALL).body)
    assert {"output", "stopReason", "usage", "metrics"} <= told.keys()
    if len(reply.choices) == 1:
        again = CONVERSE.read_reply(CONVERSE.write_reply(reply, CALL).body)
        assert said(again.choices[0].parts) == said(reply.choices[0].parts)


# -- requests ---------------------------------------------------------------------------------------------------------


@each(ASKED)
def test_a_request_goes_through_untouched(interaction):
    peek = CONVERSE.peek(json.dumps(interaction.request).encode(), CLAUDE, stream=interaction.row["streaming"])
    sent = CONVERSE.forward(peek, CLAUDE)
    assert json.loads(sent.body) == {name: value for name, value in interaction.request.items() if name != "modelId"}
    assert sent.path.endswith("/converse-stream" if interaction.row["streaming"] else "/converse")


@each(ASKED)
def test_a_request_crosses_or_is_refused_by_name(interaction):
    call = CONVERSE.read_request(CONVERSE.peek(json.dumps(interaction.request).encode(), CLAUDE))
    for other in (*SHAPES.values(), GEMINI):
        try:
            crossed = other.write_request(call, "m")
        except Fault as fault:
            assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
            continue
        assert spoken(call) <= spoken(other.read_request(peeked(other, crossed.body)))


@each([one for one in ASKED if one.status == 200])
def test_a_request_typed_and_written_again_is_one_that_botocore_would_send(interaction):
    model = interaction.row["model"]
    call = CONVERSE.read_request(CONVERSE.peek(json.dumps(interaction.request).encode(), model))
    written = json.loads(CONVERSE.write_request(call, model).body)
    assert complaints(written) == ""
    again = CONVERSE.read_request(CONVERSE.peek(json.dumps(written).encode(), model))
    assert [part for one in again.messages for part in one.parts] == [
        part for one in call.messages for part in one.parts
    ]
    assert (again.tools, again.tool_choice, again.thinking) == (call.tools, call.tool_choice, call.thinking)


@each([one for one in FOREIGN if isinstance(one.request, dict) and one.id not in REFUSED])
@pytest.mark.parametrize("model", [CLAUDE, "us.amazon.nova-2-lite-v1:0", "meta.llama3-1-8b-instruct-v1:0"])
def test_a_foreign_request_is_one_that_botocore_would_send(interaction, model):
    shape = shape_of(interaction)
    call = shape.read_request(shape.peek(request_body(interaction) or b""))
    try:
        crossed = CONVERSE.write_request(call, model)
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return
    assert complaints(json.loads(crossed.body)) == ""
    told = CONVERSE.read_request(CONVERSE.peek(crossed.body, model))
    assert spoken(call) <= spoken(told)
    assert told.max_tokens == call.max_tokens or told.thinking is not None


# -- streams ----------------------------------------------------------------------------------------------------------


def seen(passage):
    return passage.usage, passage.finish, passage.characters, passage.meaningful, passage.ended, passage.failed


@each(STREAMS)
def test_a_stream_passes_as_it_is_and_its_end_is_held(interaction):
    body = interaction.body
    splice = CONVERSE.splice(asked())
    passed = splice.feed(body)
    names = [name for name, _ in events(passed)]
    assert "messageStop" not in names
    assert splice.ended
    assert passed + splice.tail(0.5) == body
    (metadata,) = [told for name, told in events(body) if name == "metadata"]
    assert splice.usage.input + splice.usage.output == metadata["usage"]["totalTokens"]
    assert splice.finish == next(told["stopReason"] for name, told in events(body) if name == "messageStop")


@each(STREAMS)
def test_any_cut_of_a_stream_says_the_same(interaction):
    body = interaction.body
    whole, told = CONVERSE.splice(asked()), CONVERSE.stream_reader().feed(body)
    whole.feed(body)
    assert isinstance(told[-1], End)
    ways = [[body[:at], body[at:]] for at in range(1, len(body))] if len(body) < SHORT else []
    ways += [cut(body, how) for how in ("bytes:1", "bytes:7", "random:1", "random:2", "bytes:4096")]
    for pieces in ways:
        splice, reader = CONVERSE.splice(asked()), CONVERSE.stream_reader()
        passed = b"".join(splice.feed(piece) for piece in pieces)
        assert passed + splice.tail(None) == body
        assert seen(splice) == seen(whole)
        assert [event for piece in pieces for event in reader.feed(piece)] == told


@each(STREAMS)
def test_a_stream_that_stops_early_is_an_error(interaction):
    body = interaction.body
    dice = random.Random(7)
    for at in dice.sample(range(len(body) - 1), 40):
        splice, reader = CONVERSE.splice(asked()), CONVERSE.stream_reader()
        passed = splice.feed(body[:at])
        assert body.startswith(passed)
        splice.close()
        said_stop = splice.finish is not None
        told = reader.feed(body[:at]) + reader.close()
        if splice.failed is None:  # everything but the usage had come
            assert said_stop
            assert isinstance(told[-1], End)
        else:
            assert splice.failed.kind is Kind.UPSTREAM_CUT
            assert isinstance(told[-1], Failed)


def words(shape, body):
    """What a stream says that every shape can say; a call's arguments without their white space."""
    told = texts(shape, body)
    told.pop("opaque", None)
    return told | {"tool": "".join(told.get("tool", "").split())}


@each(STREAMS)
@both
def test_a_stream_crosses(interaction, other):
    crossing = Crossing(CONVERSE.stream_reader(), other.stream_writer(CALL, NOW))
    crossed = crossing.feed(interaction.body)
    assert crossing.ended
    crossed += crossing.tail(None)
    meant = words(CONVERSE, interaction.body)
    assert words(other, crossed) == meant
    back = Crossing(other.stream_reader(), CONVERSE.stream_writer(CALL, NOW))
    returned = back.feed(crossed) + back.close() + back.tail(None)
    assert words(CONVERSE, returned) == meant
    spoken_events, error = by_boto(returned)
    assert error is None
    assert "metadata" in spoken_events[-1]


@each([one for one in FOREIGN if one.row["streaming"]])
def test_a_foreign_stream_is_read_by_botocore(interaction):
    shape = shape_of(interaction)
    crossing = Crossing(shape.stream_reader(), CONVERSE.stream_writer(CALL, NOW))
    crossed = crossing.feed(interaction.body) + crossing.close()
    if crossing.failed is not None:
        told, error = by_boto(crossed + crossing.fail(crossing.failed))
        assert error is not None
        return
    told, error = by_boto(crossed + crossing.tail(None))
    assert error is None
    assert "messageStart" in told[0]
    assert "messageStop" in told[-2]
    assert told[-1]["metadata"]["usage"].keys() >= {"inputTokens", "outputTokens", "totalTokens"}
    open_blocks: set[int] = set()
    for event in told:
        for kind, value in event.items():
            number = value.get("contentBlockIndex")
            if kind in {"contentBlockStart", "contentBlockDelta"}:
                open_blocks.add(number)
            elif kind == "contentBlockStop":
                open_blocks.remove(number)


@each(STREAMS)
def test_a_whole_stream_says_what_its_parts_say(interaction):
    told = CONVERSE.stream_reader().feed(interaction.body)
    words = "".join(event.text for event in told if isinstance(event, Delta))
    splice = CONVERSE.splice(asked())
    splice.feed(interaction.body)
    assert splice.characters >= len(words)
    assert sum(isinstance(event, Finish) for event in told) == 1
    assert [event.usage for event in told if isinstance(event, UsageUpdate)] == [splice.usage]


# -- errors -----------------------------------------------------------------------------------------------------------

KINDS = {
    "bedrock-converse-plain-113d6dd3a9": Kind.UPSTREAM_ERROR,
    "bedrock-converse-plain-2c84c740d4": Kind.UPSTREAM_AUTH,
    "bedrock-converse-plain-588e84115c": Kind.UPSTREAM_AUTH,
    "bedrock-converse-plain-4171c9db55": Kind.INVALID,
    "bedrock-converse-plain-53a0e6eb82": Kind.INVALID,
    "bedrock-converse-plain-b453067feb": Kind.INVALID,
    "bedrock-converse-plain-a0f186600e": Kind.UPSTREAM_NO_MODEL,
    "bedrock-converse-plain-ecaf55326a": Kind.UPSTREAM_NO_MODEL,
    "bedrock-converse-stream-plain-730dfa9f02": Kind.UPSTREAM_NO_MODEL,
    "bedrock-converse-stream-plain-89ed11eda5": Kind.UPSTREAM_NO_MODEL,
}


@each([one for one in ALL if one.status >= 400])
def test_an_error_has_its_kind(interaction):
    fault = CONVERSE.read_error(interaction.status, interaction.body)
    assert fault.kind is KINDS[interaction.id]
    if fault.kind is Kind.INVALID:
        told = CONVERSE.write_error(fault, "req_1")
        assert (told.status, json.loads(told.body)) == (interaction.status, json.loads(interaction.body))
