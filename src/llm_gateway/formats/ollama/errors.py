"""Errors in Ollama's shape: {"error": "what happened"}, also as the last line of a stream that failed.

https://docs.ollama.com/api/errors
"""

from __future__ import annotations

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.formats import _faults
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.contract import Outgoing

_decode = msgspec.json.Decoder().decode


def _object(fault: Fault) -> bytes:
    message = f"{fault.param}: {fault.message}" if fault.param and fault.param not in fault.message else fault.message
    return msgspec.json.encode({"error": message})


def line(fault: Fault) -> bytes:
    return _object(fault) + b"\n"


def write(fault: Fault) -> Outgoing:
    headers = error_headers(fault)
    if fault.body is not None and _ours(fault.body):
        return Outgoing(fault.body, status=fault.status or fault.kind.status, headers=headers)
    return Outgoing(_object(fault), status=fault.kind.status, headers=headers)


def read(status: int, body: bytes) -> Fault:
    return _faults.read(status, body)


def _ours(body: bytes) -> bool:
    """Whether an upstream's error body is of this shape, fit for our client as it is."""
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(tree, dict) and isinstance(tree.get("error"), str)
