"""What a reply says, whole or streamed, in each API's own words: text, tool calls, why it ended, tokens.

Law: reads JSON as the APIs document it, without the gateway; used on recordings, and on what SDKs made of our replies, so that
both can be compared. Only the first answer of several is read. `done` is the end of a reply that said all it had to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

JSON = dict[str, Any]

_ENDS = {
    "stop": "done", "tool_calls": "done", "function_call": "done", "end_turn": "done", "tool_use": "done", "stop_sequence": "done",
    "completed": "done", "STOP": "done", "FINISH_REASON_STOP": "done", "eos": "done", "pause_turn": "pause", "load": "done",
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "MAX_TOKENS": "length", "model_length": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "filter", "refusal": "filter", "content_filtered": "filter", "guardrail_intervened": "filter",
    "SAFETY": "filter", "RECITATION": "filter", "BLOCKLIST": "filter", "PROHIBITED_CONTENT": "filter", "SPII": "filter",
    "IMAGE_SAFETY": "filter", "MODEL_ARMOR": "filter", "error": "error", "MALFORMED_FUNCTION_CALL": "error", "failed": "error",
    "UNEXPECTED_TOOL_CALL": "error", "malformed_tool_use": "error", "malformed_model_output": "error", "insufficient_system_resource": "error",
}  # fmt: skip


class Told(NamedTuple):
    """`usage`: tokens of the prompt, cached ones included, and generated ones, reasoning included; None where nobody counted.
    `failed`: it reports an error."""

    text: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    end: str = ""
    usage: tuple[int, int] | None = None
    failed: bool = False


def whole(shape: str, reply: JSON) -> Told:
    return _WHOLE[shape](reply)


def streamed(shape: str, events: Iterable[JSON]) -> Told:
    return _STREAMED[shape](list(events))


def end(word: object) -> str:
    return _ENDS.get(str(word), str(word)) if word else ""


def arguments(written: object) -> Any:
    """A call's arguments as a value; as text where they are no JSON (free-form input)."""
    if not isinstance(written, str):
        return written or {}
    try:
        return json.loads(written or "{}") or {}
    except ValueError:
        return written


# -- OpenAI's chat and completions ------------------------------------------------------------------------------------


def _words(content: Any) -> str:
    if isinstance(content, list):  # Mistral's pieces
        return "".join(piece.get("text") or "" for piece in content if piece.get("type") == "text")
    return content or ""


def _called(call: JSON) -> tuple[str, str]:
    what = call.get("function") or call.get("custom") or {}
    given = what.get("arguments") if "arguments" in what else what.get("input")
    return what.get("name") or "", given if isinstance(given, str) else json.dumps(given or {})


