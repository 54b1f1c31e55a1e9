"""Conversation -> a responses request.

Law: nothing is kept upstream (`store` is false), so what the model sealed of its thoughts is asked for and comes back with
the next turn. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

import re
from typing import Any, assert_never

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Audio,
    Conversation,
    Document,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)
from llm_gateway.formats import _schema, _steps, crossings
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.openai_chat import _models
from llm_gateway.formats.openai_responses import _content, _thoughts
from llm_gateway.formats.openai_responses._wire import TIERS
from llm_gateway.formats.openai_responses.request_reader import LOGPROBS, SEALED, SHAPE

PATH = "/responses"
Fields = dict[str, Any]
_EMPTY_SCHEMA = Raw(b'{"type":"object","properties":{}}')
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_LEAST_TOKENS = 16  # OpenAI refuses fewer
_LONGEST_USER = 64
_TIERS = {"standard_only": "default"}
_BUDGETS = ((1024, "minimal"), (4096, "low"), (12000, "medium"))
# Models that seal their thoughts; the others refuse to be asked for them ("Encrypted content is not supported").
_SEALING = re.compile(r"(?:.*[/.])?(?:o\d|gpt-(?:[5-9]|\d\d)(?!.*chat)|codex|grok-4)")


def write(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write(call, model))
    return Outgoing(msgspec.json.encode(body), PATH, dropped=tuple(dict.fromkeys(dropped)))


def write_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write(call, model)
    written = yield from _steps.encoded(body, "input")
    return Outgoing(written, PATH, dropped=tuple(dict.fromkeys(dropped)))


def _write(call: Conversation, model: str) -> Steps[tuple[Fields, list[str]]]:
    dropped = crossings.unsaid(call, SHAPE)
    items = _Items(call, dropped)
    body: Fields = {"model": model, "input": (yield from items.written()), "store": False}
    if items.instructions is not None:
        body["instructions"] = items.instructions
    body |= {
        field: value for field in ("temperature", "top_p", "metadata") if (value := getattr(call, field)) is not None
    }
    _write_thinking(call, model, body, dropped)
    if call.max_tokens is not None:
        body["max_output_tokens"] = max(call.max_tokens, _LEAST_TOKENS)
        if call.max_tokens < _LEAST_TOKENS and call.format != SHAPE:
            dropped.append(crossings.name(call, "max_tokens"))
    if call.tools:
        body["tools"] = [tool(one, at, dropped) for at, one in enumerate(call.tools)]
        if call.tool_choice is not None:
            body["tool_choice"] = choice(call.tool_choice, call.tools)
        if call.parallel_tools is not None:
            body["parallel_tool_calls"] = call.parallel_tools
    _write_rest(call, model, body, dropped)
    if call.stream:
        body["stream"] = True
    if call.format == SHAPE:
        body |= {name: raw for name, raw in call.extras.items() if "[" not in name}
    return body, dropped


class _Items:
    """One request's input. `_custom`: calls of custom tools, whose outputs have a type of their own."""

    def __init__(self, call: Conversation, dropped: list[str]) -> None:
        self._call = call
        self._dropped = dropped
        self._custom: set[str] = set()
        self.instructions: str | None = None

    def written(self) -> Steps[list[Fields | Raw]]:
        items: list[Fields | Raw] = []
        for at, message in enumerate(self._call.messages):
            if at % STRIDE == STRIDE - 1:
                yield
            if message.name is not None:
                self._dropped.append(f"{message.at}.name")
            if message.role == "assistant":
                items += self._said(message)
            elif message.role == "tool":
                items += [self._result(part, message) for part in message.parts if isinstance(part, ToolResult)]
            elif message.at == "instructions" and self._call.format == SHAPE:
                self.instructions = "".join(part.text for part in message.parts if isinstance(part, Text))
            else:
                items += self._told(message)
        return items

    def _told(self, message: Message) -> list[Fields | Raw]:
        own = [part.raw for part in message.parts if isinstance(part, Opaque) and part.format == SHAPE]
        if own:
            return [*own]
        content = _content.write(message.parts, message.at, self._dropped)
        return [{"role": message.role, "content": content}]

    def _said(self, message: Message) -> list[Fields | Raw]:
        """A model's turn, each part an item: a message of several texts would need the id that the API gave it."""
        items: list[Fields | Raw] = []
        for part in _with_thoughts(message.parts):
            if isinstance(part, Text | Refusal):
                items += self._word(part, message)
            elif isinstance(part, tuple):
                items += self._thought(part, message)
            else:
                items += self._other(part, message)
        return items

    def _word(self, part: Text | Refusal, message: Message) -> list[Fields]:
        if isinstance(part, Text) and part.cache is not None:
            self._dropped.append(f"{message.at}.cache_control")
        if not part.text:
            return []
        if isinstance(part, Refusal):
            return [{"role": "assistant", "content": [{"type": "refusal", "refusal": part.text}]}]
        return [{"role": "assistant", "content": part.text}]

    def _thought(self, parts: tuple[Reasoning, ...], message: Message) -> list[Fields]:
        """Back to who sealed it, and to nobody else: what is unsealed is kept nowhere, so its id would be unknown."""
        sealed = parts[-1]
        if sealed.format != SHAPE or sealed.redacted is None:
            self._dropped.append(f"{message.at}.reasoning")
            return []
        item = _thoughts.item(sealed.id or "", parts)
        if not sealed.id:
            del item["id"]
        return [item]

    def _other(self, part: Part, message: Message) -> list[Fields | Raw]:
        match part:
            case ToolCall(kind="custom", id=name):
                self._custom.add(name)
                return [{"type": "custom_tool_call", "call_id": name, "name": part.name, "input": part.arguments}]
            case ToolCall(id=name, cache=cache):
                if cache is not None:
                    self._dropped.append(f"{message.at}.cache_control")
                arguments = part.arguments or "{}"
                return [{"type": "function_call", "call_id": name, "name": part.name, "arguments": arguments}]
            case Opaque(format="openai_responses", raw=raw):
                return [raw]
            case Opaque(kind=kind):
                self._dropped.append(f"{message.at}.content.{kind}")
            case Audio(transcript=str() as transcript) if transcript:
                self._dropped.append(f"{message.at}.audio")
                return [{"role": "assistant", "content": transcript}]
            case Audio() | Image() | Video() | Document() | ToolResult() | Text() | Refusal() | Reasoning():
                self._dropped.append(f"{message.at}.content.{type(part).__name__.lower()}")
            case _:
                assert_never(part)
        return []

    def _result(self, part: ToolResult, message: Message) -> Fields:
        if part.cache is not None:
            self._dropped.append(f"{message.at}.cache_control")
        output = _content.write(part.content, message.at, self._dropped)
        if part.is_error and isinstance(output, str) and not output.lower().startswith("error"):
            output = f"Error: {output}"
        elif part.is_error and isinstance(output, list):
            output = [{"type": "input_text", "text": "Error:"}, *output]
        kind = "custom_tool_call_output" if part.call_id in self._custom else "function_call_output"
        return {"type": kind, "call_id": part.call_id, "output": output}


