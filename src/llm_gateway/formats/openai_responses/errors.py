"""Errors of this shape: bodies as chat completions have them, an `error` event in a stream, `error` in a failed response.

The event names the error twice, as OpenAI documents it (code, message, param) and as it sends it (in `error`, by which its
own SDK knows that it has to raise). https://platform.openai.com/docs/api-reference/responses-streaming/error
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats import _faults
from llm_gateway.formats.openai_chat import errors as chat

write = chat.write

# Of a failed response's `error.code`: whose mistake it was, where the words that all services share do not say.
_BY_CODE = {
    "invalid_prompt": Kind.CONTENT_FILTER,
    "bio_policy": Kind.CONTENT_FILTER,
    "misalignment_policy_violation": Kind.CONTENT_FILTER,
    "image_content_policy_violation": Kind.CONTENT_FILTER,
    "vector_store_timeout": Kind.TIMEOUT,
}
_IMAGE = (
    "invalid_image",
    "invalid_base64_image",
    "image_",
    "unsupported_image",
    "empty_image",
    "failed_to_download_image",
)


def read(status: int, body: bytes) -> Fault:
    fault = _faults.read(status, body)
    code = _code(body)
    kind = _BY_CODE.get(code) or (Kind.INVALID if code.startswith(_IMAGE) else None)
    if kind is None or fault.kind is not Kind.UPSTREAM_ERROR:
        return fault
    return Fault(kind, fault.message, param=fault.param, code=code, status=status)


class _Error(msgspec.Struct, gc=False):
    code: Any = None


class _Body(msgspec.Struct, gc=False):
    error: Any = None


_decode = msgspec.json.Decoder(_Body).decode


def _code(body: bytes) -> str:
    try:
        error = _decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""


def event(fault: Fault, number: int) -> bytes:
    """The event that says so, and ends the stream: no response.completed follows. number: its place in the stream."""
    error = msgspec.json.decode(chat.event(fault)[6:])["error"]
    told = {
        "type": "error",
        "code": error["code"],
        "message": error["message"],
        "param": error["param"],
        "error": error,
        "sequence_number": number,
    }
    return b"event: error\ndata: " + msgspec.json.encode(told) + b"\n\n"


def failure(fault: Fault) -> dict[str, Any]:
    """`error` of a failed response: OpenAI's clients know a closed list of codes."""
    code = "rate_limit_exceeded" if fault.kind.status == 429 else "server_error"
    return {"code": code, "message": fault.message}
