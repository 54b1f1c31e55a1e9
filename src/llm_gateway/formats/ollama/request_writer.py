"""Conversation -> a request to Ollama's chat or generate.

Law: `stream` is always said, since leaving it out asks for a stream. A generate holds instructions and one question; a
conversation that is more is refused. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
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
    Tool,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats import _arguments, _steps, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.ollama import _thinking
from llm_gateway.formats.ollama.replies import CHAT, GENERATE, SHAPES

CHAT_PATH, GENERATE_PATH = "/api/chat", "/api/generate"
Fields = dict[str, Any]
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_SYSTEM = frozenset({"system", "developer"})
# Options by Ollama's names and ours.
_OPTIONS = (
    ("num_predict", "max_tokens"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("seed", "seed"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
)


def write_chat(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write_chat(call, model))
    return Outgoing(msgspec.json.encode(body), CHAT_PATH, dropped=tuple(dict.fromkeys(dropped)))


def write_chat_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write_chat(call, model)
    written = yield from _steps.encoded(body, "messages")
    return Outgoing(written, CHAT_PATH, dropped=tuple(dict.fromkeys(dropped)))


def _write_chat(call: Conversation, model: str) -> Steps[tuple[Fields, list[str]]]:
    dropped = crossings.unsaid(call, CHAT)
    names: dict[str, str] = {}
    messages: list[Fields] = []
    for at, message in enumerate(call.messages):
        messages += _message(message, names, dropped)
        if at % STRIDE == STRIDE - 1:
            yield
    body: Fields = {"model": model, "messages": messages}
    if tools := _tools(call, dropped):
        body["tools"] = tools
    _finish(call, CHAT_PATH, body, dropped)
    return body, dropped


def write_generate(call: Conversation, model: str) -> Outgoing:
    dropped = crossings.unsaid(call, GENERATE)
    body: Fields = {"model": model}
    instructions = [message for message in call.messages if message.role in _SYSTEM]
    asked = [message for message in call.messages if message.role not in _SYSTEM]
    if len(asked) != 1 or asked[0].role != "user":
        at = asked[1].at if len(asked) > 1 else "messages"
        raise invalid("This model is asked once: it cannot be told what was said before.", at)
    if instructions:
        body["system"] = "\n\n".join(_words(_plain(one), one, dropped) for one in instructions)
    own = [part for part in asked[0].parts if isinstance(part, Opaque) and part.format == GENERATE]
    rest = Message("user", tuple(part for part in asked[0].parts if part not in own), asked[0].name, asked[0].at)
    said = _user(rest, dropped)
    body["prompt"] = said["content"]
    if "images" in said:
        body["images"] = said["images"]
    for part in own:
        body |= _decode_members(part.raw)
    _finish(call, GENERATE_PATH, body, dropped)
    return Outgoing(msgspec.json.encode(body), GENERATE_PATH, dropped=tuple(dict.fromkeys(dropped)))


def _finish(call: Conversation, path: str, body: Fields, dropped: list[str]) -> None:
    options: Fields = {name: value for name, ours in _OPTIONS if (value := getattr(call, ours)) is not None}
    if call.stop:
        options["stop"] = list(call.stop)
    body["stream"] = call.stream
    output = call.output
    if output is not None and output.kind != "text":
        body["format"] = output.schema if output.kind == "schema" and output.schema is not None else "json"
    think, exact = _thinking.write(call.thinking, str(body["model"]), own=call.format in SHAPES)
    if think is not None:
        body["think"] = think
    if not exact:
        dropped.append(crossings.name(call, "thinking"))
    if call.logprobs is not None:
        body["logprobs"] = call.logprobs
    if call.top_logprobs is not None:
        body["top_logprobs"] = call.top_logprobs
    if call.format == (CHAT if path == CHAT_PATH else GENERATE):
        for name, raw in call.extras.items():
            if name.startswith("options."):
                options[name.removeprefix("options.")] = raw
            elif "[" not in name:
                body[name] = raw
    if options:
        body["options"] = options


def _message(message: Message, names: dict[str, str], dropped: list[str]) -> list[Fields]:
    """names: call id -> function, of what was called so far."""
    if message.name is not None:
        dropped.append(f"{message.at}.name")
    if message.role == "tool":
        return [_result(part, message, names, dropped) for part in message.parts if isinstance(part, ToolResult)]
    if message.role == "assistant":
        names.update({part.id: part.name for part in message.parts if isinstance(part, ToolCall)})
        return [_assistant(message, dropped)]
    if message.role in _SYSTEM:
        return [{"role": "system", "content": _words(_plain(message), message, dropped)}]
    return [{"role": "user", **_user(message, dropped)}]


def _plain(message: Message) -> tuple[Part, ...]:
    if not all(isinstance(part, Text) for part in message.parts):
        raise invalid(f"'{message.at}.content': a system message holds text only.", f"{message.at}.content")
    return message.parts


def _words(parts: tuple[Part, ...], message: Message, dropped: list[str]) -> str:
    texts = [part for part in parts if isinstance(part, Text)]
    if any(part.cache is not None for part in texts):
        dropped.append(f"{message.at}.cache_control")
    return "\n\n".join(part.text for part in texts)


def _user(message: Message, dropped: list[str]) -> Fields:
    words: list[Part] = []
    images: list[str] = []
    for part in message.parts:
        match part:
            case Text():
                words.append(part)
            case Refusal(text=text):
                words.append(Text(text))
            case Document(text=str() as text):
                about = "\n".join(line for line in (part.name, part.context) if line)
                words.append(Text(f"{about}\n\n{text}" if about else text))
            case Image(media=media) if media.data is not None:
                images.append(media.data)
                if part.detail not in {None, "auto"}:
                    dropped.append(f"{message.at}.content.image_url.detail")
            case Image():
                raise _impossible(message, "an image by URL or id")
            case Opaque(kind=kind):
                raise _impossible(message, f"'{kind}' parts")
            case Document() | Audio() | Video():
                raise _impossible(message, f"{type(part).__name__.lower()} files")
            case ToolCall() | ToolResult() | Reasoning():
                raise _impossible(message, "tool calls and thoughts from a user")
            case _:
                assert_never(part)
    said: Fields = {"content": _words(tuple(words), message, dropped)}
    return said | ({"images": images} if images else {})


def _impossible(message: Message, what: str) -> Fault:
    path = crossings.inside(message.at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)


def _assistant(message: Message, dropped: list[str]) -> Fields:
    fields: Fields = {"role": "assistant", "content": "".join(part.text for part in message.parts if isinstance(part, Text | Refusal))}
    thoughts: list[str] = []
    images: list[str] = []
    calls: list[Fields] = []
    for part in message.parts:
        match part:
            case Reasoning(signature=None, redacted=None):
                thoughts.append(part.text or "\n\n".join(part.summary))
            case Reasoning():
                dropped.append(f"{message.at}.thinking")
            case ToolCall():
                function = {"name": part.name, "arguments": _arguments.sent(part, message.at)}
                calls.append({"id": part.id, "type": "function", "function": function})
            case Image(media=media) if media.data is not None:
                images.append(media.data)
            case Text(cache=cache) if cache is not None:
                dropped.append(f"{message.at}.cache_control")
            case Text() | Refusal():
                pass
            case Opaque(kind=kind):
                dropped.append(f"{message.at}.content.{kind}")
            case _:
                dropped.append(f"{message.at}.content.{type(part).__name__.lower()}")
    fields |= {"thinking": "".join(thoughts)} if any(thoughts) else {}
    fields |= {"images": images} if images else {}
    return fields | ({"tool_calls": calls} if calls else {})


def _result(part: ToolResult, message: Message, names: dict[str, str], dropped: list[str]) -> Fields:
    said = _user(Message("tool", part.content, at=message.at), dropped)
    if part.is_error and not said["content"].lower().startswith("error"):
        said["content"] = f"Error: {said['content']}"
    if part.cache is not None:
        dropped.append(f"{message.at}.cache_control")
    name = part.name or names.get(part.call_id)
    named = {} if name is None else {"tool_name": name}
    return {"role": "tool", **said, **named, "tool_call_id": part.call_id}


def _tools(call: Conversation, dropped: list[str]) -> list[Fields]:
    """Ollama has no choice of tools: "none" is none given, one tool that must be called is that one given."""
    tools = [(tool.name, _tool(tool, at, dropped)) for at, tool in enumerate(call.tools)]
    choice = call.tool_choice
    if choice is None or not tools:
        return [written for _, written in tools]
    if choice.mode == "none":
        return []
    if choice.mode in {"required", "tool"}:
        dropped.append(crossings.name(call, "tool_choice"))
    allowed = (choice.name,) if choice.mode == "tool" else choice.allowed
    return [written for name, written in tools if not allowed or name in allowed]


def _tool(tool: Tool, at: int, dropped: list[str]) -> Fields:
    if tool.kind != "function":
        raise crossings.no_tool(tool, at)
    if tool.cache is not None:
        dropped.append(f"tools[{at}].cache_control")
    if tool.strict:
        dropped.append(f"tools[{at}].strict")
    function: Fields = {"name": tool.name}
    function |= {} if tool.description is None else {"description": tool.description}
    function |= {} if tool.schema is None else {"parameters": tool.schema}
    return {"type": "function", "function": function}