def _with_thoughts(parts: tuple[Part, ...]) -> list[Part | tuple[Reasoning, ...]]:
    """Thoughts in a row as the items they came from."""
    found: list[Part | tuple[Reasoning, ...]] = []
    thoughts: list[Reasoning] = []
    for part in (*parts, None):
        if isinstance(part, Reasoning):
            thoughts.append(part)
            continue
        found += _thoughts.grouped(tuple(thoughts))
        thoughts = []
        if part is not None:
            found.append(part)
    return found


def choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> str | Fields:
    kinds = {tool.name: tool.kind for tool in tools}
    if choice.allowed:
        return {"type": "allowed_tools", "mode": choice.mode, "tools": [_named(name, kinds) for name in choice.allowed]}
    if choice.mode == "tool":
        return _named(choice.name or "", kinds)
    return choice.mode


def _named(name: str, kinds: dict[str, str]) -> Fields:
    kind = kinds.get(name, "function")
    return {"type": kind, "name": name} if kind in {"function", "custom"} else {"type": kind}


def tool(tool: Tool, at: int, dropped: list[str]) -> Fields | Raw:
    """`strict` is always said: left out, this API takes it for true, and refuses most schemas."""
    if tool.cache is not None:
        dropped.append(f"tools[{at}].cache_control")
    if tool.kind == "function":
        schema = _EMPTY_SCHEMA if tool.schema is None else _schema.with_properties(tool.schema)
        written: Fields = {"type": "function", "name": tool.name, "parameters": schema}
        written["strict"] = bool(tool.strict)
        return written | ({"description": tool.description} if tool.description is not None else {})
    if tool.kind == "custom" and tool.format in {SHAPE, "openai_chat"}:
        custom: Fields = {"type": "custom", "name": tool.name}
        custom |= {"description": tool.description} if tool.description is not None else {}
        return custom | ({"format": _grammar(tool.raw)} if tool.raw is not None else {})
    if tool.format != SHAPE or tool.raw is None:
        raise crossings.no_tool(tool, at)
    return tool.raw


