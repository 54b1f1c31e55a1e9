"""Bedrock's shape in tests: its recorded traffic, and botocore's own service model as the measure of what it says."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import botocore.session
from botocore.eventstream import EventStream
from botocore.exceptions import EventStreamError
from botocore.parsers import create_parser
from botocore.validate import ParamValidator

from llm_gateway.core import eventstream
from llm_gateway.formats.bedrock_converse import BedrockConverse
from replay.recordings import Interaction, Recordings, load

CONVERSE = BedrockConverse()
CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0"


def recorded(*apis: str) -> list[Interaction]:
    try:
        recordings = load()
    except FileNotFoundError:
        recordings = Recordings(())
    return [one for api in apis for one in recordings.select(provider="bedrock", api=api)]


@cache
def operation(name: str) -> Any:
    return botocore.session.Session().get_service_model("bedrock-runtime").operation_model(name)


class _Source:
    """What botocore takes for a streamed body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self):
        yield self._body

    def close(self) -> None:
        pass


def by_boto(body: bytes, name: str = "ConverseStream") -> tuple[list[dict[str, Any]], str | None]:
    """A stream's events as botocore reads them, and the code of the exception that ends it."""
    shape = operation(name).output_shape
    member = next(iter(shape.members))
    parser = create_parser("rest-json")
    events: list[dict[str, Any]] = []
    try:
        events.extend(EventStream(_Source(body), shape.members[member], parser._event_stream_parser, name))
    except EventStreamError as error:
        return events, error.response["Error"]["Code"]
    return events, None


def reply_by_boto(body: bytes, status: int = 200, headers: dict[str, str] | None = None, name: str = "Converse") -> dict[str, Any]:
    told = {"status_code": status, "headers": headers or {}, "body": body}
    parsed: dict[str, Any] = create_parser("rest-json").parse(told, operation(name).output_shape)
    return parsed


def complaints(body: dict[str, Any], name: str = "Converse") -> str:
    """What botocore's validator has against a request body; "" for nothing. Bytes are base64 on the wire, as here."""
    shape = operation(name).input_shape
    report = ParamValidator().validate({"modelId": CLAUDE, **body}, shape)
    return "" if not report.has_errors() else report.generate_report()


def events(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """A stream's frames by name, with their payloads without the padding."""
    told = []
    for raw in eventstream.Frames().feed(body):
        frame = eventstream.decode(raw)
        payload = json.loads(frame.payload)
        payload.pop("p", None)
        told.append((frame.text(":event-type") or frame.text(":exception-type"), payload))
    return told


def frame(name: str, /, **payload: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return eventstream.encode(headers, json.dumps(payload).encode())


def exception(name: str, message: str) -> bytes:
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return eventstream.encode(headers, json.dumps({"message": message}).encode())


def request(**members: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], **members}
    return json.dumps(body).encode()


def read(*, stream: bool = False, model: str = CLAUDE, **members: Any):
    return CONVERSE.read_request(CONVERSE.peek(request(**members), model, stream=stream))
