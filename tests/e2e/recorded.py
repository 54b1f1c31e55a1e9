"""What a recording says, read without the gateway: texts, tool calls, usage and events, to compare what SDKs report with."""

from __future__ import annotations

import json
from typing import Any

from replay.recordings import Interaction, Recordings

OPENAI_BODY = {"messages", "tools", "tool_choice", "temperature", "response_format", "stream_options", "max_tokens", "max_completion_tokens", "n", "seed"}
OPENAI_BODY |= {"parallel_tool_calls", "reasoning_effort", "logprobs", "top_logprobs", "modalities", "audio", "stop", "top_p"}
ANTHROPIC_BODY = {"messages", "system", "tools", "tool_choice", "temperature", "max_tokens", "thinking", "stop_sequences", "top_p", "top_k"}

UNSAID = ("temperature", "top_p", "top_k")  # the newest SDKs have no parameter for what the newest models refuse


def chosen(recordings: Recordings, provider: str, api: str, *, streaming: bool) -> list[Interaction]:
    """Good recordings whose request was recorded and can be said with the SDK's plain parameters."""
    allowed = (OPENAI_BODY if api == "chat_completions" else ANTHROPIC_BODY) | {"model", "stream"}
    found = recordings.select(provider=provider, api=api, streaming=streaming, status=200)
    return [each for each in found if each.request and set(each.request) <= allowed and each.row["body_kind"] in ("json", "sse")]


def call(each: Interaction, provider: str) -> dict[str, Any]:
    """The recorded request as keyword arguments, asked of the recording itself."""
    body = {key: value for key, value in each.request.items() if key not in ("stream", *UNSAID)}
    unsaid = {key: value for key, value in each.request.items() if key in UNSAID}
    return {**body, "model": f"{provider}/{each.id}", "extra_body": unsaid}


def events(body: bytes) -> list[dict[str, Any]]:
    """The JSON of every SSE event."""
    blocks = body.replace(b"\r\n", b"\n").split(b"\n\n")
    lines = [line[5:].strip() for block in blocks for line in block.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def anthropic_content(each: Interaction) -> tuple[str, list[tuple[str, Any]]]:
    """(text, tool calls as (name, input)) of a recorded message, plain or streamed."""
    if not each.row["streaming"]:
        blocks = json.loads(each.body)["content"]
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        return "".join(texts), [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    text, tools = "", dict[int, tuple[str, str]]()
    for event in events(each.body):
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            tools[event["index"]] = (event["content_block"]["name"], "")
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "text":
            text += event["content_block"]["text"]
        if event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "text_delta":
                text += delta["text"]
            elif delta["type"] == "input_json_delta" and event["index"] in tools:
                name, arguments = tools[event["index"]]
                tools[event["index"]] = (name, arguments + delta["partial_json"])
    return text, [(name, json.loads(arguments or "{}")) for name, arguments in tools.values()]


def openai_content(each: Interaction) -> tuple[str, list[tuple[str, Any]]]:
    """(text, tool calls as (name, arguments)) of the first choice of a recorded completion, plain or streamed."""
    if not each.row["streaming"]:
        message = json.loads(each.body)["choices"][0]["message"]
        calls = message.get("tool_calls") or []
        return message.get("content") or "", [(one["function"]["name"], json.loads(one["function"]["arguments"] or "{}")) for one in calls]
    text, tools = "", dict[int, tuple[str, str]]()
    for event in events(each.body):
        for choice in event.get("choices", []):
            if choice.get("index", 0) != 0:
                continue
            text += choice["delta"].get("content") or ""
            for one in choice["delta"].get("tool_calls") or []:
                name, arguments = tools.get(one["index"], ("", ""))
                function = one.get("function", {})
                tools[one["index"]] = (name + (function.get("name") or ""), arguments + (function.get("arguments") or ""))
    return text, [(name, json.loads(arguments or "{}")) for name, arguments in tools.values()]


def billed(usage: dict[str, Any]) -> int:
    """Output tokens that Anthropic bills: those of every iteration where it lists them; an advisor's stand nowhere else."""
    return sum(each["output_tokens"] for each in usage.get("iterations") or [usage])
