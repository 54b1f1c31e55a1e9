"""Gemini's shape: what only it says, what becomes of it elsewhere, and what becomes of others in it."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.sampling import each, generated
from formats.shapes import CALL, GEMINI, MODELS, NOW, SHAPES, asked, peeked, recorded, request_body, shape_of
from formats.test_recorded import REFUSED, said, spoken, texts
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, Failed, Finish, PartStart, SignatureDelta, UsageUpdate
from llm_gateway.core.types import Reasoning, Text, ToolCall, ToolResult
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.gemini import Gemini, _casing

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
FOREIGN = [one for one in recorded() if one.status < 400 and shape_of(one) is not GEMINI]
NATIVE_STREAMS = [one for one in recorded(streaming=True) if one.status < 400 and shape_of(one) is GEMINI]
PIXEL = "iVBORw0KGgo="


def request(**members: Any) -> bytes:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **members}
    return json.dumps(body, separators=(",", ":")).encode()


def read(*, stream: bool = False, **members: Any):
    return GEMINI.read_request(GEMINI.peek(request(**members), "gemini-2.5-flash", stream=stream))


def written(body: bytes, model: str = "gemini-2.5-flash") -> tuple[dict[str, Any], tuple[str, ...]]:
    told = GEMINI.write_request(OPENAI.read_request(OPENAI.peek(body)), model)
    return json.loads(told.body), told.dropped


def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages or ({"role": "user", "content": "hi"},), **more}).encode()


# -- every other shape's recorded traffic, into Gemini's words ---------------------------------------------------------


@each([one for one in FOREIGN if isinstance(one.request, dict) and one.id not in REFUSED])
def test_a_recorded_request_crosses_or_is_refused_by_name(interaction):
    shape = shape_of(interaction)
    call = shape.read_request(shape.peek(request_body(interaction) or b""))
    try:
        crossed = GEMINI.write_request(call, MODELS["gemini"])
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return
    told = GEMINI.read_request(peeked(GEMINI, crossed.body))
    assert spoken(call) <= spoken(told)
    assert told.max_tokens == call.max_tokens
    assert (":streamGenerateContent?alt=sse" in crossed.path) is call.stream


@each([one for one in FOREIGN if not one.row["streaming"]])
def test_a_recorded_reply_keeps_its_words(interaction):
    reply = shape_of(interaction).read_reply(interaction.body)
    if len(reply.choices) != 1:
        return
    crossed = GEMINI.read_reply(GEMINI.write_reply(reply, CALL, NOW).body)
    assert said(crossed.choices[0].parts) == said(reply.choices[0].parts)
    if reply.usage is not None:
        assert crossed.usage is not None
        assert (crossed.usage.input, crossed.usage.output) == (reply.usage.input, reply.usage.output)


@each([one for one in FOREIGN if one.row["streaming"]])
def test_a_recorded_stream_says_the_same(interaction):
    shape = shape_of(interaction)
    there = Crossing(shape.stream_reader(), GEMINI.stream_writer(CALL, NOW))
    crossed = there.feed(interaction.body) + there.close()
    if there.failed is not None:
        return
    told, meant = texts(GEMINI, crossed + there.tail(None)), texts(shape, interaction.body)
    told_calls, meant_calls = told.pop("tool", ""), meant.pop("tool", "")
    assert told == {name: value for name, value in meant.items() if name != "opaque"}
    assert "".join(told_calls.split()) == "".join(meant_calls.split())


@each(NATIVE_STREAMS)
def test_a_recorded_stream_as_an_array_holds_the_same_chunks(interaction):
    passage = Gemini(array=True).splice(asked())
    body = interaction.body
    told = b"".join(passage.feed(body[at : at + 700]) for at in range(0, len(body), 700))
    told += passage.close() + passage.tail(None)
    lines = body.replace(b"\r\n", b"\n").split(b"\n\n")
    assert json.loads(told) == [json.loads(line[6:]) for line in lines if line]


# -- requests ---------------------------------------------------------------------------------------------------------


def test_the_path_says_model_and_stream_and_the_body_goes_through_untouched():
    body = request(unknown={"a": [1.0, None]}, model="models/other")
    peek = GEMINI.peek(body, "fast/alias", stream=True)
    assert (peek.model, peek.stream, peek.wants_usage) == ("fast/alias", True, True)
    sent = GEMINI.forward(peek, "gemini-2.5-pro")
    assert sent.path == "/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert json.loads(sent.body) == json.loads(request(unknown={"a": [1.0, None]}))
    plain = GEMINI.forward(GEMINI.peek(body, "m", stream=False), "my/model?x")
    assert plain.path == "/models/my%2Fmodel%3Fx:generateContent"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b"{}", "contents"),
        (b'{"contents":[]}', "contents"),
        (b'{"contents":{}}', "contents"),
        (request(generationConfig=5), "generationConfig"),
        (request(generationConfig={"maxOutputTokens": -1}), "maxOutputTokens"),
        (request(generation_config={"max_output_tokens": "x"}), "max_output_tokens"),
    ],
)
def test_peek_refuses_and_names_the_field(body, param):
    with pytest.raises(Fault) as caught:
        GEMINI.peek(body, "m")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"contents": [{"role": "nobody", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [{"parts": [{"inlineData": {"data": ""}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"functionResponse": {}}]}]}, "contents[0].functionResponse.name"),
        ({"tools": [{"functionDeclarations": [{"name": ""}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"generationConfig": {"temperature": -1}}, "generationConfig.temperature"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(members, param):
    with pytest.raises(Fault) as caught:
        read(**members)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_both_spellings_mean_the_same_and_arguments_keep_theirs():
    camel = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]},
            {
                "role": "model",
                "parts": [{"functionCall": {"name": "f", "args": {"my_arg": 1}}, "thoughtSignature": "s"}],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a_b": 2}}}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 5,
            "topK": 3,
            "responseSchema": {"type": "OBJECT", "properties": {"x_y": {}}},
        },
    }
    snake = json.loads(
        json.dumps(camel)
        .replace("systemInstruction", "system_instruction")
        .replace("inlineData", "inline_data")
        .replace("mimeType", "mime_type")
        .replace("functionCall", "function_call")
        .replace("functionResponse", "function_response")
        .replace("thoughtSignature", "thought_signature")
        .replace("generationConfig", "generation_config")
        .replace("maxOutputTokens", "max_output_tokens")
        .replace("topK", "top_k")
        .replace("responseSchema", "response_schema")
    )
    one, other = read(**camel), read(**snake)
    assert one == other
    call = next(part for message in one.messages for part in message.parts if isinstance(part, ToolCall))
    assert (json.loads(call.arguments), call.signature) == ({"my_arg": 1}, "s")


def test_answers_find_their_calls_by_name_in_order_where_there_are_no_ids():
    call = read(
        contents=[
            {"role": "user", "parts": [{"text": "Both?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"n": n}}} for n in (1, 2)]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "f", "response": {"output": str(n)}}} for n in (1, 2)],
            },
        ]
    )
    calls = [part for part in call.messages[1].parts if isinstance(part, ToolCall)]
    results = [part for message in call.messages[2:] for part in message.parts if isinstance(part, ToolResult)]
    assert len({one.id for one in calls}) == 2
    assert [one.call_id for one in results] == [one.id for one in calls]
    assert [one.content for one in results] == [(Text("1"),), (Text("2"),)]
    sent = json.loads(OPENAI.write_request(call, "gpt-4o").body)["messages"]
    assert [message.get("tool_call_id") for message in sent[2:]] == [one.id for one in calls]
    again = json.loads(GEMINI.write_request(call, "gemini-2.5-flash").body)["contents"]
    assert "id" not in again[1]["parts"][0]["functionCall"]  # an id of ours is not sent to who gave none
    assert again[2]["parts"][0]["functionResponse"] == {"name": "f", "response": {"output": "1"}}


def test_ids_that_are_not_ours_travel():
    told, _ = written(
        chat(
            {"role": "user", "content": "?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_9", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "call_9", "content": '{"deg": 18}'},
            {"role": "user", "content": "And?"},
        )
    )
    assert [content["role"] for content in told["contents"]] == ["user", "model", "user", "user"]
    assert told["contents"][1]["parts"] == [{"functionCall": {"name": "f", "args": {}, "id": "call_9"}}]
    assert told["contents"][2]["parts"] == [
        {"functionResponse": {"name": "f", "response": {"deg": 18}, "id": "call_9"}}
    ]


def test_an_answer_to_no_call_is_refused():
    with pytest.raises(Fault) as caught:
        written(chat({"role": "tool", "tool_call_id": "lost", "content": "x"}))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "messages[0].content")


def test_seals_ride_on_calls_through_openai_and_back():
    reply = {
        "candidates": [
            {
                "content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "SEAL"}]},
                "finishReason": "STOP",
            }
        ],
        "responseId": "r1",
    }
    told = json.loads(OPENAI.write_reply(GEMINI.read_reply(json.dumps(reply).encode()), CALL, NOW).body)
    message = told["choices"][0]["message"]
    assert told["choices"][0]["finish_reason"] == "tool_calls"
    sent, _ = written(
        chat(
            {"role": "user", "content": "?"},
            message,
            {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"},
        ),
        "gemini-3-pro-preview",
    )
    assert sent["contents"][1]["parts"] == [
        {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "SEAL"}
    ]


def test_a_streamed_seal_rides_on_its_call_through_openai():
    chunk = {
        "candidates": [
            {
                "content": {"parts": [{"functionCall": {"name": "f"}, "thoughtSignature": "SEAL"}]},
                "finishReason": "STOP",
            }
        ]
    }
    there = Crossing(GEMINI.stream_reader(), OPENAI.stream_writer(CALL, NOW))
    told = there.feed(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n") + there.close() + there.tail(None)
    reader = OPENAI.stream_reader()
    events = reader.feed(told) + reader.close()
    tool = next(event.index for event in events if isinstance(event, PartStart) and event.kind == "tool")
    assert SignatureDelta(tool, "SEAL", format="gemini") in events


def test_calls_of_other_models_get_googles_word_for_it_where_gemini_3_wants_a_seal():
    messages = (
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)
            ],
        },
    )
    for model, seals in (
        ("gemini-3-flash-preview", ["skip_thought_signature_validator", None]),
        ("gemini-2.5-pro", [None, None]),
    ):
        sent, _ = written(chat(*messages), model)
        assert [part.get("thoughtSignature") for part in sent["contents"][1]["parts"]] == seals


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-pro", "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-3-flash-preview", "medium", {"thinkingLevel": "medium", "includeThoughts": True}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-3-flash-preview", "xhigh", {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-2.0-flash", "high", None),
    ],
)
def test_effort_becomes_what_the_model_understands(model, effort, config):
    sent, dropped = written(chat(reasoning_effort=effort), model)
    assert sent.get("generationConfig", {}).get("thinkingConfig") == config
    exact = config is not None and (effort != "none" or config["thinkingBudget"] == 0)
    assert ("reasoning_effort" in dropped) is not exact


def test_sampling_tools_and_schema_cross_into_geminis_words():
    schema = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    sent, dropped = written(
        chat(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.webp"}}]},
            temperature=0.5,
            top_p=0.9,
            max_tokens=7,
            stop=["a", "b", "c", "d"],
            seed=3,
            presence_penalty=1,
            user="me",
            tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
            tool_choice={"type": "function", "function": {"name": "f"}},
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        )
    )
    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert sent["contents"][0]["parts"] == [
        {"fileData": {"fileUri": "https://example.com/a.webp", "mimeType": "image/webp"}}
    ]
    assert sent["generationConfig"] == {
        "maxOutputTokens": 7,
        "temperature": 0.5,
        "topP": 0.9,
        "presencePenalty": 1.0,
        "seed": 3,
        "stopSequences": ["a", "b", "c", "d"],
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert sent["tools"] == [
        {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": schema}]}
    ]
    assert sent["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert dropped == ("user",)


def test_geminis_own_schemas_become_json_schema():
    own = {
        "type": "OBJECT",
        "nullable": True,
        "propertyOrdering": ["a"],
        "properties": {
            "a": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["x"], "nullable": True}, "minItems": "1"}
        },
    }
    call = read(
        tools=[{"functionDeclarations": [{"name": "f", "parameters": own}]}], generationConfig={"responseSchema": own}
    )
    wanted = {
        "type": ["object", "null"],
        "properties": {
            "a": {"type": "array", "items": {"type": ["string", "null"], "enum": ["x", None]}, "minItems": 1}
        },
    }
    assert json.loads(bytes(call.tools[0].schema or b"")) == wanted
    assert call.output is not None
    assert json.loads(bytes(call.output.schema or b"")) == wanted


def test_what_holds_the_prompts_beginning_is_refused_elsewhere_and_kept_at_home():
    call = read(cachedContent="cachedContents/1")
    for target in SHAPES.values():
        with pytest.raises(Fault) as caught:
            target.write_request(call, MODELS[target.name])
        assert caught.value.kind is Kind.INVALID
    assert json.loads(GEMINI.write_request(call, "gemini-2.5-flash").body)["cachedContent"] == "cachedContents/1"


@generated(100)
@given(
    st.lists(
        st.one_of(
            st.builds(lambda text: {"text": text}, st.text(min_size=1)),
            st.builds(lambda text: {"text": text, "thought": True, "thoughtSignature": "s"}, st.text(min_size=1)),
            st.builds(
                lambda n, args: {"functionCall": {"name": n, "id": "x", "args": args}},
                st.text(min_size=1),
                st.dictionaries(st.text(), st.integers()),
            ),
            st.just({"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
            st.just({"executableCode": {"code": "1+1", "language": "PYTHON"}}),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_a_model_said_survives_the_typed_middle(parts):
    call = read(contents=[{"role": "model", "parts": parts}])
    assert json.loads(GEMINI.write_request(call, "gemini-2.5-flash").body)["contents"] == [
        {"role": "model", "parts": parts}
    ]


# -- replies ----------------------------------------------------------------------------------------------------------

BLOCKED = b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}'


def test_a_blocked_prompt_is_a_fault_elsewhere_and_itself_at_home():
    summary = GEMINI.summarise(BLOCKED)
    assert summary.usage is not None
    assert summary.usage.input == 9
    fault = summary.fault
    assert fault is not None
    assert fault.kind is Kind.CONTENT_FILTER
    told = GEMINI.write_error(fault, "r")
    assert (told.status, told.body) == (200, BLOCKED)
    assert OPENAI.write_error(fault, "r").status == 400
    assert ANTHROPIC.write_error(fault, "r").status == 400


def test_a_blocked_prompt_in_a_stream_keeps_its_framing():
    event = b"data: " + BLOCKED + b"\r\n\r\n"
    splice = GEMINI.splice(asked())
    assert splice.feed(event) == b""
    assert splice.failed is not None
    told = GEMINI.write_error(splice.failed, "r")
    assert (told.status, told.body, dict(told.headers)[b"content-type"]) == (200, event, b"text/event-stream")
    assert json.loads(Gemini(array=True).write_error(splice.failed, "r").body) == [json.loads(BLOCKED)]
    failed = GEMINI.stream_reader().feed(event)[-1]
    assert isinstance(failed, Failed)
    assert failed.fault.kind is Kind.CONTENT_FILTER


@pytest.mark.parametrize(
    ("candidate", "finish"),
    [
        ({"finishReason": "STOP"}, "content_filter"),
        ({"finishReason": "SAFETY"}, "content_filter"),
        ({"finishReason": "MAX_TOKENS"}, "length"),
        ({"finishReason": "MALFORMED_FUNCTION_CALL"}, "error"),
        ({"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}, "stop"),
        ({"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}, "tool_calls"),
        ({"content": {"parts": [{"text": "x"}]}, "finishReason": "RECITATION"}, "content_filter"),
        ({"content": {"parts": [{"text": "x"}]}, "finishReason": "SOMETHING_NEW"}, "stop"),
        ({"content": {"parts": [{"text": "x"}]}, "finishReason": 2}, "length"),
    ],
)
def test_finish_reasons_plain_and_streamed(candidate, finish):
    body = json.dumps({"candidates": [candidate], "responseId": "r"}).encode()
    assert GEMINI.read_reply(body).choices[0].finish == finish
    events = GEMINI.stream_reader().feed(b"data: " + body + b"\n\n")
    assert [event.finish for event in events if isinstance(event, Finish)] == [finish]


def test_usage_counts_thoughts_tools_caches_and_modalities_once():
    counted = {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 20,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 157,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}, {"modality": "IMAGE", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}],
    }
    body = json.dumps({"candidates": [{"content": {}, "finishReason": "STOP"}], "usageMetadata": counted}).encode()
    usage = GEMINI.read_reply(body).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.cache_read, usage.reasoning) == (120, 37, 60, 30)
    assert (usage.audio_input, usage.image_input, usage.audio_output) == (40, 10, 5)
    again = GEMINI.read_reply(GEMINI.write_reply(GEMINI.read_reply(body), CALL, NOW).body).usage
    assert again == usage


def test_a_cost_is_not_written_into_this_shape():
    stream = b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}\r\n\r\n'
    splice = GEMINI.splice(asked())
    assert splice.feed(stream) == b""
    splice.close()
    assert splice.tail(0.125) == stream
    assert b"cost" not in GEMINI.stream_writer(CALL, NOW).tail(0.125)
    assert splice.heartbeat() == GEMINI.stream_writer(CALL, NOW).heartbeat() == b""


def test_arguments_told_piece_by_piece_are_one_call():
    def chunk(call, **more):
        content = {"content": {"parts": [{"functionCall": call}]}, **more}
        return b"data: " + json.dumps({"candidates": [content], "responseId": "r"}).encode() + b"\r\n\r\n"

    pieces = [
        {"name": "f", "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.a.b[0]", "stringValue": "x", "willContinue": True}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.a.b[0]", "stringValue": "y"}], "willContinue": True},
        {
            "partialArgs": [{"jsonPath": "$['c d']", "numberValue": 2}, {"jsonPath": "$.e", "boolValue": True}],
            "willContinue": True,
        },
        {},
    ]
    reader = GEMINI.stream_reader()
    events = reader.feed(b"".join(chunk(one) for one in pieces) + chunk({"name": "g"}, finishReason="STOP"))
    assert [event.name for event in events if isinstance(event, PartStart)] == ["f", "g"]
    told = [json.loads(event.text) for event in events if isinstance(event, Delta)]
    assert told == [{"a": {"b": ["xy"]}, "c d": 2, "e": True}, {}]
    for path in ("$", "a", "$.a[", "$[0]", "$" + ".a" * 100, None):
        odd = GEMINI.stream_reader()
        opening = {"name": "f", "willContinue": True, "partialArgs": [{"jsonPath": path, "stringValue": ""}]}
        assert isinstance(odd.feed(chunk(opening))[-1], Failed)


def test_sources_of_an_answer_become_citations_and_searches_are_counted():
    grounding = {
        "webSearchQueries": ["q1", "q2"],
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}, {"web": {"uri": "https://b", "title": "B"}}],
        "groundingSupports": [{"segment": {"text": "said"}, "groundingChunkIndices": [0, 9, "x"]}],
    }
    candidate = {
        "content": {"parts": [{"text": "It is said."}]},
        "finishReason": "STOP",
        "groundingMetadata": grounding,
    }
    body = json.dumps({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}}).encode()
    reply = GEMINI.read_reply(body)
    (text,) = reply.choices[0].parts
    assert isinstance(text, Text)
    assert [(one.url, one.cited_text) for one in text.citations] == [("https://a", "said"), ("https://b", None)]
    assert reply.usage is not None
    assert reply.usage.searches == 2
    notes = json.loads(OPENAI.write_reply(reply, CALL, NOW).body)["choices"][0]["message"]["annotations"]
    assert [note["url_citation"]["url"] for note in notes] == ["https://a", "https://b"]
    events = GEMINI.stream_reader().feed(b"data: " + body + b"\n\n")
    assert next(event.usage for event in events if isinstance(event, UsageUpdate)).searches == 2


def test_thoughts_of_others_are_shown_and_never_sealed_as_geminis():
    reply = {
        "id": "m",
        "type": "message",
        "content": [{"type": "thinking", "thinking": "hm", "signature": "anthropic's"}],
        "usage": {},
    }
    told = json.loads(GEMINI.write_reply(ANTHROPIC.read_reply(json.dumps(reply).encode()), CALL, NOW).body)
    assert told["candidates"][0]["content"]["parts"] == [{"text": "hm", "thought": True}]
    call = read(contents=[{"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": "s"}]}])
    assert call.messages[0].parts == (Reasoning("hm", "s", format="gemini"),)


def test_an_error_in_a_stream_ends_it():
    splice = GEMINI.splice(asked())
    splice.feed(b'data: {"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}}\r\n\r\n')
    assert splice.failed is not None
    assert splice.failed.kind is Kind.OVERLOADED
    told = splice.fail(splice.failed)
    assert json.loads(told[6:])["error"]["status"] == "UNAVAILABLE"


def test_an_array_that_failed_ends_with_its_error():
    passage = Gemini(array=True).splice(asked())
    told = passage.feed(b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\r\n\r\n') + passage.close()
    assert passage.failed is not None
    told += passage.fail(passage.failed)
    assert json.loads(told)[-1]["error"]["status"] == "UNAVAILABLE"


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("size", [1000, 100_000, 2 << 20])
def test_a_last_event_that_holds_much_is_the_end_all_the_same(array: bool, size: int) -> None:
    """What a long answer rests on, a picture: they come with the finish reason and the usage."""
    shape = Gemini(array=array)
    first = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"See"}]},"index":0}]}\r\n\r\n'
    grounds = b'"groundingMetadata":{"searchEntryPoint":{"renderedContent":"%b"}}' % (b"x" * size)
    usage = b'"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":9,"totalTokenCount":16}'
    last = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0,%b}],%b}\r\n\r\n' % (grounds, usage)
    passage = shape.splice(shape.peek(b'{"contents":[{"parts":[{"text":"hi"}]}]}', "m", stream=True))
    passed = b"".join(passage.feed((first + last)[at : at + 16384]) for at in range(0, len(first + last), 16384))
    passed += passage.close()
    assert passage.ended, passage.failed
    assert (passage.finish, passage.usage.input, passage.usage.output) == ("STOP", 7, 9)
    passed += passage.tail(None)
    assert len(json.loads(passed)) == 2 if array else passed == first + last


@pytest.mark.parametrize("depth", [150, 943])
def test_fields_nested_beyond_all_measure_are_refused_without_a_word_on_stderr(depth: int, capfd: pytest.CaptureFixture[str]):
    def measure(_phase: str, _info: dict[str, Any]) -> None:  # as telemetry.garbage does
        return

    body = b'{"generation_config":' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)
    gc.callbacks.append(measure)
    gc.freeze()  # what others left is not looked through a hundred times
    try:
        for size in range(0, 1000, 10):  # wherever in between the garbage is collected
            gc.collect()
            kept = [[] for _ in range(size)]
            with pytest.raises(Fault, match="nested too deeply"):
                _casing.normal(body)
            del kept
    finally:
        gc.unfreeze()
        gc.callbacks.remove(measure)
    assert capfd.readouterr().err == ""
