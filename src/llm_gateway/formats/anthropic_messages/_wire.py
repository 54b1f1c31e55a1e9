"""Anthropic's request and reply as typed JSON. Blocks and tools stay raw until their `type` is known, since many of them
only Anthropic can say.

Law: shapes only. https://platform.claude.com/docs/en/api/messages/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

NONE = Raw(b"")
_Unit = Annotated[float, Meta(ge=0, le=1)]


class Cache(Struct, gc=False):
    type: Literal["ephemeral"] = "ephemeral"
    ttl: str | None = None


class Kind(Struct, gc=False):
    type: str = ""


class TextBlock(Struct, gc=False):
    text: str
    type: str = "text"
    cache_control: Cache | None = None
    citations: list[Raw] | None = None


class Source(Struct, gc=False):
    type: Literal["base64", "url", "file", "text", "content"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[Raw] | None = None


class ImageBlock(Struct, gc=False):
    source: Source
    type: str = "image"
    cache_control: Cache | None = None


class CitationsConfig(Struct, gc=False):
    enabled: bool | None = None


class DocumentBlock(Struct, gc=False):
    source: Source
    type: str = "document"
    title: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None
    cache_control: Cache | None = None


class ToolUseBlock(Struct, gc=False):
    id: str
    name: str
    input: Raw
    type: str = "tool_use"
    cache_control: Cache | None = None
    caller: Raw = NONE


class ToolResultBlock(Struct, gc=False):
    tool_use_id: str
    type: str = "tool_result"
    content: str | list[Raw] | None = None
    is_error: bool | None = None
    cache_control: Cache | None = None


class ThinkingBlock(Struct, gc=False):
    thinking: str
    type: str = "thinking"
    signature: str | None = None


class RedactedBlock(Struct, gc=False):
    data: str
    type: str = "redacted_thinking"


class Message(Struct, gc=False):
    role: Literal["user", "assistant", "system"]
    content: str | list[Raw]


class ToolSpec(Struct, gc=False):
    name: Annotated[str, Meta(min_length=1)]
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NONE
    strict: bool | None = None
    cache_control: Cache | None = None


class ToolChoice(Struct, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Struct, gc=False):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: str | None = None


class SchemaFormat(Struct, gc=False):
    type: Literal["json_schema"]
    schema: Raw


class OutputConfig(Struct, gc=False):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaFormat | None = None


class Request(Struct, gc=False):
    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)]
    system: str | list[Raw] | None = None
    tools: list[Raw] | None = None
    tool_choice: ToolChoice | None = None
    temperature: _Unit | None = None
    top_p: _Unit | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: SchemaFormat | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    cache_control: Cache | None = None


class Reply(Struct, gc=False):
    id: str
    content: list[Raw]
    model: str = ""
    type: str = "message"
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: dict[str, Any] | None = None
