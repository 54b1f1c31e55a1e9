"""The typed middle: what a conversation, a reply and their usage are, whatever the API shape.

Law: values only. No I/O, no clock, no provider's name. A format reads its own JSON into these and writes these as its
own JSON; N shapes cost N readers and N writers, not N x M pairs.

Invariants
- Text that a client sent is carried verbatim; tool arguments and schemas stay JSON text (`str`, `Raw`) and are never re-ordered.
- A tool's result is a part of a message with role `tool`; shapes that put it elsewhere move it when reading and writing.
- `Usage.input` counts every prompt token including those read from and written to a cache; `Usage.output` counts every
  generated token including reasoning. Detail fields are subsets of these two, never additions.
- What no field here can say is kept: parts as `Opaque`, fields as `extras`. A writer of the same shape puts them back, a
  writer of another shape reports them as dropped.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

# fmt: off
Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause", "error"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# fmt: on


class CacheMark(Struct, frozen=True, gc=False):
    """A prompt-cache breakpoint after the part that holds it. `ttl` as written by the client ("5m", "1h"), or None."""

    ttl: str | None = None


class Media(Struct, frozen=True, gc=False):
    """Bytes by value, by address or by id: exactly one of `data` (base64 text, no `data:` prefix), `url`, `file_id`."""

    mime: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None


class Citation(Struct, frozen=True, gc=False):
    """Where a stretch of text comes from. `raw` keeps the shape's own object; `format` names that shape."""

    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None
    format: str = ""
    raw: Raw | None = None


class Text(Struct, frozen=True, tag=True, gc=False):
    text: str
    cache: CacheMark | None = None
    citations: tuple[Citation, ...] = ()
    signature: str | None = None


class Refusal(Struct, frozen=True, tag=True, gc=False):
    text: str


class Image(Struct, frozen=True, tag=True, gc=False):
    media: Media
    detail: str | None = None
    cache: CacheMark | None = None


class Audio(Struct, frozen=True, tag=True, gc=False):
    """`id` and `transcript` belong to audio that a model spoke; `format` is OpenAI's short name ("wav", "mp3")."""

    media: Media
    format: str | None = None
    id: str | None = None
    transcript: str | None = None
    expires_at: int | None = None


class Video(Struct, frozen=True, tag=True, gc=False):
    media: Media
    cache: CacheMark | None = None


class Document(Struct, frozen=True, tag=True, gc=False):
    """`text` holds a plain-text document; else `media`. `raw_source` keeps a source only the own shape knows."""

    media: Media | None = None
    text: str | None = None
    name: str | None = None
    context: str | None = None
    citations: bool | None = None
    cache: CacheMark | None = None


class ToolCall(Struct, frozen=True, tag=True, gc=False):
    """`arguments` is JSON text as generated (may be empty or broken); for a custom tool it is the free-form input."""

    id: str
    name: str
    arguments: str
    kind: Literal["function", "custom"] = "function"
    signature: str | None = None
    cache: CacheMark | None = None


class ToolResult(Struct, frozen=True, tag=True, gc=False):
    call_id: str
    content: tuple[Part, ...]
    name: str | None = None
    is_error: bool = False
    cache: CacheMark | None = None


class Reasoning(Struct, frozen=True, tag=True, gc=False):
    """Thinking as shown (`text`), as summarised, or sealed (`redacted`). `format` names the shape that sealed it:
    a signature is only worth something to the API that made it."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    summary: tuple[str, ...] = ()
    id: str | None = None
    format: str = ""


class Opaque(Struct, frozen=True, tag=True, gc=False):
    """A part only its own shape can say (server tool use, search results, code execution): JSON object text in `raw`."""

    format: str
    kind: str
    raw: Raw


Part = Text | Refusal | Image | Audio | Video | Document | ToolCall | ToolResult | Reasoning | Opaque


class Message(Struct, frozen=True, gc=False):
    """`at`: where the client wrote it ("messages[2]"), so that a writer's complaint names the client's own field."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    at: str = ""


class Tool(Struct, frozen=True, gc=False):
    """A function the model may call. `schema` is JSON Schema text. `kind` other than function/custom: the shape's own
    built-in tool, whole in `raw`, with `format` naming the shape."""

    name: str
    description: str | None = None
    schema: Raw | None = None
    strict: bool | None = None
    cache: CacheMark | None = None
    kind: str = "function"
    format: str = ""
    raw: Raw | None = None


class ToolChoice(Struct, frozen=True, gc=False):
    """`tool`: exactly the one named; `allowed`: restricts auto/required to these names."""

    mode: Literal["auto", "none", "required", "tool"] = "auto"
    name: str | None = None
    allowed: tuple[str, ...] = ()


class OutputFormat(Struct, frozen=True, gc=False):
    kind: Literal["text", "json", "schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema: Raw | None = None
    strict: bool | None = None


class Thinking(Struct, frozen=True, gc=False):
    """How much to reason: a level, or a budget in tokens, or on/off; `visible` asks for the thoughts or their summary."""

    enabled: bool | None = None
    effort: Effort | None = None
    budget: int | None = None
    adaptive: bool = False
    visible: bool | None = None
    summary: str | None = None


class Conversation(Struct, frozen=True, kw_only=True, gc=False):
    """One chat request. `extras`: top-level fields that have no name here, as the client wrote them, by `format`.
    `functions`: tools were asked for in OpenAI's first words, and calls are to be told in them."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    output: OutputFormat | None = None
    thinking: Thinking | None = None
    modalities: tuple[str, ...] = ()
    stream: bool = False
    stream_usage: bool = False
    user: str | None = None
    metadata: Raw | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    cache: CacheMark | None = None
    functions: bool = False
    format: str = ""
    extras: dict[str, Raw] = {}


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one reply. `estimated`: counted by us from what went by, since the provider never said.

    `cost`: what the provider itself says it charged, in USD, if it does. `tier`: the service tier it says it served by, where
    that is not the ordinary one: `flex`, `priority`, `fast`, `batch`. `cache_audio`: a part of `cache_read` and of `audio_input`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    accepted_prediction: int = 0
    rejected_prediction: int = 0
    searches: int = 0
    cost: float | None = None
    estimated: bool = False
    image_output: int = 0
    tier: str | None = None
    cache_audio: int = 0


class Logprob(Struct, frozen=True, gc=False):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top: tuple[Logprob, ...] = ()


class Choice(Struct, frozen=True, gc=False):
    """One answer. `native_finish` is the provider's own word where it says more than `finish`."""

    parts: tuple[Part, ...]
    finish: FinishReason
    index: int = 0
    stop_sequence: str | None = None
    native_finish: str | None = None
    logprobs: tuple[Logprob, ...] | None = None


class Completion(Struct, frozen=True, kw_only=True, gc=False):
    """One whole chat reply. `created` is Unix seconds, 0 where the shape has none."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None = None
    created: int = 0
    service_tier: str | None = None
    fingerprint: str | None = None
    format: str = ""
    extras: dict[str, Raw] = {}

    @property
    def finish(self) -> str | None:
        """Why the first answer ended."""
        return self.choices[0].finish if self.choices else None
