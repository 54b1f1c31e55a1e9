"""Errors in OpenAI's shape: {"error": {message, type, param, code}}.

Types by status follow https://platform.openai.com/docs/guides/error-codes; `code` is the more exact word.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats import _faults
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.contract import Outgoing

_TYPES = {
    Kind.UNAUTHENTICATED: "invalid_request_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.PAYMENT: "insufficient_quota",
    Kind.RATE_LIMIT: "rate_limit_error",
    Kind.UPSTREAM_RATE_LIMIT: "rate_limit_error",
    Kind.CLIENT_GONE: "request_cancelled",
    Kind.UPSTREAM_QUOTA: "service_unavailable_error",
    Kind.OVERLOADED: "service_unavailable_error",
    Kind.UNAVAILABLE: "service_unavailable_error",
    Kind.TIMEOUT: "timeout_error",
}


def _type(kind: Kind) -> str:
    return _TYPES.get(kind) or ("invalid_request_error" if kind.status < 500 else "server_error")


def _object(fault: Fault) -> bytes:
    error: dict[str, Any] = {
        "message": fault.message,
        "type": _type(fault.kind),
        "param": fault.param,
        "code": fault.code,
    }
    return msgspec.json.encode({"error": error})


def event(fault: Fault) -> bytes:
    """The last event of a stream that failed. No [DONE] follows: clients take that for success."""
    return b"data: " + _object(fault) + b"\n\n"


def write(fault: Fault) -> Outgoing:
    body = fault.body if fault.body is not None and _ours(fault.body) else None
    status = fault.status if body is not None and fault.status else fault.kind.status
    return Outgoing(body or _object(fault), status=status, headers=error_headers(fault))


def read(status: int, body: bytes) -> Fault:
    return _faults.read(status, body)


def _ours(body: bytes) -> bool:
    """Whether an upstream's error body is of this shape, fit for our client as it is."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    error = tree.get("error") if isinstance(tree, dict) and tree.get("type") != "error" else None
    return isinstance(error, dict) and not ("type" not in error and isinstance(error.get("status"), str))  # Google's
