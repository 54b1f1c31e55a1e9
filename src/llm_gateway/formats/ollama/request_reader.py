"""A request to Ollama's chat or generate -> Conversation.

Law: the first wrong value is a Fault naming its path; what a Conversation cannot say becomes an extra, named by its path. A
tool's answer finds the call that it answers: by id, by name, or as the first that waits. A generate is instructions and one
question; what makes it more than that (`suffix`, `raw`, `template`, `context`) stays in its message as parts that only
Ollama understands, and is refused elsewhere.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Conversation,
    Effort,
    Image,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from llm_gateway.formats import _members, _steps, _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Peek
from llm_gateway.formats.ollama import _media, _wire
from llm_gateway.formats.ollama.replies import CHAT, GENERATE

Extras = dict[str, Raw]
_decode = msgspec.json.Decoder(_wire.Request).decode
_decode_message = msgspec.json.Decoder(_wire.Message).decode
_OWN = ("suffix", "template", "raw", "context")  # of generate, and of nobody else
_SHARED = frozenset({"model", "stream", "format", "think", "logprobs", "top_logprobs", "options"})
_CHAT = _SHARED | {"messages", "tools"}
_GENERATE = _SHARED | {"prompt", "system", "images", *_OWN}
_MESSAGE = _typed.names(_wire.Message)
_OPTIONS = _typed.names(_wire.Options)
_EFFORTS: dict[str, Effort] = {effort: effort for effort in get_args(Effort)}
_EMPTY = frozenset({b"", b"null", b'""', b"[]", b"{}", b"false"})


def read_chat(peek: Peek) -> Conversation:
    request = _typed.decode(_decode, _members.join(peek.members))
    return drained(_read_chat(peek, request, _typed.tree(peek.members["messages"]) if request.messages else []))


def read_chat_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("messages"))
    request = yield from _steps.decoded(_decode, _decode_message, peek.members, "messages", given)
    trees = yield from _steps.trees(given)
    return (yield from _read_chat(peek, request, trees))


def _read_chat(peek: Peek, request: _wire.Request, trees: list[Any]) -> Steps[Conversation]:
    if not request.messages:
        raise invalid("'messages' must not be empty: only Ollama loads a model that is asked nothing.", "messages")
    extras = _extras(peek.members, _CHAT)
    extras |= yield from _steps.unread(trees, _MESSAGE, "messages")
    return Conversation(
        messages=(yield from _messages(request.messages)),
        tools=tuple(_tool(one, at) for at, one in enumerate(request.tools or ())),
        format=CHAT,
        extras=extras,
        **_asked(request, peek, extras),
    )


def read_generate(peek: Peek) -> Conversation:
    request = _typed.decode(_decode, _members.join(peek.members))
    parts: list[Part] = [Image(_media.given(data, f"images[{at}]")) for at, data in enumerate(request.images or ())]
    if request.prompt:
        parts.append(Text(request.prompt))
    if not parts:
        raise invalid("'prompt' must not be empty: only Ollama loads a model that is asked nothing.", "prompt")
    own = {name: peek.members[name] for name in _OWN if bytes(peek.members.get(name, _wire.NONE)) not in _EMPTY}
    parts += [Opaque(GENERATE, name, _members.written({name: raw})) for name, raw in own.items()]
    system = (Message("system", (Text(request.system),), at="system"),) if request.system else ()
    extras = _extras(peek.members, _GENERATE)
    return Conversation(
        messages=(*system, Message("user", tuple(parts), at="prompt")),
        format=GENERATE,
        extras=extras,
        **_asked(request, peek, extras),
    )


def _extras(members: dict[str, Raw], known: frozenset[str]) -> Extras:
    """Options without a name of ours, as `options.num_ctx`; empty ones ask for nothing."""
    extras = {name: raw for name, raw in members.items() if name not in known and bytes(raw) not in _EMPTY}
    for name, raw in _members.object_(members, "options").items():
        if name not in _OPTIONS and bytes(raw) != b"null":
            extras[f"options.{name}"] = raw.copy()
    return extras


def _asked(request: _wire.Request, peek: Peek, extras: Extras) -> dict[str, Any]:
    """The members that both shapes have. A limit of -1 or -2 means something to Ollama only."""
    options = request.options or _wire.Options()
    limit, stop = options.num_predict, options.stop
    if limit is not None and limit < 1:
        extras["options.num_predict"] = _members.written(limit)
        limit = None
    return {
        "model": peek.model,
        "max_tokens": limit,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "min_p": options.min_p,
        "frequency_penalty": options.frequency_penalty,
        "presence_penalty": options.presence_penalty,
        "stop": (stop,) if isinstance(stop, str) else tuple(stop or ()),
        "seed": options.seed,
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs if request.logprobs else None,
        "output": _output(request.format),
        "thinking": _thinking(request.think),
        "stream": peek.stream,
        "stream_usage": True,
    }


def _messages(messages: list[_wire.Message]) -> Steps[tuple[Message, ...]]:
    waiting: list[ToolCall] = []
    read: list[Message] = []
    for at, message in enumerate(messages):
        if at % STRIDE == STRIDE - 1:
            yield
        path = f"messages[{at}]"
        parts = _content(message, path)
        if message.role == "tool":
            call, name = _answered(message, waiting, path)
            read.append(Message("tool", (ToolResult(call, tuple(parts), name=name),), at=path))
            continue
        calls = [_call(call, f"call_{at}_{place}", f"{path}.tool_calls[{place}]") for place, call in enumerate(message.tool_calls or ())]
        waiting += calls
        read.append(Message(message.role, (*parts, *calls), at=path))
    return tuple(read)


def _content(message: _wire.Message, path: str) -> list[Part]:
    parts: list[Part] = [Reasoning(message.thinking)] if message.thinking else []
    parts += [Image(_media.given(data, f"{path}.images[{at}]")) for at, data in enumerate(message.images or ())]
    if message.content:
        parts.append(Text(message.content))
    return parts


def _call(call: _wire.Call, name: str, path: str) -> ToolCall:
    """name: the id for a call that has none."""
    written = bytes(call.function.arguments)
    if written in {b"", b"null"}:
        written = b"{}"
    if not written.startswith(b"{"):
        raise invalid(f"'{path}.function.arguments' must be an object.", f"{path}.function.arguments")
    return ToolCall(call.id or name, call.function.name, written.decode())


def _answered(message: _wire.Message, waiting: list[ToolCall], path: str) -> tuple[str, str | None]:
    """The id and the name of the call that a tool message answers, which then waits no more. An id that no call has is left
    for the upstream to judge."""
    named, name = message.tool_call_id, message.tool_name or None
    fitting = (at for at, call in enumerate(waiting) if (call.id == named if named else name in {None, call.name}))
    at = next(fitting, None)
    if at is not None:
        call = waiting.pop(at)
        return call.id, name or call.name
    if not named:
        raise invalid(f"'{path}': no earlier message calls a tool that this could answer.", path)
    return named, name


def _tool(one: _wire.ToolSpec, at: int) -> Tool:
    if one.type not in {None, "", "function"}:
        raise invalid(f"'tools[{at}].type' must be 'function'.", f"tools[{at}].type")
    schema = None if bytes(one.function.parameters) in {b"", b"null"} else one.function.parameters.copy()
    return Tool(one.function.name, one.function.description, schema)


def _output(wanted: Raw) -> OutputFormat | None:
    written = bytes(wanted)
    if written in {b"", b"null", b'""'}:
        return None
    if written == b'"json"':
        return OutputFormat("json")
    if not written.startswith(b"{"):
        raise invalid("'format' must be \"json\" or a JSON schema.", "format")
    return OutputFormat("schema", schema=wanted.copy())


def _thinking(think: bool | str | None) -> Thinking | None:
    if think is None or think == "":
        return None
    if isinstance(think, bool):
        return Thinking(enabled=think)
    if think not in _EFFORTS:
        raise invalid("'think' must be true, false, \"low\", \"medium\" or \"high\".", "think")
    return Thinking(enabled=think != "none", effort=_EFFORTS[think])
