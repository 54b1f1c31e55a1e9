"""Conversation -> a messages request.

Law: Anthropic's rules are met by moving and merging, never by inventing: system text to `system`, tool results first in a
user message, one message per turn, nothing empty. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, structs

from llm_gateway.core.types import CacheMark, Conversation, Text, Tool, ToolChoice
from llm_gateway.formats import _steps, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.anthropic_messages import _parts, _thinking
from llm_gateway.formats.anthropic_messages._blocks import SHAPE
from llm_gateway.formats.contract import Outgoing

PATH = "/messages"
_SYSTEM = frozenset({"system", "developer"})
_EMPTY_SCHEMA = Raw(b'{"type":"object","properties":{}}')
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_CHOICES = {"auto": "auto", "required": "any", "tool": "tool", "none": "none"}
_THINKING_TOP_P = 0.95  # the least that Anthropic takes while thinking


def write(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write(call, model))
    return Outgoing(msgspec.json.encode(body), PATH, dropped=tuple(dict.fromkeys(dropped)))


def write_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write(call, model)
    written = yield from _steps.encoded(body, "messages")
    return Outgoing(written, PATH, dropped=tuple(dict.fromkeys(dropped)))


def _write(call: Conversation, model: str) -> Steps[tuple[dict[str, Any], list[str]]]:
    dropped = crossings.unsaid(call, SHAPE)
    call = _with_a_turn(call, dropped)
    body: dict[str, Any] = {"model": model, "max_tokens": call.max_tokens or _thinking.DEFAULT_TOKENS}
    if system := _system(call, dropped):
        body["system"] = system
    body["messages"] = yield from _messages(call, dropped)
    _write_tools(call, body)
    _write_output(call, body, dropped)
    if not _thinking.write(call, model, body):
        dropped.append(crossings.name(call, "thinking"))
    _write_sampling(call, model, body, dropped)
    if call.stream:
        body["stream"] = True
    if call.user is not None:
        body["metadata"] = {"user_id": call.user}
    if call.service_tier is not None:
        _write_tier(call.service_tier, body, dropped)
    if call.cache is not None:
        body["cache_control"] = _parts.mark(call.cache)
    if call.format == SHAPE:
        body |= {name: raw for name, raw in call.extras.items() if "[" not in name}
    return body, dropped


def _with_a_turn(call: Conversation, dropped: list[str]) -> Conversation:
    """Anthropic wants someone to answer: instructions alone become what the user says."""
    if any(message.role not in _SYSTEM for message in call.messages):
        return call
    dropped += [f"{message.at}.role" for message in call.messages]
    turns = tuple(structs.replace(message, role="user") for message in call.messages)
    return structs.replace(call, messages=turns)


def _system(call: Conversation, dropped: list[str]) -> str | list[_parts.Block | Raw]:
    blocks: list[_parts.Block | Raw] = []
    leading = True
    for message in call.messages:
        if message.role in _SYSTEM:
            if not leading:
                dropped.append(f"{message.at}.role")
            if not all(isinstance(part, Text) for part in message.parts):
                raise invalid(f"'{message.at}.content': a system message holds text only.", f"{message.at}.content")
            blocks += _parts.write(message, dropped)
        else:
            leading = False
    only = blocks[0] if len(blocks) == 1 else None
    if isinstance(only, dict) and only.keys() == {"type", "text"}:
        return str(only["text"])
    return blocks


def _messages(call: Conversation, dropped: list[str]) -> Steps[list[dict[str, Any]]]:
    turns: list[tuple[str, list[_parts.Block | Raw]]] = []
    for at, message in enumerate(call.messages):
        if at % STRIDE == STRIDE - 1:
            yield
        if message.role in _SYSTEM:
            continue
        if message.name is not None:
            dropped.append(f"{message.at}.name")
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _parts.write(message, dropped)
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns:
        raise invalid("'messages' has nothing to say: it needs a message with content.", "messages")
    _trim_prefill(turns[-1])
    written: list[dict[str, Any]] = []
    for at, (role, blocks) in enumerate(turns):
        if at % STRIDE == STRIDE - 1:
            yield
        written.append({"role": role, "content": _content(role, blocks)})
    return written


def _content(role: str, blocks: list[_parts.Block | Raw]) -> str | list[_parts.Block | Raw]:
    only = blocks[0] if len(blocks) == 1 else None
    if isinstance(only, dict) and only.keys() == {"type", "text"}:
        return str(only["text"])
    if role == "user":
        blocks.sort(key=lambda block: not (isinstance(block, dict) and block["type"] == "tool_result"))
    return blocks


def _trim_prefill(turn: tuple[str, list[_parts.Block | Raw]]) -> None:
    """A last assistant message is a beginning to be continued; Anthropic refuses one that ends in white space."""
    role, blocks = turn
    last = blocks[-1]
    if role == "assistant" and isinstance(last, dict) and last["type"] == "text":
        last["text"] = last["text"].rstrip() or last["text"]


def _write_tools(call: Conversation, body: dict[str, Any]) -> None:
    allowed = call.tool_choice.allowed if call.tool_choice is not None else ()
    tools = [_tool(tool, at) for at, tool in enumerate(call.tools) if not allowed or tool.name in allowed]
    if not tools:
        return
    body["tools"] = tools
    choice = call.tool_choice or (ToolChoice() if call.parallel_tools is False else None)
    if choice is None:
        return
    written: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.mode == "tool":
        written["name"] = choice.name
    if call.parallel_tools is False and choice.mode != "none":
        written["disable_parallel_tool_use"] = True
    body["tool_choice"] = written


def _tool(tool: Tool, at: int) -> dict[str, Any] | Raw:
    if tool.kind != "function":
        if tool.format == SHAPE and tool.raw is not None:
            return tool.raw
        raise crossings.no_tool(tool, at)
    written: dict[str, Any] = {"name": tool.name, "input_schema": tool.schema or _EMPTY_SCHEMA}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict:
        written["strict"] = True
    return _with_mark(written, tool.cache)


def _with_mark(written: dict[str, Any], cache: CacheMark | None) -> dict[str, Any]:
    if cache is not None:
        written["cache_control"] = _parts.mark(cache)
    return written


def _write_output(call: Conversation, body: dict[str, Any], dropped: list[str]) -> None:
    output = call.output
    if output is None or output.kind == "text":
        return
    if output.kind == "schema" and output.schema is not None:
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": output.schema}
    else:
        dropped.append(crossings.name(call, "output"))


def _write_sampling(call: Conversation, model: str, body: dict[str, Any], dropped: list[str]) -> None:
    if _thinking.sampled(model):
        _sample(call, body, dropped)
    else:
        dropped += crossings.unsampled(call)
    if call.stop:
        body["stop_sequences"] = [stop for stop in call.stop if stop.strip()]
        if len(body["stop_sequences"]) < len(call.stop):
            dropped.append(crossings.name(call, "stop"))


def _sample(call: Conversation, body: dict[str, Any], dropped: list[str]) -> None:
    thinks = "thinking" in body and body["thinking"]["type"] != "disabled"
    if call.temperature is not None:
        if (thinks and call.temperature != 1) or call.temperature > 1:
            dropped.append(crossings.name(call, "temperature"))
        if not thinks:
            body["temperature"] = min(call.temperature, 1.0)
    if call.top_p is not None:
        if (thinks and call.top_p < _THINKING_TOP_P) or ("temperature" in body and call.format != SHAPE):
            dropped.append(crossings.name(call, "top_p"))
        else:
            body["top_p"] = call.top_p
    if call.top_k is not None:
        if thinks:
            dropped.append(crossings.name(call, "top_k"))
        else:
            body["top_k"] = call.top_k


def _write_tier(tier: str, body: dict[str, Any], dropped: list[str]) -> None:
    if tier in _TIERS:
        body["service_tier"] = _TIERS[tier]
    else:
        dropped.append("service_tier")
