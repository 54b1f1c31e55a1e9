"""Gemini's request and reply as typed JSON. Parts and tools stay raw until what they hold is known, since many of them
only Gemini can say.

Law: shapes only. https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

NONE = Raw(b"")
Count = Annotated[int, Meta(ge=0)]


class Blob(Struct, rename="camel", gc=False):
    data: str
    mime_type: str | None = None
    display_name: str | None = None


class FileData(Struct, rename="camel", gc=False):
    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class Call(Struct, rename="camel", gc=False):
    name: str = ""
    id: str | None = None
    args: Raw = NONE
    partial_args: list[dict[str, Any]] | None = None
    will_continue: bool | None = None


class Response(Struct, rename="camel", gc=False):
    name: str = ""
    id: str | None = None
    response: Raw = NONE
    parts: list[Raw] | None = None


class Part(Struct, rename="camel", gc=False):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: Call | None = None
    function_response: Response | None = None


class Words(Struct, forbid_unknown_fields=True, gc=False):
    """A part that is text and nothing else."""

    text: str


class Content(Struct, gc=False):
    parts: list[Raw] | None = None
    role: str | None = None


class Function(Struct, rename="camel", gc=False):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Raw = NONE
    parameters_json_schema: Raw = NONE


class CallingConfig(Struct, rename="camel", gc=False):
    mode: str | None = None
    allowed_function_names: list[str] | None = None


class ToolConfig(Struct, rename="camel", gc=False):
    function_calling_config: CallingConfig | None = None


class ThinkingConfig(Struct, rename="camel", gc=False):
    include_thoughts: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=-1)] | None = None
    thinking_level: str | None = None


class Generation(Struct, rename="camel", gc=False):
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: float | None = None
    candidate_count: Annotated[int, Meta(ge=1)] | None = None
    stop_sequences: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    response_logprobs: bool | None = None
    logprobs: Count | None = None
    response_mime_type: str | None = None
    response_schema: Raw = NONE
    response_json_schema: Raw = NONE
    response_modalities: list[str] | None = None
    thinking_config: ThinkingConfig | None = None


class Request(Struct, rename="camel", gc=False):
    contents: Annotated[list[Content], Meta(min_length=1)]
    system_instruction: Content | str | None = None
    tools: list[dict[str, Raw]] | dict[str, Raw] | None = None
    tool_config: ToolConfig | None = None
    generation_config: Generation | None = None


class Candidate(Struct, rename="camel", gc=False):
    content: Content | None = None
    finish_reason: str | int | None = None
    index: int | None = None
    grounding_metadata: dict[str, Any] | None = None
    logprobs_result: dict[str, Any] | None = None


class Feedback(Struct, rename="camel", gc=False):
    block_reason: str | int | None = None
    block_reason_message: str | None = None


class Reply(Struct, rename="camel", gc=False):
    candidates: list[Candidate] | None = None
    usage_metadata: dict[str, Any] | None = None
    prompt_feedback: Feedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    create_time: str | None = None
    error: Any = None
