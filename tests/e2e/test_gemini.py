"""The google-genai SDK against the gateway: Gemini's recorded replies, everyone else's, the echo; and everyone else's SDK to
Gemini's recorded replies."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors, types

from e2e.conftest import KEY, Gateway
from e2e.recorded import anthropic_content, chosen, events, openai_content
from replay.recordings import Interaction, Recordings
from replay.server import ReplayUpstream

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
BLOCKED = "vertex-generateContent-plain-2a55c07b81"
WITHHELD = "gemini-generateContent-plain-bfd56929fc"  # finish SAFETY, no parts
PIXEL = b"\x89PNG\r\n\x1a\n"


def fetch(url: str, body: Any = None, key: str = "") -> tuple[int, str, Any]:
    """(status, content type, JSON)"""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json", **({"x-goog-api-key": key} if key else {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as got:
            return got.status, got.headers["content-type"], json.load(got)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers["content-type"], json.load(refused)


def native(recordings: Recordings, *, streaming: bool) -> list[Interaction]:
    api = "streamGenerateContent" if streaming else "generateContent"
    found = [
        one for provider in ("gemini", "vertex") for one in recordings.select(provider=provider, api=api, status=200)
    ]
    usual = [one for one in found if one.row["body_kind"] == ("sse" if streaming else "json") and one.id != BLOCKED]
    return [
        one for one in usual if not re.search(rb'"finishReason":\s*\d', one.body)
    ]  # enums as numbers: not for this SDK


def content(each: Interaction) -> tuple[str, list[tuple[str, Any]]]:
    """(text, calls as (name, args)) of the first candidate of a recorded reply, plain or streamed."""
    replies = events(each.body) if each.row["streaming"] else [json.loads(each.body)]
    candidates = [one for reply in replies for one in reply.get("candidates", []) if one.get("index", 0) == 0]
    parts = [part for one in candidates for part in (one.get("content") or {}).get("parts", [])]
    calls = [part["functionCall"] for part in parts if part.get("functionCall", {}).get("name")]
    text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
    return text, [(one["name"], one.get("args") or {}) for one in calls]


def heard(response: types.GenerateContentResponse) -> tuple[str, list[tuple[str, Any]]]:
    candidate = (response.candidates or [types.Candidate()])[0]
    parts = (candidate.content.parts if candidate.content else None) or []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    return text, [
        (part.function_call.name or "", part.function_call.args or {})
        for part in parts
        if part.function_call and part.function_call.name
    ]


def test_recorded_replies_reach_their_own_sdk(
    gemini_client: genai.Client, recordings: Recordings, replay: ReplayUpstream
) -> None:
    cases = native(recordings, streaming=False)
    assert len(cases) >= 30
    for each in cases:
        got = gemini_client.models.generate_content(model=f"gemini/{each.id}", contents="hi")
        assert heard(got) == content(each), each.id
        assert got.usage_metadata is not None
        assert got.usage_metadata.total_token_count == json.loads(each.body)["usageMetadata"].get("totalTokenCount"), (
            each.id
        )
    sent = replay.received[-1]
    assert sent.path == f"/v1beta/models/{cases[-1].id}:generateContent"
    assert sent.header("x-goog-api-key") == "sk-upstream-gemini"
    assert KEY not in str(sent.headers)


async def test_recorded_streams_reach_their_own_sdk(
    gemini_client: genai.Client, recordings: Recordings, replay: ReplayUpstream
) -> None:
    cases = native(recordings, streaming=True)
    assert len(cases) >= 30
    for each in cases:
        if "willContinue" in each.body.decode():
            continue  # the SDK hands the pieces of a call out one by one
        text, calls, finish = "", [], None
        async for chunk in await gemini_client.aio.models.generate_content_stream(
            model=f"gemini/{each.id}", contents="hi"
        ):
            more, called = heard(chunk)
            text, calls = text + more, calls + called
            finish = (chunk.candidates[0].finish_reason if chunk.candidates else None) or finish
        assert (text, calls) == content(each), each.id
        assert finish is not None, each.id
    assert replay.received[-1].path.endswith(":streamGenerateContent?alt=sse")


def test_a_request_goes_through_as_the_sdk_wrote_it(
    gemini_client: genai.Client, recordings: Recordings, replay: ReplayUpstream
) -> None:
    each = native(recordings, streaming=False)[0]
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        temperature=0.5,
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_NONE
            )
        ],
    )
    gemini_client.models.generate_content(
        model=f"gemini/{each.id}",
        contents=["Look.", types.Part.from_bytes(data=PIXEL, mime_type="image/png")],
        config=config,
    )
    sent = replay.received[-1].json()
    assert sent["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert sent["generationConfig"] == {"temperature": 0.5}
    assert sent["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert sent["contents"][0]["parts"][1] == {
        "inlineData": {"mime_type": "image/png", "data": base64.urlsafe_b64encode(PIXEL).decode()}
    }


def test_a_prompt_that_gemini_would_not_answer(gemini_client: genai.Client, openai_client: openai.OpenAI) -> None:
    got = gemini_client.models.generate_content(model=f"gemini/{BLOCKED}", contents="hi")
    assert got.prompt_feedback is not None
    assert got.prompt_feedback.block_reason == types.BlockedReason.MODEL_ARMOR
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=f"gemini/{BLOCKED}", messages=ASK)
    assert caught.value.code == "content_filter"
    withheld = openai_client.chat.completions.create(model=f"gemini/{WITHHELD}", messages=ASK)
    assert withheld.choices[0].finish_reason == "content_filter"


def test_the_echo_answers_the_gemini_sdk(gemini_client: genai.Client) -> None:
    got = gemini_client.models.generate_content(model="echo/any", contents="Say this.")
    assert got.text == "Say this."
    assert got.candidates is not None
    assert got.candidates[0].finish_reason == types.FinishReason.STOP
    chunks = list(gemini_client.models.generate_content_stream(model="echo/any", contents="Say this again."))
    assert "".join(chunk.text or "" for chunk in chunks) == "Say this again."
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.candidates_token_count == 4


def test_the_gemini_sdk_reads_openai_and_anthropic_replies(gemini_client: genai.Client, recordings: Recordings) -> None:
    for provider, api, recorded in (
        ("openai", "chat_completions", openai_content),
        ("anthropic", "messages", anthropic_content),
    ):
        cases = chosen(recordings, provider, api, streaming=False)
        assert len(cases) >= 8
        for each in cases:
            reply = json.loads(each.body)
            refused = reply["choices"][0]["message"].get("refusal") or "" if provider == "openai" else ""
            got = gemini_client.models.generate_content(model=f"{provider}/{each.id}", contents="hi")
            text, calls = recorded(each)
            if provider == "openai" and reply["choices"][0]["message"].get("audio"):
                continue
            assert heard(got) == (text + refused, calls), each.id


def test_the_gemini_sdk_reads_openai_and_anthropic_streams(gemini_client: genai.Client, recordings: Recordings) -> None:
    for provider, api, recorded in (
        ("openai", "chat_completions", openai_content),
        ("anthropic", "messages", anthropic_content),
    ):
        for each in chosen(recordings, provider, api, streaming=True):
            if provider == "openai" and ((each.request.get("n") or 1) > 1 or b'"refusal":"' in each.body):
                continue
            text, calls = "", []
            for chunk in gemini_client.models.generate_content_stream(model=f"{provider}/{each.id}", contents="hi"):
                more, called = heard(chunk)
                text, calls = text + more, calls + called
            assert (text, calls) == recorded(each), each.id


def test_openai_sdk_reads_gemini_replies_and_streams(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    for each in native(recordings, streaming=False):
        got = openai_client.chat.completions.create(model=f"gemini/{each.id}", messages=ASK)
        message = got.choices[0].message
        calls = [(one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls or []]
        assert (message.content or "", calls) == content(each), each.id
    for each in native(recordings, streaming=True):
        if "willContinue" in each.body.decode():
            continue
        text, tools, usage = "", dict[int, tuple[str, str]](), None
        for chunk in openai_client.chat.completions.create(
            model=f"gemini/{each.id}", messages=ASK, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for one in choice.delta.tool_calls or []:
                    function = one.function
                    name, arguments = tools.get(one.index, ("", ""))
                    more = ("", "") if function is None else (function.name or "", function.arguments or "")
                    tools[one.index] = (name + more[0], arguments + more[1])
        assert (text, [(name, json.loads(arguments)) for name, arguments in tools.values()]) == content(each), each.id
        assert usage is not None, each.id


def test_anthropic_sdk_reads_gemini_replies_and_streams(
    anthropic_client: anthropic.Anthropic, recordings: Recordings
) -> None:
    for each in native(recordings, streaming=False):
        if re.search(b"MALFORMED_FUNCTION_CALL|UNEXPECTED_TOOL_CALL", each.body):  # for which its clients have no word
            with pytest.raises(anthropic.InternalServerError, match="Send the request again"):
                anthropic_client.messages.create(model=f"gemini/{each.id}", messages=ASK, max_tokens=64)
            continue
        got = anthropic_client.messages.create(model=f"gemini/{each.id}", messages=ASK, max_tokens=64)
        text = "".join(block.text for block in got.content if block.type == "text")
        calls = [(block.name, block.input) for block in got.content if block.type == "tool_use"]
        assert (text, calls) == content(each), each.id
    for each in native(recordings, streaming=True):
        if "willContinue" in each.body.decode():
            continue
        with anthropic_client.messages.stream(model=f"gemini/{each.id}", messages=ASK, max_tokens=64) as stream:
            message = stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
        assert (text, calls) == content(each), each.id


def test_a_tool_loop_from_gemini_to_openai(
    gemini_client: genai.Client, recordings: Recordings, replay: ReplayUpstream
) -> None:
    each = chosen(recordings, "openai", "chat_completions", streaming=False)[0]
    tool = types.Tool(
        function_declarations=[types.FunctionDeclaration(name="weather", parameters_json_schema={"type": "object"})]
    )
    contents = [
        types.Content(role="user", parts=[types.Part(text="Weather?")]),
        types.Content(role="model", parts=[types.Part.from_function_call(name="weather", args={"city": "Paris"})]),
        types.Content(
            role="user", parts=[types.Part.from_function_response(name="weather", response={"output": "18 degrees"})]
        ),
    ]
    gemini_client.models.generate_content(
        model=f"openai/{each.id}",
        contents=contents,
        config=types.GenerateContentConfig(tools=[tool], system_instruction="Be brief."),
    )
    sent = replay.received[-1].json()
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool"]
    assert sent["messages"][3]["tool_call_id"] == sent["messages"][2]["tool_calls"][0]["id"]
    assert sent["messages"][3]["content"] == "18 degrees"
    assert sent["tools"][0]["function"]["name"] == "weather"


def test_errors_are_in_geminis_words(gateway: Gateway, gemini_client: genai.Client) -> None:
    stranger = genai.Client(api_key="sk-wrong-0123456789", http_options=types.HttpOptions(base_url=gateway.url))
    with pytest.raises(errors.ClientError) as caught:
        stranger.models.generate_content(model="echo/any", contents="hi")
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
    with pytest.raises(errors.ClientError) as missing:
        gemini_client.models.generate_content(model="nobody/has-it", contents="hi")
    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
    with pytest.raises(errors.ClientError) as wrong:
        gemini_client.models.generate_content(
            model="echo/any", contents=[types.Content(role="nobody", parts=[types.Part(text="x")])]
        )
    assert (wrong.value.code, wrong.value.status) == (400, "INVALID_ARGUMENT")
    assert "contents[0].role" in str(wrong.value)


def test_a_stream_that_breaks_raises(gemini_client: genai.Client) -> None:
    with pytest.raises(errors.APIError):
        list(gemini_client.models.generate_content_stream(model="broken/fault-rst_midstream", contents="hi"))


def test_lists_are_in_the_callers_shape(
    gateway: Gateway, gemini_client: genai.Client, openai_client: openai.OpenAI
) -> None:
    assert "models/second-best" in [model.name for model in gemini_client.models.list()]
    assert gemini_client.models.get(model="second-best").name == "models/second-best"
    for version in ("v1", "v1beta"):
        _, _, listed = fetch(f"{gateway.url}/{version}/models?key={KEY}")
        assert "models/second-best" in [model["name"] for model in listed["models"]]
        status, _, refused = fetch(f"{gateway.url}/{version}/models/none-such", key=KEY)
        assert (status, refused["error"]["status"]) == (404, "NOT_FOUND")
    assert "second-best" in [model.id for model in openai_client.models.list()]


@pytest.mark.parametrize("path", ["/v1beta/models/echo/any", "/v1/models/echo%2Fany", "/v1/models/echo%2Fany%3Alatest"])
def test_a_models_name_may_hold_slashes_and_colons(gateway: Gateway, path: str) -> None:
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    status, _, got = fetch(f"{gateway.url}{path}:generateContent?key={KEY}", body)
    assert status == 200, got
    assert got["candidates"][0]["content"]["parts"] == [{"text": "hi"}]


def test_a_stream_not_asked_for_as_sse_is_an_array(gateway: Gateway) -> None:
    body = {"contents": [{"parts": [{"text": "one two"}]}]}
    _, kind, chunks = fetch(f"{gateway.url}/v1beta/models/echo/any:streamGenerateContent", body, KEY)
    assert kind == "application/json"
    assert "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]) == "one two"
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
