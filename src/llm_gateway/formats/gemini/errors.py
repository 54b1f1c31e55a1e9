"""Errors in Google's shape: {"error": {"code", "message", "status"}}. And prompts that Gemini would not answer.

https://cloud.google.com/apis/design/errors, https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats import _faults
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.gemini import _wire

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Google's words that mean more than their HTTP status, or come without one. A rate limit tells of an exceeded quota in the
# words that elsewhere mean an empty account.
_KINDS = {
    "RESOURCE_EXHAUSTED": Kind.UPSTREAM_RATE_LIMIT,
    "UNAVAILABLE": Kind.OVERLOADED,
    "DEADLINE_EXCEEDED": Kind.TIMEOUT,
    "CANCELLED": Kind.UPSTREAM_ERROR,
    "INTERNAL": Kind.UPSTREAM_ERROR,
    "FAILED_PRECONDITION": Kind.UPSTREAM_AUTH,  # the account's: its country, its billing
}
_TOO_LONG = re.compile(r"token count .{0,40}exceeds the maximum number of tokens", re.IGNORECASE)
# At its beginning: elsewhere it may be quoted from the request.
_UNKNOWN_ACCOUNT = re.compile(r"\A(?:(?:the )?caller does not have permission|api key expired|api_key_invalid)", re.IGNORECASE)
# What the request names and this account may not read, told as if the account itself were refused. Another account's it may be.
_NAMED = re.compile(r"access the File |The File \S{1,200} is not in an ACTIVE|CachedContent|cached content|Cloud Storage|gs://", re.IGNORECASE)
_UNREAD = (
    "A file or a cache that the request names cannot be read by this model's provider: it does not exist there, is not ready yet, or is not"
    " the gateway's to read."
)
_decode = msgspec.json.Decoder().decode
SSE = b"text/event-stream"


def _status(status: int) -> str:
    return _STATUSES.get(status) or ("INVALID_ARGUMENT" if status < 500 else "INTERNAL")


def _object(fault: Fault) -> bytes:
    status = fault.kind.status
    message = f"{fault.param}: {fault.message}" if fault.param and fault.param not in fault.message else fault.message
    return msgspec.json.encode({"error": {"code": status, "message": message, "status": _status(status)}})


def event(fault: Fault) -> bytes:
    """The last event of a stream that failed."""
    return b"data: " + _object(fault) + b"\r\n\r\n"


def write(fault: Fault, *, array: bool = False) -> Outgoing:
    """array: for a client that takes its stream as a JSON array."""
    headers = error_headers(fault)
    body = fault.body
    if array and body is not None and fault.content_type == SSE:
        return Outgoing(b"[" + sse.payload(body) + b"]", status=fault.status or fault.kind.status, headers=headers)
    if body is None or not (fault.content_type == SSE or _ours(body)):
        return Outgoing(_object(fault), status=fault.kind.status, headers=headers)
    if fault.content_type is not None:
        headers = ((b"content-type", fault.content_type), *(pair for pair in headers if pair[0] != b"content-type"))
    return Outgoing(body, status=fault.status or fault.kind.status, headers=headers)


def read(status: int, body: bytes) -> Fault:
    fault = _faults.read(status, body)
    error = _error(body)
    word = error.get("status")
    kind = _KINDS.get(word) if isinstance(word, str) else None
    message = error.get("message")
    if Kind.UPSTREAM_AUTH in {kind, fault.kind} and isinstance(message, str) and _NAMED.search(message):
        return Fault(Kind.UPSTREAM_NO_MODEL, _UNREAD, code="file_unavailable", status=status)
    if isinstance(message, str) and _TOO_LONG.search(message):
        kind = Kind.CONTEXT_LENGTH
    elif isinstance(message, str) and _UNKNOWN_ACCOUNT.search(message):
        kind = Kind.UPSTREAM_AUTH
    if kind is not None and kind is not fault.kind:
        fault.kind, fault.code = kind, kind.code
        if kind.blame != "caller":
            fault.body = fault.content_type = None
    return fault


def blocked(feedback: _wire.Feedback, body: bytes, content_type: bytes, usage: Usage | None) -> Fault:
    """A prompt that Gemini read and would not answer. A client of this shape gets the reply as it is."""
    why = (
        feedback.block_reason_message or f"The model's provider would not answer this prompt: {feedback.block_reason}."
    )
    fault = Fault(Kind.CONTENT_FILTER, why, status=200)
    fault.body, fault.content_type, fault.usage = body, content_type, usage
    return fault


def _error(body: bytes) -> dict[str, Any]:
    """The error object, out of the array that an unframed stream puts around it."""
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(tree, list) and tree:
        tree = tree[0]
    error = tree.get("error") if isinstance(tree, dict) else None
    return error if isinstance(error, dict) else {}


def _ours(body: bytes) -> bool:
    """Whether an upstream's body is of this shape, fit for our client as it is."""
    if isinstance(_error(body).get("status"), str):
        return True
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(tree, dict) and "promptFeedback" in tree
