"""The Responses API as typed JSON: a request's top, its items, their content; the items of a reply are the same ones.

Law: shapes only. Fields are those that are documented or were recorded; what is not here is an extra, and a crossing
reports it. https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

_Positive = Annotated[int, Meta(ge=1)]
_Unit = Annotated[float, Meta(ge=0, le=1)]
_Name = Annotated[str, Meta(min_length=1)]
NONE = Raw(b"")
TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast", "ultrafast"})


class Kind(Struct, gc=False):
    type: str | None = None
    role: str | None = None
    id: str | None = None


class Message(Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Raw]
    type: str | None = None
    id: str | None = None
    status: str | None = None


class TextContent(Struct, gc=False):
    """input_text and output_text."""

    type: str
    text: str
    annotations: Any = None
    logprobs: Any = None
    prompt_cache_breakpoint: Any = None


class RefusalContent(Struct, gc=False):
    type: str
    refusal: str


class ImageContent(Struct, gc=False):
    type: str
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class FileContent(Struct, gc=False):
    type: str
    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


class AudioData(Struct, gc=False):
    data: str
    format: str


class AudioContent(Struct, gc=False):
    """Not OpenAI's own; some of its followers take it."""

    type: str
    input_audio: AudioData


class FunctionCall(Struct, gc=False):
    type: str
    call_id: _Name
    name: str
    arguments: str = ""
    id: str | None = None
    status: str | None = None


class CustomCall(Struct, gc=False):
    type: str
    call_id: _Name
    name: str
    input: str = ""
    id: str | None = None
    status: str | None = None


class CallOutput(Struct, gc=False):
    """function_call_output and custom_tool_call_output."""

    type: str
    call_id: _Name
    output: str | list[Raw]
    id: str | None = None
    status: str | None = None


class Said(Struct, gc=False):
    text: str = ""
    type: str = ""


class Reasoning(Struct, gc=False):
    type: str
    id: str | None = None
    summary: list[Said] | None = None
    content: list[Said] | None = None
    encrypted_content: str | None = None
    status: str | None = None


class FunctionTool(Struct, gc=False):
    type: str
    name: _Name
    description: str | None = None
    parameters: Raw = NONE
    strict: bool | None = None


class CustomTool(Struct, gc=False):
    type: str
    name: _Name
    description: str | None = None
    format: Raw = NONE


class AllowedTool(Struct, gc=False):
    type: str = "function"
    name: str | None = None


class ToolChoice(Struct, gc=False):
    """Of a function, a custom tool, a built-in one (its type says which), or a list of allowed ones."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[AllowedTool] = []


class TextFormat(Struct, gc=False):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: Raw = NONE
    strict: bool | None = None


class TextOptions(Struct, gc=False):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Struct, gc=False):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Request(Struct, gc=False):
    model: str
    input: str | list[Raw] | None = None
    instructions: str | None = None
    tools: list[Raw] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: _Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Unit | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: Raw = NONE
    stream: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: str | None = None
    stream_options: Raw = NONE
    previous_response_id: str | None = None
    conversation: Raw = NONE
    prompt: Raw = NONE
