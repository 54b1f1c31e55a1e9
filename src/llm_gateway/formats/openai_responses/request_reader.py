"""A responses request -> Conversation.

Law: the first wrong value is a Fault naming its path; what a Conversation cannot say becomes an extra, named by its path.
What lives on another service (a stored response, a conversation, a prompt, an item) or outlives the connection cannot be
read at all: the Fault says what to send instead.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Conversation,
    Effort,
    Message,
    OutputFormat,
    Text,
    Thinking,
    Tool,
    ToolChoice,
)
from llm_gateway.formats import _members, _steps, _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import Steps, drained
from llm_gateway.formats.contract import Peek
from llm_gateway.formats.openai_responses import _content, _input, _wire

SHAPE = _input.SHAPE
LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"
_decode = msgspec.json.Decoder(_wire.Request).decode
_kind = msgspec.json.Decoder(_wire.Kind).decode
_function = msgspec.json.Decoder(_wire.FunctionTool).decode
_custom = msgspec.json.Decoder(_wire.CustomTool).decode
_KNOWN = _typed.names(_wire.Request)
_FUNCTION, _CUSTOM = _typed.names(_wire.FunctionTool), _typed.names(_wire.CustomTool)
_ALWAYS = frozenset({LOGPROBS, SEALED})  # a crossing heeds the first, and does the second unasked
_NOTHING = frozenset({b"", b"null"})
_NO_ITEMS = Raw(b"[]")


def read(peek: Peek) -> Conversation:
    return drained(_read(peek, _typed.decode(_decode, _members.join(peek.members))))


def read_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("input"))
    members = {**peek.members, "input": _NO_ITEMS} if given else peek.members
    request = _typed.decode(_decode, _members.join(members))
    if given:
        request.input = given
    return (yield from _read(peek, request))


def _read(peek: Peek, request: _wire.Request) -> Steps[Conversation]:
    _refuse_stored(request)
    extras = _extras(request, peek.members)
    text = request.text or _wire.TextOptions()
    return Conversation(
        model=request.model,
        messages=(yield from _messages(request, extras)),
        tools=tuple(_tool(raw, f"tools[{at}]", extras) for at, raw in enumerate(request.tools or ())),
        tool_choice=_choice(request.tool_choice),
        parallel_tools=request.parallel_tool_calls,
        max_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        logprobs=True if request.top_logprobs or LOGPROBS in (request.include or ()) else None,
        top_logprobs=request.top_logprobs or None,
        output=_output(text.format),
        thinking=_thinking(request.reasoning),
        stream=bool(request.stream),
        stream_usage=True,
        user=request.safety_identifier or request.user,
        metadata=_given(request.metadata),
        service_tier=request.service_tier,
        verbosity=text.verbosity,
        format=SHAPE,
        extras=extras,
    )


def _given(raw: Raw) -> Raw | None:
    return None if bytes(raw) in _NOTHING else raw.copy()


def _refuse_stored(request: _wire.Request) -> None:
    if request.previous_response_id is not None:
        raise _elsewhere("previous_response_id", "the earlier response is stored at another service")
    if _given(request.conversation) is not None:
        raise _elsewhere("conversation", "the conversation is stored at another service")
    if _given(request.prompt) is not None:
        raise _elsewhere("prompt", "the prompt template is stored at another service")
    if request.background:
        raise invalid("'background': this model answers while the client waits. Leave 'background' out.", "background")
    if request.input is None:
        raise _typed.missing("input")


def _elsewhere(field: str, why: str) -> Fault:
    return invalid(
        f"'{field}': {why} than the one that answers. Send the whole conversation as 'input' instead.", field
    )


def _extras(request: _wire.Request, members: dict[str, Raw]) -> dict[str, Raw]:
    extras = {name: raw for name, raw in members.items() if name not in _KNOWN and bytes(raw) not in _NOTHING}
    if request.store:
        extras["store"] = members["store"]
    if not _ALWAYS.issuperset(request.include or ()):
        extras["include"] = members["include"]
    if request.truncation not in {None, "disabled"}:
        extras["truncation"] = members["truncation"]
    return extras


def _messages(request: _wire.Request, extras: dict[str, Raw]) -> Steps[tuple[Message, ...]]:
    messages: list[Message] = []
    if request.instructions:
        messages.append(Message("system", (Text(request.instructions),), at="instructions"))
    if isinstance(request.input, str):
        messages.append(Message("user", _content.read(request.input, "input", extras), at="input"))
    else:
        messages += yield from _input.read(request.input or [], extras)
    return tuple(messages)


def _tool(raw: Raw, path: str, extras: dict[str, Raw]) -> Tool:
    kind = _typed.decode(_kind, raw, path).type
    match kind:
        case None | "":
            raise _typed.missing(f"{path}.type")
        case "function":
            tool = _typed.decode(_function, raw, path)
            _content.unread(raw, _FUNCTION, path, extras)
            return Tool(tool.name, tool.description, _given(tool.parameters), tool.strict)
        case "custom":
            custom = _typed.decode(_custom, raw, path)
            _content.unread(raw, _CUSTOM, path, extras)
            return Tool(custom.name, custom.description, kind=kind, format=SHAPE, raw=_given(custom.format))
        case _:
            return Tool(kind, kind=kind, format=SHAPE, raw=raw.copy())


def _choice(choice: str | _wire.ToolChoice | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "none":
            return ToolChoice("none")
        case "required":
            return ToolChoice("required")
        case str():
            return ToolChoice("auto")
        case _wire.ToolChoice(type="allowed_tools", mode=mode, tools=tools):
            return ToolChoice(mode, allowed=tuple(tool.name or tool.type for tool in tools))
        case _wire.ToolChoice(type="function" | "custom", name=name):
            if not name:
                raise _typed.missing("tool_choice.name")
            return ToolChoice("tool", name)
        case _:
            return ToolChoice("tool", choice.type)


def _output(wanted: _wire.TextFormat | None) -> OutputFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat("json")
    schema = _given(wanted.schema)
    if schema is None:
        raise _typed.missing("text.format.schema")
    return OutputFormat("schema", wanted.name, wanted.description, schema, wanted.strict)


def _thinking(options: _wire.ReasoningOptions | None) -> Thinking | None:
    if options is None:
        return None
    effort: Effort | None = options.effort
    summary = options.summary or options.generate_summary
    if effort is None and summary is None:
        return None
    enabled = effort != "none" if effort is not None else None
    return Thinking(enabled, effort, visible=True if summary else None, summary=summary)
