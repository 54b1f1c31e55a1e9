"""OpenAI's request as typed JSON: one decode checks every field we translate and names the path of the first wrong one.

Law: shapes only. Fields are those that some service of this shape documents or was recorded with; what is not here is an
extra, and a crossing reports it. https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

_Positive = Annotated[int, Meta(ge=1)]
_Unit = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
NONE = Raw(b"")


class CacheControl(Struct, gc=False):
    type: Literal["ephemeral"] = "ephemeral"
    ttl: str | None = None


class TextPart(Struct, tag_field="type", tag="text", gc=False):
    text: str
    cache_control: CacheControl | None = None


class RefusalPart(Struct, tag_field="type", tag="refusal", gc=False):
    refusal: str


class ThinkingPart(Struct, tag_field="type", tag="thinking", gc=False):
    """Mistral's."""

    thinking: str | list[TextPart]


class Url(Struct, gc=False):
    url: str
    detail: str | None = None


class ImagePart(Struct, tag_field="type", tag="image_url", gc=False):
    """Mistral also takes the bare URL."""

    image_url: Url | str
    cache_control: CacheControl | None = None


class VideoPart(Struct, tag_field="type", tag="video_url", gc=False):
    video_url: Url
    cache_control: CacheControl | None = None


class AudioData(Struct, gc=False):
    data: str
    format: str


class AudioPart(Struct, tag_field="type", tag="input_audio", gc=False):
    input_audio: AudioData


class FileData(Struct, gc=False):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Struct, tag_field="type", tag="file", gc=False):
    file: FileData
    cache_control: CacheControl | None = None


class DocumentPart(Struct, tag_field="type", tag="document_url", gc=False):
    """Mistral's."""

    document_url: str
    document_name: str | None = None


Part = (
    TextPart | RefusalPart | ThinkingPart | ImagePart | VideoPart | AudioPart | FilePart | DocumentPart
)  # fmt: skip


class Function(Struct, gc=False):
    name: str
    arguments: str = ""


class Custom(Struct, gc=False):
    name: str
    input: str = ""


class Call(Struct, gc=False):
    id: str = ""
    type: Literal["function", "custom"] = "function"
    function: Function | None = None
    custom: Custom | None = None
    extra_content: dict[str, Any] | None = None


class SpokenAudio(Struct, gc=False):
    id: str


class Message(Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: Function | None = None
    refusal: str | None = None
    audio: SpokenAudio | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    cache_control: CacheControl | None = None


class FunctionSpec(Struct, gc=False):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Raw = NONE
    strict: bool | None = None


class CustomSpec(Struct, gc=False):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    format: Raw = NONE


class ToolSpec(Struct, gc=False):
    type: str = "function"
    function: FunctionSpec | None = None
    custom: CustomSpec | None = None
    cache_control: CacheControl | None = None


class Named(Struct, gc=False):
    name: str


class NamedTool(Struct, gc=False):
    type: str = "function"
    function: Named | None = None
    custom: Named | None = None


class AllowedTools(Struct, gc=False):
    mode: Literal["auto", "required"] = "auto"
    tools: list[NamedTool] = []


class ToolChoice(Struct, gc=False):
    type: Literal["function", "custom", "allowed_tools"] = "function"
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Struct, gc=False):
    name: str | None = None
    description: str | None = None
    schema: Raw = NONE
    strict: bool | None = None


class ResponseFormat(Struct, gc=False):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class ReasoningOptions(Struct, gc=False):
    """OpenRouter's."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class ThinkingOptions(Struct, gc=False):
    """DeepSeek's and Z.ai's."""

    type: str | None = None
    budget_tokens: int | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"]


class Request(Struct, gc=False):
    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[ToolSpec] | None = None
    tool_choice: Literal["auto", "none", "required", "any"] | ToolChoice | None = None
    functions: list[FunctionSpec] | None = None
    function_call: Literal["auto", "none"] | Named | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Unit | None = None
    top_k: int | None = None
    min_p: _Unit | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    enable_thinking: bool | None = None
    modalities: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: Raw = NONE
    service_tier: str | None = None
    verbosity: str | None = None