def _grammar(raw: Raw) -> Fields | Raw:
    """Chat completions put a grammar one level deeper."""
    try:
        told = _decode_members(raw)
        return {"type": "grammar", **_decode_members(told["grammar"])} if "grammar" in told else raw
    except (msgspec.DecodeError, RecursionError):
        return raw


def _write_thinking(call: Conversation, model: str, body: Fields, dropped: list[str]) -> None:
    """How much to think, and what a model that does leaves out."""
    reasoning = reasoning_options(call.thinking) if call.thinking is not None else {}
    if reasoning and _models.thinks(model):
        body["reasoning"] = reasoning
    elif reasoning.get("effort", "none") != "none":
        dropped.append(crossings.name(call, "thinking"))
    untaken, lost = _models.unsampled(call, model, reasoning.get("effort"))
    dropped += lost
    for field in untaken & body.keys():
        del body[field]


def _write_rest(call: Conversation, model: str, body: Fields, dropped: list[str]) -> None:
    include: list[str] = []
    if text := text_options(call):
        body["text"] = text
    if _SEALING.match(model) or body.get("reasoning", {}).get("effort", "none") != "none":
        include.append(SEALED)
    if call.logprobs and "logprobs" not in _models.unsampled(call, model, body.get("reasoning", {}).get("effort"))[0]:
        include.append(LOGPROBS)
        if call.top_logprobs:
            body["top_logprobs"] = call.top_logprobs
    if include:
        body["include"] = include
    if call.user is not None:
        if len(call.user) <= _LONGEST_USER:
            body["user"] = call.user
        else:
            dropped.append(crossings.name(call, "user"))
    if call.service_tier is not None:
        tier = _TIERS.get(call.service_tier, call.service_tier)
        if tier in TIERS:
            body["service_tier"] = tier
        else:
            dropped.append(crossings.name(call, "service_tier"))


def text_options(call: Conversation) -> Fields:
    options: Fields = {}
    output = call.output
    if output is not None and output.kind == "json":
        options["format"] = {"type": "json_object"}
    elif output is not None and output.kind == "schema":
        schema: Fields = {
            "type": "json_schema",
            "name": output.name or "reply",
            "schema": output.schema or _EMPTY_SCHEMA,
        }
        schema |= {"description": output.description} if output.description is not None else {}
        strict = output.strict if output.strict is not None or call.format in {SHAPE, "openai_chat"} else True
        options["format"] = schema | ({"strict": strict} if strict is not None else {})
    if call.verbosity is not None:
        options["verbosity"] = call.verbosity
    return options


def reasoning_options(thinking: Thinking) -> Fields:
    """Switched off, it is left to the model's default, unless the client said "none": most models refuse that."""
    options: Fields = {}
    if thinking.effort is not None:
        options["effort"] = thinking.effort
    elif thinking.enabled is not False and thinking.budget is not None:
        budget = thinking.budget
        options["effort"] = next((effort for most, effort in _BUDGETS if budget <= most), "high")
    shown = thinking.visible or (thinking.visible is None and (thinking.budget is not None or thinking.adaptive))
    if thinking.summary is not None or (shown and thinking.enabled is not False):
        options["summary"] = thinking.summary or "auto"
    return options
