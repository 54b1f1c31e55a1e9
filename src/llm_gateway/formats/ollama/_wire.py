"""Ollama's requests and replies as typed JSON; chat and generate share most of their members.

Law: shapes only. Requests as strict as Ollama's own decoding, replies loose: its versions, and its cloud, differ.
https://docs.ollama.com/api/chat, https://docs.ollama.com/api/generate
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

NONE = Raw(b"")
_Name = Annotated[str, Meta(min_length=1)]


class Function(Struct, gc=False):
    name: _Name
    arguments: Raw = NONE


class Call(Struct, gc=False):
    function: Function
    id: str | None = None


class Message(Struct, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ToolFunction(Struct, gc=False):
    name: _Name
    description: str | None = None
    parameters: Raw = NONE


class ToolSpec(Struct, gc=False):
    function: ToolFunction
    type: str | None = None


class Options(Struct, gc=False):
    """Those of the options that have a name in a Conversation."""

    num_predict: int | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Request(Struct, gc=False):
    """Of both: `messages` and `tools` belong to chat, what follows `options` to generate."""

    messages: list[Message] | None = None
    tools: list[ToolSpec] | None = None
    stream: bool | None = None
    format: Raw = NONE
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    options: Options | None = None
    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = None
    suffix: str | None = None
    template: str | None = None
    raw: bool | None = None
    context: list[int] | None = None


class SaidFunction(Struct, gc=False):
    name: str | None = None
    arguments: Raw = NONE


class SaidCall(Struct, gc=False):
    id: str | None = None
    function: SaidFunction | None = None


class Said(Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[SaidCall] | None = None


class Reply(Struct, gc=False):
    """A whole reply, or a line of a stream. Chat says in `message` what generate says in `response` and its neighbours."""

    model: str | None = None
    created_at: str | None = None
    message: Said | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[SaidCall] | None = None
    image: str | None = None
    logprobs: list[Any] | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None

    def said(self) -> Said | None:
        """What it says, wherever it says it; None where it is neither kind of reply."""
        if self.message is not None:
            return self.message
        if self.response is None and self.image is None:
            return None
        return Said(self.response, self.thinking, [self.image] if self.image else None, self.tool_calls)
