"""Responses that a provider keeps: fetched, deleted, cancelled, their input listed. Nothing crosses: who stored it answers.

Source: https://platform.openai.com/docs/api-reference/responses/get and what follows it. The request is its path and query, so
`peek` gets the query for a body and the id for a model. Usage in such a reply was billed when the response was made; if that was to be
later (`background`), by estimate.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.openai_responses import errors
from llm_gateway.formats.openai_responses.watch import SealedPassage

_decode = tolerant(msgspec.json.Decoder(dict[str, Any]).decode)
_STREAM = b"stream=true"
_OURS = (b"key=", b"api-version=")  # said to the gateway: the client's key, and in which of its own APIs Azure's client speaks


class StoredResponse:
    """`method`, `tail`: of its path, after the id."""

    stream_type = b"text/event-stream"
    request_headers = frozenset({b"openai-beta"})
    reply_headers = frozenset({b"openai-version", b"openai-processing-ms"})

    def __init__(self, name: str, method: bytes, tail: str = "") -> None:
        self.name = name
        self._method = method
        self._tail = tail

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        said = [pair for pair in body.split(b"&") if not pair.startswith(_OURS)]
        said = [_STREAM if pair.lower() == _STREAM else pair for pair in said]  # as Python writes it, some take it, and stream
        return Peek({}, model or "", _STREAM in said, form=b"&".join(said))

    def forward(self, peek: Peek, model: str) -> Outgoing:
        query = "?" + peek.form.decode("latin-1") if peek.form else ""
        return Outgoing(b"", f"/responses/{quote(peek.model, safe='')}{self._tail}{query}", method=self._method)

    def summarise(self, body: bytes) -> Summary:
        if body or self._method != b"DELETE":
            try:
                _decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is no response.") from None
        return Summary(None)

    def splice(self, peek: Peek) -> Passage:
        return SealedPassage(kept=True)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        fault = errors.read(status, body)
        if fault.kind is not Kind.UPSTREAM_NO_MODEL:
            return fault
        return Fault(fault.kind, "Its provider keeps this response no longer.", param="response_id", code=Kind.NOT_FOUND.code, status=status)

    def read_request(self, peek: Peek) -> Any:
        raise _kept()

    def write_request(self, call: Any, model: str) -> Outgoing:
        raise _kept()

    def read_reply(self, body: bytes) -> Any:
        raise _kept()

    def write_reply(self, reply: Any, call: Any, now: int = 0) -> Outgoing:
        raise _kept()

    def stream_reader(self) -> StreamReader:
        raise _kept()

    def stream_writer(self, call: Any, now: int = 0) -> StreamWriter:
        raise _kept()


def shapes() -> tuple[StoredResponse, ...]:
    return (
        StoredResponse("openai_response", b"GET"),
        StoredResponse("openai_response_delete", b"DELETE"),
        StoredResponse("openai_response_cancel", b"POST", "/cancel"),
        StoredResponse("openai_response_input", b"GET", "/input_items"),
    )


def _kept() -> Fault:
    return Fault(Kind.INVALID, "Only the provider that stored a response can be asked for it.")
