"""What happens to each field of a chat request on its way into another shape: one table, which the writers obey.

Law: nothing is lost in silence. A field is KEPT, ADJUSTED (kept in its meaning, changed in its wording or value; reported
where a value changed), DROPPED (reported in `Outgoing.dropped` by the name its client knows), or REFUSED (400: without it
the reply would be another one than was asked for). Fields that no type names are dropped and reported.

Where the chat shapes meet, beyond the table:
- system and developer messages: Anthropic has one `system`; later ones move there and are reported, their place being lost.
  Of the services of OpenAI's chat shape, only its own models are told that a developer speaks: the system does to others.
- tool results: OpenAI has messages of role `tool`, text only; images in them follow in a user message, `is_error` becomes
  a leading "Error: ". Anthropic has blocks first in a user message.
- consecutive messages of one role become one for Anthropic; empty text and empty messages are left out, and white space that
  a model said.
- ends: an answer that its model could not finish (`error`, `abort`, `insufficient_system_resource`, Gemini's malformed calls)
  is an error for Anthropic's clients, whose stop reasons have no word for it.
- reasoning: signed or sealed thoughts go back only to who sealed them, to the very account where only that can read them
  (`marks.py`). OpenAI's shape carries Anthropic's to the client in
  `reasoning_details`, and back; towards an OpenAI upstream they are dropped. Unsigned ones go as `reasoning_content`;
  Anthropic refuses those, and so do Groq, Mistral and Cerebras, so they are dropped.
- cache marks: kept for Anthropic, dropped for OpenAI, which caches by itself.
- documents: PDF and text both ways by value; by URL only to Anthropic; by id never, ids belong to an account. Refused else.
- media by URL, for who takes bytes only (`by_value.py`): fetched before the request is written, unless the configuration forbids it.
- audio and video in, and parts only one shape knows: refused in what the user says, dropped from what a model said.
- tools: functions both ways; custom and built-in tools of a shape are refused elsewhere.
- Gemini: system text is one `systemInstruction`; a function's answer finds its call by name where there is no id; images,
  sounds, films and files go both ways by value, to Gemini also by URL; schemas go as JSON Schema and come from Gemini's own
  words translated. Seals of thought ride on calls (`extra_content.google` in OpenAI's shape) and come back; Anthropic's shape
  has no place for them, so calls of Gemini 3 go back with Google's word for "not sealed by us". A `cachedContent` is refused
  elsewhere: it holds the prompt's beginning.
- Bedrock Converse: Claude's seals of thought hold there and in Anthropic's own API alike, so they cross both ways. Files go by
  value or from S3; a document's name keeps the characters that Bedrock takes. Cache marks go to the models that have a cache.
  Tools that a conversation calls without declaring them are declared by name, since Bedrock refuses it else; "no tools now"
  is said by leaving them out where none was called. A guardrail is refused elsewhere: what it guards would go unguarded.
- OpenAI responses: what is stored at a service (`previous_response_id`, `conversation`, `prompt`, item references) and what
  answers later (`background`) is refused elsewhere; nothing is stored for a crossing, and `store` in the reply says so.
  What a model said in a row, of items, is one message. A reasoning item's `encrypted_content` goes to OpenAI chat clients in
  `reasoning_details` and back; there it is also the place of other APIs' seals, of thoughts and of Gemini's calls. Thoughts
  that OpenAI did not seal are dropped towards it. Functions are `strict` only if the client says so; a schema for the answer
  is, but for OpenAI's clients, who say it themselves. Custom tools come from OpenAI chat; towards it they are refused.
- Ollama: images by value only, and without a type, which is told by how they begin. It has no choice of tools: "none" leaves
  them out, one that must be called is the only one left, "required" is dropped. Levels of thinking go to gpt-oss, other models
  get on or off. Calls without ids get some; a tool's answer finds its call by name or order. A generate takes instructions and
  one question; its `suffix`, `raw`, `template` and `context` are refused elsewhere. Options without a name here are dropped.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Conversation, Reasoning, Tool
from llm_gateway.formats._members import invalid


class Fate(Enum):
    KEEP = "kept"
    ADJUST = "adjusted"
    DROP = "dropped"
    REFUSE = "refused"


class Row(Struct, frozen=True):
    """field: of Conversation. idle: values that ask for nothing beyond the default. note: what ADJUST or REFUSE comes to."""

    field: str
    note: str = ""
    idle: tuple[object, ...] = ()


TABLE = (
    Row("tools", "functions; other kinds are refused"),
    Row("tool_choice", "a list of allowed tools shortens `tools`; Bedrock: `none` leaves them out"),
    Row("parallel_tools", "Anthropic: tool_choice.disable_parallel_tool_use", (True,)),
    Row("max_tokens", "OpenAI's own models: max_completion_tokens; responses: at least 16; Anthropic needs one: 4096"),
    Row("temperature", "Anthropic, Bedrock: at most 1; absent while Claude thinks, for Claude from 4.7 on, and for OpenAI's models that think"),
    Row("top_p", "Anthropic: absent beside a temperature, below 0.95 while thinking, and for Claude from 4.7 on; as temperature for OpenAI"),
    Row("top_k", "Bedrock: for the families of models that have it; Anthropic: absent while Claude thinks, and from 4.7 on"),
    Row("min_p"),
    Row("frequency_penalty", "absent for OpenAI's models that think", (0,)),
    Row("presence_penalty", "absent for OpenAI's models that think", (0,)),
    Row("stop", "OpenAI: the first four, none for its models that think; Anthropic: none of white space only; Gemini: the first five"),
    Row("seed"),
    Row("n", idle=(1,)),
    Row("logprobs", "absent for OpenAI's models that think", (False,)),
    Row("top_logprobs", "absent for OpenAI's models that think", (0,)),
    Row("logit_bias", "absent for OpenAI's models that think", ({},)),
    Row("output", "a schema both ways; Anthropic has no JSON without one: dropped"),
    Row("thinking", "effort, budget and level become each other; absent for models of OpenAI and Anthropic that do not think"),
    Row("modalities", idle=(("text",),)),
    Row("user", "OpenAI: up to 64 characters"),
    Row("metadata"),
    Row("service_tier", "auto, and OpenAI's and Bedrock's default = Anthropic's standard_only", ("auto", "default")),
    Row("verbosity"),
    Row("cache"),
)

_WHY = {
    "tools": "it only completes text",
    "n": "several answers cannot be had from one request there",
    "modalities": "it answers in text",
}
# Per shape, what it does not simply keep.
_KEEP, _ADJUST, _DROP, _REFUSE = Fate.KEEP, Fate.ADJUST, Fate.DROP, Fate.REFUSE
COLUMNS: dict[str, dict[str, Fate]] = {
    "openai_chat": {
        "tools": _ADJUST, "max_tokens": _ADJUST, "top_k": _DROP, "min_p": _DROP, "stop": _ADJUST, "output": _ADJUST,
        "thinking": _ADJUST, "user": _ADJUST, "service_tier": _ADJUST, "cache": _DROP, "temperature": _ADJUST, "top_p": _ADJUST,
        "frequency_penalty": _ADJUST, "presence_penalty": _ADJUST, "logprobs": _ADJUST, "top_logprobs": _ADJUST, "logit_bias": _ADJUST,
    },
    "openai_completions": {
        "tools": _REFUSE, "tool_choice": _DROP, "parallel_tools": _DROP, "top_k": _DROP, "min_p": _DROP, "logprobs": _DROP,
        "top_logprobs": _DROP, "output": _DROP, "thinking": _DROP, "modalities": _REFUSE, "metadata": _DROP,
        "service_tier": _DROP, "verbosity": _DROP, "cache": _DROP,
    },
    "anthropic_messages": {
        "tools": _ADJUST, "tool_choice": _ADJUST, "parallel_tools": _ADJUST, "max_tokens": _ADJUST, "temperature": _ADJUST,
        "top_p": _ADJUST, "top_k": _ADJUST, "min_p": _DROP, "frequency_penalty": _DROP, "presence_penalty": _DROP,
        "stop": _ADJUST, "seed": _DROP, "n": _REFUSE, "logprobs": _DROP, "top_logprobs": _DROP, "logit_bias": _DROP,
        "output": _ADJUST, "thinking": _ADJUST, "modalities": _REFUSE, "metadata": _DROP, "service_tier": _ADJUST,
        "verbosity": _DROP,
    },
    "gemini": {
        "tools": _ADJUST, "tool_choice": _ADJUST, "parallel_tools": _DROP, "min_p": _DROP, "stop": _ADJUST,
        "logit_bias": _DROP, "output": _ADJUST, "thinking": _ADJUST, "user": _DROP, "metadata": _DROP,
        "service_tier": _DROP, "verbosity": _DROP, "cache": _DROP,
    },
    "bedrock_converse": {
        "tools": _ADJUST, "tool_choice": _ADJUST, "parallel_tools": _DROP, "temperature": _ADJUST, "top_p": _ADJUST,
        "top_k": _ADJUST, "min_p": _DROP, "frequency_penalty": _DROP, "presence_penalty": _DROP, "stop": _ADJUST,
        "seed": _DROP, "n": _REFUSE, "logprobs": _DROP, "top_logprobs": _DROP, "logit_bias": _DROP, "output": _ADJUST,
        "thinking": _ADJUST, "modalities": _REFUSE, "user": _DROP, "metadata": _DROP, "service_tier": _ADJUST,
        "verbosity": _DROP, "cache": _ADJUST,
    },
    "openai_responses": {
        "tools": _ADJUST, "max_tokens": _ADJUST, "top_k": _DROP, "min_p": _DROP, "frequency_penalty": _DROP,
        "presence_penalty": _DROP, "stop": _DROP, "seed": _DROP, "n": _REFUSE, "logit_bias": _DROP, "output": _ADJUST,
        "thinking": _ADJUST, "modalities": _REFUSE, "user": _ADJUST, "service_tier": _ADJUST, "cache": _DROP, "temperature": _ADJUST,
        "top_p": _ADJUST, "logprobs": _ADJUST, "top_logprobs": _ADJUST,
    },
    "ollama_chat": {
        "tools": _ADJUST, "tool_choice": _ADJUST, "parallel_tools": _DROP, "n": _REFUSE, "logit_bias": _DROP, "output": _ADJUST,
        "thinking": _ADJUST, "modalities": _REFUSE, "user": _DROP, "metadata": _DROP, "service_tier": _DROP,
        "verbosity": _DROP, "cache": _DROP,
    },
    "ollama_generate": {
        "tools": _REFUSE, "tool_choice": _DROP, "parallel_tools": _DROP, "n": _REFUSE, "logit_bias": _DROP, "output": _ADJUST,
        "thinking": _ADJUST, "modalities": _REFUSE, "user": _DROP, "metadata": _DROP, "service_tier": _DROP,
        "verbosity": _DROP, "cache": _DROP,
    },
}  # fmt: skip

# What clients call a field, where that is not our name.
_OLLAMA_NAMES = {
    "max_tokens": "options.num_predict",
    "temperature": "options.temperature",
    "top_p": "options.top_p",
    "top_k": "options.top_k",
    "min_p": "options.min_p",
    "frequency_penalty": "options.frequency_penalty",
    "presence_penalty": "options.presence_penalty",
    "stop": "options.stop",
    "seed": "options.seed",
    "output": "format",
    "thinking": "think",
}
_NAMES = {
    "openai_chat": {
        "parallel_tools": "parallel_tool_calls",
        "output": "response_format",
        "thinking": "reasoning_effort",
    },
    "anthropic_messages": {
        "parallel_tools": "tool_choice.disable_parallel_tool_use",
        "output": "output_config.format",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
        "cache": "cache_control",
    },
    "gemini": {
        "tool_choice": "toolConfig",
        "max_tokens": "generationConfig.maxOutputTokens",
        "top_p": "generationConfig.topP",
        "top_k": "generationConfig.topK",
        "frequency_penalty": "generationConfig.frequencyPenalty",
        "presence_penalty": "generationConfig.presencePenalty",
        "temperature": "generationConfig.temperature",
        "stop": "generationConfig.stopSequences",
        "seed": "generationConfig.seed",
        "n": "generationConfig.candidateCount",
        "logprobs": "generationConfig.responseLogprobs",
        "top_logprobs": "generationConfig.logprobs",
        "output": "generationConfig.responseMimeType",
        "thinking": "generationConfig.thinkingConfig",
        "modalities": "generationConfig.responseModalities",
    },
    "bedrock_converse": {
        "tools": "toolConfig.tools",
        "tool_choice": "toolConfig.toolChoice",
        "max_tokens": "inferenceConfig.maxTokens",
        "temperature": "inferenceConfig.temperature",
        "top_p": "inferenceConfig.topP",
        "top_k": "additionalModelRequestFields.top_k",
        "stop": "inferenceConfig.stopSequences",
        "output": "outputConfig.textFormat",
        "thinking": "additionalModelRequestFields.thinking",
        "service_tier": "serviceTier",
    },
    "openai_responses": {
        "parallel_tools": "parallel_tool_calls",
        "max_tokens": "max_output_tokens",
        "logprobs": "include",
        "output": "text.format",
        "thinking": "reasoning",
        "verbosity": "text.verbosity",
    },
    "ollama_chat": _OLLAMA_NAMES,
    "ollama_generate": _OLLAMA_NAMES,
}


def name(call: Conversation, field: str) -> str:
    if field == "tools" and call.functions:
        return "functions"
    return _NAMES.get(call.format, {}).get(field, field)


def inside(at: str) -> str:
    """The path of what the message at `at` says, as its client writes it."""
    if at.startswith(("contents[", "systemInstruction")):
        return f"{at}.parts"
    return f"{at}.content" if at.startswith("messages[") else at


def unthinking(call: Any) -> tuple[Any, tuple[str, ...]]:
    """A conversation without what models thought in it, and where that stood. Other calls as they are."""
    if not isinstance(call, Conversation):
        return call, ()
    lost = tuple(f"{message.at}.thinking" for message in call.messages if any(isinstance(part, Reasoning) for part in message.parts))
    if not lost:
        return call, ()
    said = [replace(each, parts=tuple(part for part in each.parts if not isinstance(part, Reasoning))) for each in call.messages]
    kept = tuple(each for each, before in zip(said, call.messages, strict=True) if each.parts or not before.parts)
    return replace(call, messages=kept), lost


def no_tool(tool: Tool, at: int) -> Fault:
    """The refusal of a tool that only its own shape has; `at`: its number among the tools."""
    path = {"gemini": "tools", "bedrock_converse": f"toolConfig.tools[{at}]"}.get(tool.format, f"tools[{at}].type")
    return invalid(f"'{path}': this model takes functions only, not '{tool.kind}' tools.", path)


def unsampled(call: Conversation) -> list[str]:
    """The client's names of what it says of sampling, beyond the defaults, to a model that takes nothing of it."""
    return [name(call, field) for field in ("temperature", "top_p", "top_k") if getattr(call, field) not in {None, 1}]


def fate(row: Row, shape: str) -> Fate:
    return COLUMNS[shape].get(row.field, Fate.KEEP)


def unsaid(call: Conversation, shape: str) -> list[str]:
    """The client's names of what `shape` cannot say of `call`. Fault(INVALID) where that would change the answer."""
    dropped: list[str] = []
    for row in TABLE:
        what = fate(row, shape)
        if what is Fate.KEEP or what is Fate.ADJUST:
            continue
        value: Any = getattr(call, row.field)
        if value is None or value == () or value in row.idle:
            continue
        own = name(call, row.field)
        if what is Fate.REFUSE:
            raise invalid(f"'{own}' is not possible with this model: {_WHY[row.field]}.", own)
        dropped.append(own)
    if call.format != shape:
        dropped += call.extras
    return dropped
