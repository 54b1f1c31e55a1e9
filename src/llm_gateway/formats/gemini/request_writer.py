"""Conversation -> a generateContent request.

Law: Gemini's rules are met by moving and merging, never by inventing: system text to `systemInstruction`, neighbours of one
role in one content, a turn's function answers in a content of their own. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from llm_gateway.core.types import Conversation, Message, Opaque, Text, Tool
from llm_gateway.formats import _steps, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.gemini import _thinking
from llm_gateway.formats.gemini._reading import SHAPE
from llm_gateway.formats.gemini._writing import PartWriter

Fields = dict[str, Any]
_SYSTEM = frozenset({"system", "developer"})
_MODES = {"auto": "AUTO", "required": "ANY", "tool": "ANY", "none": "NONE"}
_MOST_STOPS = 5


def path(model: str, *, stream: bool) -> str:
    """Below the API's root. Streams as SSE, whatever the client wants: it is the only one of Gemini's two framings that can
    be cut at events."""
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/models/{quote(model.removeprefix('models/'), safe='')}:{verb}"


def write(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write(call, model))
    return Outgoing(msgspec.json.encode(body), path(model, stream=call.stream), dropped=tuple(dict.fromkeys(dropped)))


def write_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write(call, model)
    written = yield from _steps.encoded(body, "contents")
    return Outgoing(written, path(model, stream=call.stream), dropped=tuple(dict.fromkeys(dropped)))


def _write(call: Conversation, model: str) -> Steps[tuple[Fields, list[str]]]:
    dropped = crossings.unsaid(call, SHAPE)
    writer = PartWriter(dropped, sealed=_thinking.seals(model))
    body: Fields = {}
    if system := _system(call, writer, dropped):
        body["systemInstruction"] = {"parts": system}
    body["contents"] = yield from _contents(call, writer, body, dropped)
    _write_tools(call, body)
    if asked := _generation(call, model, dropped):
        body["generationConfig"] = asked
    if call.format == SHAPE:
        body |= {name: raw for name, raw in call.extras.items() if "[" not in name and "." not in name}
    return body, dropped


def _system(call: Conversation, writer: PartWriter, dropped: list[str]) -> list[Fields | Raw]:
    """Instructions before the first turn are where Gemini has them; later ones move there and are reported."""
    if all(message.role in _SYSTEM for message in call.messages):
        return []
    parts: list[Fields | Raw] = []
    leading = True
    for message in call.messages:
        if message.role in _SYSTEM:
            if not leading:
                dropped.append(f"{message.at}.role")
            if not all(isinstance(part, Text) for part in message.parts):
                raise invalid(f"'{message.at}.content': a system message holds text only.", f"{message.at}.content")
            parts += writer.write(message)
        else:
            leading = False
    return parts


def _contents(call: Conversation, writer: PartWriter, body: Fields, dropped: list[str]) -> Steps[list[Fields]]:
    turns: list[tuple[str, list[Fields | Raw]]] = []
    only_system = all(message.role in _SYSTEM for message in call.messages)
    for at, message in enumerate(call.messages):
        if at % STRIDE == STRIDE - 1:
            yield
        if message.role in _SYSTEM and not only_system:
            continue
        if message.role in _SYSTEM:  # Gemini wants someone to answer
            dropped.append(f"{message.at}.role")
        if message.name is not None:
            dropped.append(f"{message.at}.name")
        if (kept := _cached(message)) is not None:
            body["cachedContent"] = kept
            continue
        role = message.role if message.role in {"assistant", "tool"} else "user"
        parts = writer.write(message)
        if not parts:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, parts))
    if not turns:
        raise invalid("'messages' has nothing to say: it needs a message with content.", "messages")
    return [{"role": "model" if role == "assistant" else "user", "parts": parts} for role, parts in turns]


def _cached(message: Message) -> Raw | None:
    for part in message.parts:
        if isinstance(part, Opaque) and part.format == SHAPE and part.kind == "cachedContent":
            return msgspec.json.decode(part.raw, type=dict[str, Raw])["cachedContent"]
    return None


def _write_tools(call: Conversation, body: Fields) -> None:
    functions: list[Fields] = []
    tools: list[Fields | Raw] = []
    for at, tool in enumerate(call.tools):
        if tool.kind == "function":
            if not functions:
                tools.append({"functionDeclarations": functions})
            functions.append(_function(tool))
        elif tool.format == SHAPE and tool.raw is not None:
            tools.append(tool.raw)
        else:
            raise crossings.no_tool(tool, at)
    choice = call.tool_choice
    if choice is not None and choice.allowed and choice.mode == "auto":  # Gemini restricts ANY only
        functions[:] = [function for function in functions if function["name"] in choice.allowed]
    if tools:
        body["tools"] = tools
    if choice is None or not functions:
        return
    calling: Fields = {"mode": _MODES[choice.mode]}
    if choice.mode == "tool":
        calling["allowedFunctionNames"] = [choice.name]
    elif choice.mode == "required" and choice.allowed:
        calling["allowedFunctionNames"] = list(choice.allowed)
    body["toolConfig"] = {"functionCallingConfig": calling}


def _function(tool: Tool) -> Fields:
    written: Fields = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.schema is not None:
        written["parametersJsonSchema"] = tool.schema
    return written


def _generation(call: Conversation, model: str, dropped: list[str]) -> Fields:
    asked: Fields = {
        "maxOutputTokens": call.max_tokens,
        "temperature": call.temperature,
        "topP": call.top_p,
        "topK": call.top_k,
        "candidateCount": call.n,
        "presencePenalty": call.presence_penalty,
        "frequencyPenalty": call.frequency_penalty,
        "seed": call.seed,
        "responseLogprobs": call.logprobs,
        "logprobs": call.top_logprobs,
    }
    if call.stop:
        asked["stopSequences"] = call.stop[:_MOST_STOPS]
        if len(call.stop) > _MOST_STOPS:
            dropped.append(crossings.name(call, "stop"))
    if call.modalities and call.modalities != ("text",):
        asked["responseModalities"] = [one.upper() for one in call.modalities]
    _write_output(call, asked)
    config, exact = _thinking.write(call.thinking, model)
    if config:
        asked["thinkingConfig"] = config
    if not exact:
        dropped.append(crossings.name(call, "thinking"))
    if call.format == SHAPE:
        own = "generationConfig."
        asked |= {name.removeprefix(own): raw for name, raw in call.extras.items() if name.startswith(own)}
    return {name: value for name, value in asked.items() if value is not None}


def _write_output(call: Conversation, asked: Fields) -> None:
    output = call.output
    if output is None or output.kind == "text":
        return
    asked["responseMimeType"] = "application/json"
    if output.kind == "schema" and output.schema is not None:
        asked["responseJsonSchema"] = output.schema