def _chat_usage(usage: JSON | None) -> tuple[int, int] | None:
    """Some leave reasoning out of completion_tokens, which total_tokens or its size betrays."""
    if not usage:
        return None
    prompt, output, total = (usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or usage.get("reasoning_tokens") or 0
    return prompt, output + thought if thought > output or total == prompt + output + thought else output


def _chat(reply: JSON) -> Told:
    if "error" in reply and not reply.get("choices"):
        return Told(failed=True)
    choice = (reply.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    legacy = [{"function": message["function_call"]}] if (message.get("function_call") or {}).get("name") else []
    calls = [_called(call) for call in (message.get("tool_calls") or legacy)]
    return Told(
        _words(message.get("content")) + (message.get("refusal") or ""),
        tuple((name, arguments(given)) for name, given in calls),
        end(choice.get("finish_reason")),
        _chat_usage(reply.get("usage")),
    )


def _chat_stream(events: list[JSON]) -> Told:
    text, finish, usage, failed = "", "", None, False
    calls: dict[Any, list[str]] = {}
    for event in events:
        failed = failed or bool(event.get("error"))
        usage = _chat_usage(event.get("usage") or (event.get("x_groq") or {}).get("usage")) or usage
        for choice in event.get("choices") or []:
            if choice.get("index") or 0:
                continue
            delta = choice.get("delta") or {}
            text += _words(delta.get("content")) + (delta.get("refusal") or "")
            finish = choice.get("finish_reason") or finish
            usage = usage or _chat_usage(choice.get("usage"))
            legacy = [{"index": 0, "function": delta["function_call"]}] if delta.get("function_call") else []
            for call in delta.get("tool_calls") or legacy:
                own = calls.setdefault(call.get("index", call.get("id")), ["", ""])
                what = call.get("function") or call.get("custom") or {}
                own[0] += what.get("name") or ""
                given = what.get("arguments") if "arguments" in what else what.get("input")
                own[1] += given if isinstance(given, str) else json.dumps(given) if given else ""
    return Told(text, tuple((name, arguments(given)) for name, given in calls.values()), end(finish), usage, failed)


def _completion(reply: JSON) -> Told:
    choice = (reply.get("choices") or [{}])[0]
    return Told(choice.get("text") or "", (), end(choice.get("finish_reason")), _chat_usage(reply.get("usage")))


def _completion_stream(events: list[JSON]) -> Told:
    text, finish, usage = "", "", None
    for event in events:
        usage = _chat_usage(event.get("usage")) or usage
        for choice in event.get("choices") or []:
            if not (choice.get("index") or 0):
                text += choice.get("text") or ""
                finish = choice.get("finish_reason") or finish
    return Told(text, (), end(finish), usage, any("error" in event for event in events))


# -- OpenAI's responses -----------------------------------------------------------------------------------------------


def _response_end(response: JSON) -> str:
    status = response.get("status")
    return end((response.get("incomplete_details") or {}).get("reason") or status)


def _response_usage(usage: JSON | None) -> tuple[int, int] | None:
    """As in chat, there are services that leave reasoning out."""
    if not usage:
        return None
    prompt, output, total = (usage.get(name) or 0 for name in ("input_tokens", "output_tokens", "total_tokens"))
    thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
    return prompt, output + thought if thought > output or (thought and total == prompt + output + thought) else output


def _item_call(item: JSON) -> tuple[str, Any] | None:
    if item.get("type") == "function_call":
        return item["name"], arguments(item.get("arguments"))
    if item.get("type") == "custom_tool_call":
        return item["name"], arguments(item.get("input"))
    return None


def _response(reply: JSON) -> Told:
    items = reply.get("output") or []
    pieces = [piece for item in items if item.get("type") == "message" for piece in item.get("content") or []]
    text = "".join(piece.get("text") or piece.get("refusal") or "" for piece in pieces)
    calls = tuple(call for item in items if (call := _item_call(item)) is not None)
    return Told(text, calls, _response_end(reply), _response_usage(reply.get("usage")), bool(reply.get("error")))


def _response_stream(events: list[JSON]) -> Told:
    text, calls, final, failed = "", [], dict[str, Any](), False
    for event in events:
        kind = event.get("type")
        if kind in {"response.output_text.delta", "response.refusal.delta"}:
            text += event["delta"]
        elif kind == "response.output_item.done":
            call = _item_call(event["item"])
            calls += [call] if call else []
        elif kind in {"response.completed", "response.incomplete", "response.failed"}:
            final, failed = event["response"], failed or kind == "response.failed"
            break
        elif kind == "error":
            failed = True
            break
    return Told(text, tuple(calls), _response_end(final), _response_usage(final.get("usage")), failed)


# -- Anthropic --------------------------------------------------------------------------------------------------------


def _message_usage(usage: JSON | None) -> tuple[int, int] | None:
    """Where a server's tools made it several passes, each is billed."""
    if not usage:
        return None
    passes = usage.get("iterations") or [usage]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(each.get(name) or 0 for each in passes for name in names), sum(each.get("output_tokens") or 0 for each in passes)


def _message(reply: JSON) -> Told:
    blocks = reply.get("content") or []
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = tuple((block["name"], block.get("input") or {}) for block in blocks if block["type"] == "tool_use")
    return Told(text, calls, end(reply.get("stop_reason")), _message_usage(reply.get("usage")), reply.get("type") == "error")


def _message_stream(events: list[JSON]) -> Told:
    text, finish, usage, failed = "", "", dict[str, Any](), False
    tools: dict[int, list[Any]] = {}
    for event in events:
        kind = event.get("type")
        failed = failed or kind == "error"
        if kind == "message_start":
            usage |= event["message"].get("usage") or {}
        elif kind == "content_block_start":
            block = event["content_block"]
            text += block.get("text") or "" if block["type"] == "text" else ""
            if block["type"] == "tool_use":
                tools[event["index"]] = [block["name"], "", block.get("input")]
        elif kind == "content_block_delta":
            delta = event["delta"]
            text += delta["text"] if delta["type"] == "text_delta" else ""
            if delta["type"] == "input_json_delta" and event["index"] in tools:
                tools[event["index"]][1] += delta["partial_json"]
        elif kind == "message_delta":
            finish = event["delta"].get("stop_reason") or finish
            usage |= {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
    calls = tuple((name, arguments(given) or first or {}) for name, given, first in tools.values())
    return Told(text, calls, end(finish), _message_usage(usage), failed)


# -- Gemini -----------------------------------------------------------------------------------------------------------

_NUMBERED = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY"}


def _either(tree: JSON, camel: str) -> Any:
    """protobuf's JSON has both casings, as some recorders do."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
    return tree.get(camel, tree.get(snake))


def _content(reply: JSON) -> Told:
    return _content_stream([reply])


def _content_stream(events: list[JSON]) -> Told:
    text, finish, usage = "", "", None
    calls: list[tuple[str, Any]] = []
    for event in events:
        for candidate in (one for one in event.get("candidates") or [] if not one.get("index")):
            for part in (candidate.get("content") or {}).get("parts") or []:
                if part.get("text") and not part.get("thought"):
                    text += part["text"]
                if (call := _either(part, "functionCall")) is not None:
                    _piece(call, calls)
            word = _either(candidate, "finishReason")
            finish = end(_NUMBERED.get(word, word)) or finish
        if (_either(event, "promptFeedback") or {}).get("blockReason"):
            finish = "filter"
        if counts := _either(event, "usageMetadata"):
            numbers = [_either(counts, name) or 0 for name in ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")]
            usage = numbers[0] + numbers[1], numbers[2] + numbers[3]
    return Told(text, tuple(calls), finish, usage, any("error" in event for event in events))


def _piece(call: JSON, calls: list[tuple[str, Any]]) -> None:
    """A call, or one whose arguments come bit by bit: `$.name`, each value whole or as pieces of a string."""
    if call.get("name"):
        calls.append((call["name"], call.get("args") or {}))
    for bit in call.get("partialArgs") or []:
        name = bit["jsonPath"].removeprefix("$.")
        value = next((bit[kind] for kind in ("stringValue", "numberValue", "boolValue") if kind in bit), None)
        held = calls[-1][1]
        held[name] = held[name] + value if isinstance(held.get(name), str) and isinstance(value, str) else value


# -- Bedrock ----------------------------------------------------------------------------------------------------------


def _converse_usage(usage: JSON | None) -> tuple[int, int] | None:
    if not usage:
        return None
    prompt = sum(usage.get(name) or 0 for name in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"))
    return prompt, usage.get("outputTokens") or 0


def _converse(reply: JSON) -> Told:
    blocks = reply["output"]["message"]["content"]
    text = "".join(_block_text(block) for block in blocks)
    tools = [block["toolUse"] for block in blocks if "toolUse" in block]
    calls = tuple((tool["name"], tool.get("input") or {}) for tool in tools if tool.get("type") != "server_tool_use")
    return Told(text, calls, end(reply.get("stopReason")), _converse_usage(reply.get("usage")))


def _block_text(block: JSON) -> str:
    cited = (block.get("citationsContent") or {}).get("content") or []
    return (block.get("text") or "") + "".join(piece.get("text") or "" for piece in cited)


def _converse_stream(events: list[JSON]) -> Told:
    text, finish, usage = "", "", None
    tools: dict[int, list[str]] = {}
    for event in events:
        if "contentBlockStart" in event:
            tool = event["contentBlockStart"].get("start", {}).get("toolUse")
            if tool and tool.get("type") != "server_tool_use":
                tools[event["contentBlockStart"]["contentBlockIndex"]] = [tool["name"], ""]
        elif "contentBlockDelta" in event:
            index, delta = event["contentBlockDelta"]["contentBlockIndex"], event["contentBlockDelta"]["delta"]
            text += delta.get("text") or ""
            if "toolUse" in delta and index in tools:
                tools[index][1] += delta["toolUse"]["input"]
        elif "messageStop" in event:
            finish = event["messageStop"]["stopReason"]
        elif "metadata" in event:
            usage = _converse_usage(event["metadata"].get("usage"))
    calls = tuple((name, arguments(given)) for name, given in tools.values())
    return Told(text, calls, end(finish), usage, any("error" in event for event in events))


# -- Ollama -----------------------------------------------------------------------------------------------------------


def _ollama(reply: JSON) -> Told:
    return _ollama_stream([reply])


def _ollama_stream(events: list[JSON]) -> Told:
    text, calls, last = "", [], events[-1] if events else {}
    for event in events:
        message = event.get("message") or {}
        text += message.get("content") or event.get("response") or ""
        calls += [(call["function"]["name"], call["function"].get("arguments") or {}) for call in message.get("tool_calls") or []]
    counted = last.get("eval_count") is not None or last.get("prompt_eval_count") is not None
    usage = (last.get("prompt_eval_count") or 0, last.get("eval_count") or 0) if counted else None
    finish = end(last.get("done_reason")) or ("done" if last.get("done") else "")
    return Told(text, tuple(calls), finish, usage, "error" in last)


_WHOLE = {
    "openai_chat": _chat, "openai_completions": _completion, "openai_responses": _response, "anthropic_messages": _message,
    "gemini": _content, "bedrock_converse": _converse, "ollama_chat": _ollama, "ollama_generate": _ollama,
}  # fmt: skip
_STREAMED = {
    "openai_chat": _chat_stream, "openai_completions": _completion_stream, "openai_responses": _response_stream,
    "anthropic_messages": _message_stream, "gemini": _content_stream, "bedrock_converse": _converse_stream,
    "ollama_chat": _ollama_stream, "ollama_generate": _ollama_stream,
}  # fmt: skip
