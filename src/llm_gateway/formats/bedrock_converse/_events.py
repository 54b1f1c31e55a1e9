"""ConverseStream's events as frames.

Law: shapes and framing only. An event's name stands in the frame's headers, its payload is a JSON object.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import eventstream
from llm_gateway.formats.bedrock_converse import errors

NONE = Raw(b"")
_NAMES = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")
# The headers of a frame in the order in which AWS writes them, as bytes: they are the same for all of one name.
HEADERS = {
    name: eventstream.encode_headers(
        {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    )
    for name in _NAMES
}
_NAMED = {block: name for name, block in HEADERS.items()}
_encode = msgspec.json.Encoder().encode


class Thought(Struct, rename="camel", gc=False):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Input(Struct, gc=False):
    input: str | None = None


class Delta(Struct, rename="camel", gc=False):
    text: str | None = None
    tool_use: Input | None = None
    reasoning_content: Thought | None = None
    citation: Raw = NONE


class Opened(Struct, rename="camel", gc=False):
    tool_use_id: str = ""
    name: str = ""
    type: str | None = None


class Start(Struct, rename="camel", gc=False):
    tool_use: Opened | None = None


class Event(Struct, rename="camel", gc=False):
    content_block_index: int = 0
    delta: Raw = NONE
    start: Raw = NONE
    stop_reason: str | None = None
    additional_model_response_fields: Any = None
    usage: dict[str, Any] | None = None
    service_tier: Any = None


decode = msgspec.json.Decoder(Event).decode
decode_delta = msgspec.json.Decoder(Delta).decode
decode_start = msgspec.json.Decoder(Start).decode


def read(raw: bytes) -> tuple[str, bytes]:
    """An event's name, "" where it has none, and its payload. Raises Fault for a frame that is damaged or tells of an error."""
    block, payload = eventstream.split(raw)
    name = _NAMED.get(block)
    if name is not None:  # the same bytes as ever: nothing to take apart
        return name, payload
    frame = eventstream.Frame(eventstream.headers(block), payload)
    fault = errors.framed(frame)
    if fault is not None:
        raise fault
    return frame.text(":event-type"), payload


def write(name: str, body: object) -> bytes:
    return eventstream.framed(HEADERS[name], _encode(body))
