"""Input items -> messages.

Law: what a model said in a row is one message of the assistant: its thoughts, words and calls, in their order. An item that
only this shape has is Opaque: beside the model's words where it is the model's own, a message of the user where it tells the
model something, which other shapes then refuse. Ids and states of items are bookkeeping, and are not kept.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw, structs

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Message, Opaque, Part, Text, ToolCall, ToolResult
from llm_gateway.formats import _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps
from llm_gateway.formats.openai_responses import _content, _seals, _thoughts, _wire
from llm_gateway.formats.openai_responses._content import Extras

SHAPE = _thoughts.SHAPE
_kind = msgspec.json.Decoder(_wire.Kind).decode
_message = msgspec.json.Decoder(_wire.Message).decode
_output = msgspec.json.Decoder(_wire.CallOutput).decode
_reasoning = msgspec.json.Decoder(_wire.Reasoning).decode
_MESSAGE, _OUTPUT = _typed.names(_wire.Message), _typed.names(_wire.CallOutput)
_THOUGHT = _typed.names(_wire.Reasoning)
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})
# Beside every `..._call`: what stands in the input because a model, or the service around it, put it in its output.
_OWN = frozenset({"mcp_list_tools", "mcp_approval_request", "program"})


def read(items: list[Raw], extras: Extras) -> Steps[list[Message]]:
    messages: list[Message] = []
    said: list[Part] = []
    start = ""
    for number, raw in enumerate(items):
        if number % STRIDE == STRIDE - 1:
            yield
        path = f"input[{number}]"
        turn = _turn(raw, path, said, extras)
        if turn is None:
            start = start or path
            continue
        if said:
            messages.append(Message("assistant", tuple(said), at=start))
        said, start = [], ""
        messages.append(turn)
    if said:
        messages.append(Message("assistant", tuple(said), at=start))
    return messages


def _turn(raw: Raw, path: str, said: list[Part], extras: Extras) -> Message | None:
    """The item as a message; None where it goes on with what a model said, which then is in `said`."""
    about = _typed.decode(_kind, raw, path)
    kind = about.type or ("message" if about.role is not None else "item_reference" if about.id else "")
    match kind:
        case "":
            raise _typed.missing(f"{path}.type")
        case "message":
            return _read_message(raw, path, said, extras)
        case "item_reference":
            raise _stored(path)
        case "reasoning":
            _think(raw, path, said, extras)
            return None
        case _ if kind in _RESULTS:
            return _result(raw, path, extras)
        case _ if kind in _CALLS:
            said.append(_CALLS[kind](raw, path, extras))
            return None
        case _:
            part = Opaque(SHAPE, kind, raw.copy())
            if kind.endswith("_call") or kind in _OWN:
                said.append(part)
                return None
            return Message("user", (part,), at=path)


def _stored(path: str) -> Fault:
    return invalid(
        f"'{path}': the model that answers cannot see items stored by another service. Send the item itself, and the whole "
        "conversation with it, in 'input'.",
        path,
    )


def _read_message(raw: Raw, path: str, said: list[Part], extras: Extras) -> Message | None:
    message = _typed.decode(_message, raw, path)
    _content.unread(raw, _MESSAGE, path, extras)
    own = message.role == "assistant"
    parts = _content.read(message.content, f"{path}.content", extras, said=own)
    if own:
        said += parts
        return None
    return Message(message.role, parts, at=path)


def _think(raw: Raw, path: str, said: list[Part], extras: Extras) -> None:
    item = _typed.decode(_reasoning, raw, path)
    _content.unread(raw, _THOUGHT, path, extras)
    seal = _seals.read(item.encrypted_content)
    if seal is not None and seal.use == "part" and said:
        last = said[-1]
        if isinstance(last, ToolCall | Text):
            said[-1] = structs.replace(last, signature=seal.value)
    said += _thoughts.read(item)


def _result(raw: Raw, path: str, extras: Extras) -> Message:
    item = _typed.decode(_output, raw, path)
    _content.unread(raw, _OUTPUT, path, extras)
    return Message("tool", (ToolResult(item.call_id, _content.read(item.output, f"{path}.output", extras)),), at=path)


def _call(item: _wire.FunctionCall, _path: str) -> Part:
    return ToolCall(item.call_id, item.name, item.arguments)


def _custom(item: _wire.CustomCall, _path: str) -> Part:
    return ToolCall(item.call_id, item.name, item.input, "custom")


_CALLS: dict[str, Callable[[Raw, str, Extras], Part]] = {
    "function_call": _content.reader(_wire.FunctionCall, _call),
    "custom_tool_call": _content.reader(_wire.CustomCall, _custom),
}
