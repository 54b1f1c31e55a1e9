"""Converse's request and reply as typed JSON. Blocks and tools stay raw until the one member that names them is known,
since many of them only Converse can say.

Law: shapes only. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

NONE = Raw(b"")
Block = dict[str, Raw]
_Unit = Annotated[float, Meta(ge=0, le=1)]
_Some = Annotated[str, Meta(min_length=1)]


class Location(Struct, rename="camel", gc=False):
    uri: _Some
    bucket_owner: str | None = None


class Source(Struct, rename="camel", gc=False):
    data: str | None = field(name="bytes", default=None)
    s3_location: Location | None = None
    text: str | None = None
    content: list[Raw] | None = None


class Media(Struct, rename="camel", gc=False):
    """An image, a sound or a film."""

    format: _Some
    source: Source


class CitationsConfig(Struct, gc=False):
    enabled: bool | None = None


class Document(Struct, rename="camel", gc=False):
    source: Source
    name: str | None = None
    format: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None


class ToolUse(Struct, rename="camel", gc=False):
    """Models have called nothing by name; a client may not."""

    tool_use_id: str
    name: str
    input: Raw
    type: str | None = None


class ToolResult(Struct, rename="camel", gc=False):
    tool_use_id: _Some
    content: list[Block]
    status: Literal["success", "error"] | None = None
    type: str | None = None


class ReasoningText(Struct, gc=False):
    text: str
    signature: str | None = None


class Reasoning(Struct, rename="camel", gc=False):
    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Cited(Struct, gc=False):
    text: str = ""


class Citations(Struct, gc=False):
    content: list[Cited] | None = None
    citations: list[Raw] | None = None


class CachePoint(Struct, gc=False):
    type: str = "default"
    ttl: str | None = None


class Message(Struct, gc=False):
    role: Literal["user", "assistant", "system"]
    content: list[Block]


class Schema(Struct, gc=False):
    json: Raw


class ToolSpec(Struct, rename="camel", gc=False):
    name: _Some
    input_schema: Schema
    description: str | None = None
    strict: bool | None = None


class Named(Struct, gc=False):
    name: _Some


class ToolChoice(Struct, gc=False):
    auto: dict[str, Raw] | None = None
    any: dict[str, Raw] | None = None
    tool: Named | None = None


class ToolConfig(Struct, rename="camel", gc=False):
    tools: list[Block] | None = None
    tool_choice: ToolChoice | None = None


class Inference(Struct, rename="camel", gc=False):
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: _Unit | None = None
    top_p: _Unit | None = None
    stop_sequences: list[str] | None = None


class JsonSchema(Struct, gc=False):
    schema: str
    name: str | None = None
    description: str | None = None


class Structure(Struct, rename="camel", gc=False):
    json_schema: JsonSchema


class TextFormat(Struct, gc=False):
    type: Literal["json_schema"]
    structure: Structure


class OutputConfig(Struct, rename="camel", gc=False):
    text_format: TextFormat | None = None
    effort: str | None = None


class ServiceTier(Struct, gc=False):
    type: str


class Request(Struct, rename="camel", gc=False):
    messages: list[Message] | None = None
    system: list[Block] | None = None
    inference_config: Inference | None = None
    tool_config: ToolConfig | None = None
    guardrail_config: dict[str, Raw] | None = None
    additional_model_request_fields: dict[str, Raw] | None = None
    output_config: OutputConfig | None = None
    service_tier: ServiceTier | None = None


class Said(Struct, gc=False):
    content: list[Block] | None = None


class Output(Struct, gc=False):
    message: Said | None = None


class Reply(Struct, rename="camel", gc=False):
    output: Output
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    additional_model_response_fields: Any = None
    service_tier: dict[str, Any] | None = None
