"""A tool call's arguments, for the shapes whose calls hold an object and not its text.

Law: JSON that is an object goes through as written. Towards a model, anything else is refused, since what the model meant
cannot be guessed; towards a client, it is kept under a name of its own, since what the model said must not be lost.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from llm_gateway.core.types import ToolCall
from llm_gateway.formats._members import invalid

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def sent(call: ToolCall, at: str) -> Raw:
    """at: the client's path of the message. Fault(INVALID) if they are no object."""
    raw = _object(call.arguments)
    if raw is None:
        path = f"{at}.tool_calls"
        raise invalid(f"'{path}': the arguments of '{call.id}' must be a JSON object.", path)
    return raw


def told(call: ToolCall) -> Raw | dict[str, str]:
    if call.kind == "custom":
        return {"input": call.arguments}
    raw = _object(call.arguments)
    return {"invalid_json": call.arguments} if raw is None else raw


def _object(arguments: str) -> Raw | None:
    written = arguments.strip() or "{}"
    try:
        _decode_object(written.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return Raw(written)
