"""Bedrock's Converse as a Format.

Law: stateless; every method is a pure function of its arguments. The model and whether to stream stand in the path, not in
the body.
"""

from __future__ import annotations

from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.bedrock_converse import errors, replies, request_reader, request_writer
from llm_gateway.formats.bedrock_converse.splice import FrameSplice
from llm_gateway.formats.bedrock_converse.stream_reader import ConverseReader
from llm_gateway.formats.bedrock_converse.stream_writer import ConverseWriter
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary

_OF_THE_PATH = frozenset({"modelId", "model"})
_PROMPT = ":prompt/"  # a model's name that is a prompt kept at Bedrock, which may hold the messages


class BedrockConverse:
    name = "bedrock_converse"
    stream_type = b"application/vnd.amazon.eventstream"
    request_headers: frozenset[bytes] = frozenset()
    reply_headers = frozenset({b"x-amzn-requestid"})

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if model is None:
            model = _members.text(members, "modelId")
        if not model:
            raise invalid("The path must name a model: /model/MODEL/converse.", "modelId")
        if "messages" in members or _PROMPT not in model:
            _members.filled_array(members, "messages")
        limits = _members.object_(members, "inferenceConfig")
        return Peek(members, model, bool(stream), True, _limit(limits))

    def forward(self, peek: Peek, model: str) -> Outgoing:
        members = peek.members
        if not members.keys().isdisjoint(_OF_THE_PATH):  # the path says it, in the upstream's words
            members = {name: raw for name, raw in members.items() if name not in _OF_THE_PATH}
        return Outgoing(_members.join(members), request_writer.path(model, stream=peek.stream))

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write(call, model)

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return request_reader.read_steps(peek)

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        return request_writer.write_steps(call, model)

    def splice(self, peek: Peek) -> Passage:
        return FrameSplice()

    def summarise(self, body: bytes) -> Summary:
        return replies.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, call)

    def stream_reader(self) -> StreamReader:
        return ConverseReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return ConverseWriter(call)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


def _limit(limits: dict[str, Raw]) -> int | None:
    try:
        return _members.count(limits, "maxTokens")
    except Fault as fault:
        path = "inferenceConfig.maxTokens"
        raise invalid(fault.message.replace("maxTokens", path), path) from None
