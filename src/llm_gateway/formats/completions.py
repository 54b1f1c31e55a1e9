"""OpenAI's legacy completions: a prompt goes on. Replies and streams are those of chat, with `text` where chat has a message.

Source: https://platform.openai.com/docs/api-reference/completions. Law: towards a chat model a prompt is one user message; towards
a model that only completes, a conversation is refused unless it is instructions and one question, which join to a prompt. What has
no meaning there (`suffix`, `echo`, several prompts, prompts of token numbers) is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import Delta, Event, Finish, PartStart, Start, UsageUpdate
from llm_gateway.core.types import Completion, Conversation, Message, Refusal, Text, Usage
from llm_gateway.formats import _members, _typed, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats._splice import Splice
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.openai_chat import OpenAIChat, _usage, errors, replies
from llm_gateway.formats.openai_chat.stream_reader import ChatReader
from llm_gateway.formats.openai_chat.watch import ChatWatch

SHAPE, PATH = "openai_completions", "/completions"
DEFAULT_MAX_TOKENS = 16  # the API's own
_DONE = b"data: [DONE]\n\n"
_FINISHES = {"tool_calls": "stop", "pause": "stop"}
_PLAIN = ("max_tokens", "temperature", "top_p", "n", "stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "user")
_Count = Annotated[int, Meta(ge=1)]


class _Options(Struct, gc=False):
    include_usage: bool | None = None


class _Request(Struct, gc=False):
    model: Annotated[str, Meta(min_length=1)]
    prompt: str | list[Any] | None = None
    suffix: str | None = None
    echo: bool | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: _Count | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: _Options | None = None


_decode = msgspec.json.Decoder(_Request).decode
_KNOWN = _typed.names(_Request)
_encode = msgspec.json.Encoder().encode


class Completions:
    name = SHAPE
    stream_type = b"text/event-stream"
    request_headers = OpenAIChat.request_headers
    reply_headers = OpenAIChat.reply_headers

    def __init__(self) -> None:
        self._chat = OpenAIChat()

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        named = model or _members.text(members, "model")
        if "prompt" not in members:
            raise _typed.missing("prompt")
        asked = _members.object_(members, "stream_options").get("include_usage")
        wants = asked is not None and bytes(asked) == b"true"
        most = None if bytes(members.get("max_tokens", b"0")) == b"0" else _members.count(members, "max_tokens")
        return Peek(members, named, _members.flag(members, "stream"), wants, most)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        return Outgoing(self._chat.forward(peek, model).body, PATH)

    def read_request(self, peek: Peek) -> Conversation:
        asked = _typed.decode(_decode, _members.join({**peek.members, "model": _members.written(peek.model)}))
        for name in ("suffix", "echo"):
            if getattr(asked, name):
                raise invalid(f"'{name}' is not possible with this model: it does not complete text but answers messages.", name)
        extras = {name: raw for name, raw in peek.members.items() if name not in _KNOWN and bytes(raw) not in {b"null", b"0"}}
        return Conversation(
            model=peek.model,
            messages=(Message("user", (Text(_prompt(asked.prompt)),), at="prompt"),),
            max_tokens=asked.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
            seed=asked.seed,
            n=asked.n,
            logit_bias=asked.logit_bias,
            stream=bool(asked.stream),
            stream_usage=peek.wants_usage,
            user=asked.user,
            format=SHAPE,
            extras=extras,
        )

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        dropped = crossings.unsaid(call, SHAPE)
        body: dict[str, Any] = {"model": model, "prompt": _joined(call)}
        body |= {name: value for name in _PLAIN if (value := getattr(call, name)) not in (None, ())}
        if call.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if call.format == SHAPE:
            body |= call.extras
        return Outgoing(_encode(body), PATH, dropped=tuple(dict.fromkeys(dropped)))

    def splice(self, peek: Peek) -> Passage:
        return Splice(ChatWatch(asked=peek.wants_usage))

    def summarise(self, body: bytes) -> Summary:
        return self._chat.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        body: dict[str, Any] = {
            "id": reply.id, "object": "text_completion", "created": reply.created or now, "model": reply.model,
            "choices": [
                _choice(choice.index, "".join(part.text for part in choice.parts if isinstance(part, Text | Refusal)), choice.finish)
                for choice in reply.choices
            ],
        }  # fmt: skip
        if reply.usage is not None:
            body["usage"] = _usage.write(reply.usage)
        return Outgoing(_encode(body), headers=JSON_HEADERS)

    def stream_reader(self) -> StreamReader:
        return ChatReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return CompletionsWriter(wants_usage=call.stream_usage, now=now)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


class CompletionsWriter:
    """Only what is said goes out: thoughts and calls have no place here."""

    __slots__ = ("_head", "_now", "_said", "_usage", "_wants_usage")

    def __init__(self, *, wants_usage: bool, now: int) -> None:
        self._wants_usage = wants_usage
        self._now = now
        self._head = b""
        self._said: set[tuple[int, int]] = set()
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Start():
                envelope = {"id": event.id, "object": "text_completion", "created": event.created or self._now, "model": event.model}
                self._head = b"data: " + _encode(envelope)[:-1] + b',"choices":['
            case PartStart(kind="text" | "refusal"):
                self._said.add((event.choice, event.index))
            case Delta() if (event.choice, event.index) in self._said:
                return self._chunk(_choice(event.choice, event.text, None))
            case Finish():
                return self._chunk(_choice(event.choice, "", event.finish))
            case UsageUpdate():
                self._usage = event.usage
            case _:
                pass
        return b""

    def tail(self, cost: float | None) -> bytes:
        if not self._wants_usage or self._usage is None:
            return _DONE
        told = _usage.write(self._usage) | ({} if cost is None else {"cost": cost})
        return self._head + b'],"usage":' + _encode(told) + b"}\n\n" + _DONE

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return self._head + _encode(choice) + b"]}\n\n"


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    reason = None if finish is None else _FINISHES.get(finish, finish)
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _prompt(prompt: str | list[Any] | None) -> str:
    texts = [prompt] if isinstance(prompt, str) else prompt or []
    if len(texts) != 1:
        raise invalid("'prompt' must be one text for this model; send one request for each.", "prompt")
    if not isinstance(texts[0], str):
        raise invalid("'prompt' must be text for this model: it has other token numbers.", "prompt")
    if not texts[0]:
        raise invalid("'prompt' must not be empty.", "prompt")
    return texts[0]


def _joined(call: Conversation) -> str:
    """Instructions and one question, as a prompt."""
    texts: list[str] = []
    for message in call.messages:
        if message.role in {"assistant", "tool"}:
            raise invalid("This model only completes a text: it cannot be told what was said before.", message.at)
        for part in message.parts:
            if not isinstance(part, Text):
                raise invalid("This model only completes a text: it takes nothing else.", message.at)
            texts.append(part.text)
    return "\n\n".join(texts)

