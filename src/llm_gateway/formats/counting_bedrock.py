"""How many tokens a conversation is, asked in Bedrock's shape: a Converse request, or the body of an InvokeModel one.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html. Law: of InvokeModel's bodies only
Claude's is a conversation that others can be asked about. Models are counted for by their own ids: the prefix that spreads a
request over regions is no part of them.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._members import invalid
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats._steps import Steps, drained
from llm_gateway.formats.bedrock_converse import BedrockConverse
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.counting import AnthropicCount, Count, counted, unstreamed

_ASKED = ("messages", "system", "toolConfig", "additionalModelRequestFields")
_OF_THE_PATH = frozenset({"model", "modelId", "stream"})
_SPREAD = re.compile(r"^(?:global|us-gov|us|eu|apac|jp|au|ca)\.(?=[a-z0-9]+\.)")
_CLAUDES = "anthropic_version"
_encode = msgspec.json.encode
_decode_text = msgspec.json.Decoder(str).decode


class BedrockCount:
    name = "bedrock_count"
    stream_type = b"application/json"
    request_headers = BedrockConverse.request_headers
    reply_headers = BedrockConverse.reply_headers

    def __init__(self) -> None:
        self._converse = BedrockConverse()
        self._messages = AnthropicCount()

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        named = model or _members.text(members, "modelId")
        given = _members.object_(members, "input")
        if len(given.keys() & {"converse", "invokeModel"}) != 1:
            raise invalid("'input' must hold either 'converse' or 'invokeModel'.", "input")
        if "converse" in given:
            _members.filled_array(_members.object_(given, "converse"), "messages")
        return Peek(members, named)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        members = {name: raw for name, raw in peek.members.items() if name not in _OF_THE_PATH}
        return Outgoing(_members.join(members), _path(model))

    def read_request(self, peek: Peek) -> Conversation:
        return drained(self.read_steps(peek))

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return drained(self.write_steps(call, model))

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        given = _members.object_(peek.members, "input")
        if "converse" in given:
            return self._converse.read_steps(Peek(_members.object_(given, "converse"), peek.model))
        members = {**_invoked(given), "model": _members.written(peek.model)}
        _members.filled_array(members, "messages")
        return self._messages.read_steps(Peek(members, peek.model))

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        sent = yield from self._converse.write_steps(call, model)
        yield
        members: dict[str, Any] = _members.decode(sent.body)
        asked = {name: members[name] for name in _ASKED if name in members}
        return Outgoing(_encode({"input": {"converse": asked}}), _path(model), dropped=sent.dropped)

    def read_reply(self, body: bytes) -> Count:
        return counted(body, "inputTokens", None)

    def write_reply(self, reply: Count, call: Conversation, now: int = 0) -> Outgoing:
        return Outgoing(_encode({"inputTokens": reply.input}), headers=JSON_HEADERS)

    def summarise(self, body: bytes) -> Summary:
        self.read_reply(body)
        return Summary(None)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return self._converse.write_error(fault, request_id)

    def read_error(self, status: int, body: bytes) -> Fault:
        return self._converse.read_error(status, body)

    def splice(self, peek: Peek) -> Passage:
        raise unstreamed()

    def stream_reader(self) -> StreamReader:
        raise unstreamed()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        raise unstreamed()


def _path(model: str) -> str:
    return f"/model/{quote(_SPREAD.sub('', model), safe='')}/count-tokens"


def _invoked(given: dict[str, Raw]) -> dict[str, Raw]:
    """The members of an InvokeModel body, which stands there as base64."""
    path = "input.invokeModel.body"
    try:
        body = base64.b64decode(_decode_text(_members.object_(given, "invokeModel").get("body", Raw(b""))), validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
        raise invalid(f"'{path}' must be base64.", path) from None
    members = _members.decode(body)
    if _CLAUDES not in members:
        raise invalid(f"'{path}': this model can be asked about Claude's bodies only, which have an '{_CLAUDES}'. Use 'input.converse'.", path)
    del members[_CLAUDES]
    return members
