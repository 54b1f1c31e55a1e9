"""Errors in Anthropic's shape: {"type": "error", "error": {type, message}, "request_id"}.

https://platform.claude.com/docs/en/api/errors
"""

from __future__ import annotations

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats import _faults
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.contract import Outgoing

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _type(status: int) -> str:
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")


def _object(fault: Fault, request_id: str) -> bytes:
    message = f"{fault.param}: {fault.message}" if fault.param and fault.param not in fault.message else fault.message
    error = {"type": _type(fault.kind.status), "message": message}
    body = (
        {"type": "error", "error": error, "request_id": request_id} if request_id else {"type": "error", "error": error}
    )
    return msgspec.json.encode(body)


def event(fault: Fault) -> bytes:
    """The last event of a stream that failed."""
    return b"event: error\ndata: " + _object(fault, "") + b"\n\n"


def write(fault: Fault, request_id: str) -> Outgoing:
    body = fault.body if fault.body is not None and _ours(fault.body) else None
    status = fault.status if body is not None and fault.status else fault.kind.status
    if fault.kind is Kind.OVERLOADED and body is None:
        status = 529  # what this API's clients know an overload by
    return Outgoing(body or _object(fault, request_id), status=status, headers=error_headers(fault))


def read(status: int, body: bytes) -> Fault:
    return _faults.read(status, body)


def _ours(body: bytes) -> bool:
    """Whether an upstream's error body is of this shape, fit for our client as it is."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(tree, dict) and tree.get("type") == "error" and isinstance(tree.get("error"), dict)
