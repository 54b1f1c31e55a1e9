"""Errors in AWS's shape: {"message"} with the exception's name in `x-amzn-errortype`, or a frame of its own in a stream.

Law: what an exception's name says decides the kind; where it says little (ValidationException), its words do.
https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.eventstream import Frame
from llm_gateway.formats import _faults
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.contract import Outgoing

# By name, lower case, without namespace and "Exception". None: the words decide.
_KINDS: dict[str, Kind | None] = {
    "throttling": Kind.UPSTREAM_RATE_LIMIT,
    "throttled": Kind.UPSTREAM_RATE_LIMIT,
    "toomanyrequests": Kind.UPSTREAM_RATE_LIMIT,
    "servicequotaexceeded": Kind.UPSTREAM_QUOTA,
    "accessdenied": Kind.UPSTREAM_AUTH,
    "unrecognizedclient": Kind.UPSTREAM_AUTH,
    "expiredtoken": Kind.UPSTREAM_AUTH,
    "invalidsignature": Kind.UPSTREAM_AUTH,
    "signaturedoesnotmatch": Kind.UPSTREAM_AUTH,
    "incompletesignature": Kind.UPSTREAM_AUTH,
    "invalidclienttokenid": Kind.UPSTREAM_AUTH,
    "missingauthenticationtoken": Kind.UPSTREAM_AUTH,
    "optinrequired": Kind.UPSTREAM_AUTH,
    "notauthorized": Kind.UPSTREAM_AUTH,
    "resourcenotfound": Kind.UPSTREAM_NO_MODEL,
    "unknownoperation": Kind.UPSTREAM_NO_MODEL,
    "modelnotready": Kind.OVERLOADED,
    "serviceunavailable": Kind.OVERLOADED,
    "modeltimeout": Kind.TIMEOUT,
    "requesttimeout": Kind.TIMEOUT,
    "internalserver": Kind.UPSTREAM_ERROR,
    "internalfailure": Kind.UPSTREAM_ERROR,
    "modelerror": Kind.UPSTREAM_ERROR,
    "modelstreamerror": Kind.UPSTREAM_ERROR,
    "conflict": Kind.UPSTREAM_CONFLICT,
    "validation": None,
    "badrequest": None,
}
_BY_TEXT = (
    (
        Kind.CONTEXT_LENGTH,
        re.compile(
            r"input is too long|too many (?:input )?tokens|prompt is too long|maximum (?:context|tokens)|context (?:length|window)"
            r"|exceeds? the (?:maximum|limit).{0,40}tokens|input tokens exceeded|expected max ?length",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.UPSTREAM_NO_MODEL,
        re.compile(
            r"model identifier is invalid|on-demand throughput isn.t supported|end of its life|marked .{0,20}legacy"
            r"|could not resolve the foundation model|model .{0,80}not (?:found|supported in this region)",
            re.IGNORECASE,
        ),
    ),
    (Kind.CONTENT_FILTER, re.compile(r"blocked by .{0,40}(?:content filter|guardrail|policy)", re.IGNORECASE)),
)
# What a request names and our account may not use: Bedrock says it as it says that the account may not use Bedrock.
_NAMED = re.compile(r"bedrock:ApplyGuardrail|:guardrail/|s3:GetObject", re.IGNORECASE)
_UNUSABLE = "A guardrail or a file that the request names cannot be used by this model's provider: it is not the gateway's to use."
# What a client gets: name and status, by kind; the rest by blame.
_WRITTEN: dict[Kind, tuple[str, int]] = {
    Kind.UNAUTHENTICATED: ("UnrecognizedClientException", 403),
    Kind.FORBIDDEN: ("AccessDeniedException", 403),
    Kind.PAYMENT: ("ServiceQuotaExceededException", 400),
    Kind.NOT_FOUND: ("ResourceNotFoundException", 404),
    Kind.NO_MODEL: ("ResourceNotFoundException", 404),
    Kind.UPSTREAM_NO_MODEL: ("ResourceNotFoundException", 404),
    Kind.RATE_LIMIT: ("ThrottlingException", 429),
    Kind.UPSTREAM_RATE_LIMIT: ("ThrottlingException", 429),
    Kind.CONFLICT: ("ConflictException", 409),
    Kind.OVERLOADED: ("ServiceUnavailableException", 503),
    Kind.UNAVAILABLE: ("ServiceUnavailableException", 503),
    Kind.UPSTREAM_QUOTA: ("ServiceUnavailableException", 503),
    Kind.TIMEOUT: ("ModelTimeoutException", 408),
    Kind.SLOW_CLIENT: ("RequestTimeoutException", 408),
    Kind.INTERNAL: ("InternalServerException", 500),
}
_CALLER, _OTHER = "ValidationException", ("ModelErrorException", 424)
# A stream has fewer exceptions; a client knows no others there.
_FRAMED = {
    "ThrottlingException": "throttlingException",
    "ServiceUnavailableException": "serviceUnavailableException",
    "InternalServerException": "internalServerException",
}
_decode = msgspec.json.Decoder().decode


def kind_of(name: str, message: str) -> Kind | None:
    """name: as in `x-amzn-errortype`, `__type` or a frame's `:exception-type`. None where neither says."""
    word = name.partition(":")[0].rpartition("#")[2].lower().removesuffix("exception")
    known = _KINDS.get(word)
    if known is not None:
        return known
    found = next((kind for kind, pattern in _BY_TEXT if pattern.search(message)), None)
    return found or (Kind.INVALID if word in _KINDS else None)


def read(status: int, body: bytes, name: str = "") -> Fault:
    """name: of the exception, where a header tells it."""
    fault = _faults.read(status, body)
    tree = _tree(body)
    told = name or _string(tree.get("__type")) or _string(tree.get("code"))
    kind = kind_of(told, _string(tree.get("message")) or _string(tree.get("Message")) or fault.message)
    if Kind.UPSTREAM_AUTH in {kind, fault.kind} and _NAMED.search(_string(tree.get("message")) or _string(tree.get("Message"))):
        return Fault(Kind.UPSTREAM_NO_MODEL, _UNUSABLE, code="resource_unavailable", status=status)
    if kind is not None and kind is not fault.kind:
        fault.kind, fault.code = kind, kind.code
        if kind.blame != "caller":
            fault.body = fault.content_type = None
        if kind is Kind.UPSTREAM_AUTH:
            fault.message = _faults.read(401, b"").message
    return fault


def framed(frame: Frame) -> Fault | None:
    """The fault that a frame tells of; None for one of any other kind."""
    match frame.text(":message-type"):
        case "exception":
            name, words = frame.text(":exception-type"), _tree(frame.payload)
            message = _string(words.get("originalMessage")) or _string(words.get("message"))
        case "error":
            name, message = frame.text(":error-code"), frame.text(":error-message")
        case _:
            return None
    kind = kind_of(name, message) or Kind.UPSTREAM_ERROR
    if kind is Kind.UPSTREAM_AUTH:
        return _faults.read(401, b"")
    return Fault(kind, message[:4096] or f"The upstream ended its stream with '{name}'.")


def event(fault: Fault) -> bytes:
    """The last frame of a stream that failed."""
    name, status = _named(fault)
    body: dict[str, Any] = {"message": _message(fault)}
    told = _FRAMED.get(name) or ("validationException" if fault.kind.blame == "caller" else "modelStreamErrorException")
    if told == "modelStreamErrorException":
        body |= {"originalStatusCode": fault.status or status, "originalMessage": body["message"]}
    headers = {":exception-type": told, ":content-type": "application/json", ":message-type": "exception"}
    return eventstream.encode(headers, msgspec.json.encode(body))


def write(fault: Fault) -> Outgoing:
    name, status = _named(fault)
    body = fault.body if fault.body is not None and _ours(fault.body) else None
    if body is not None and fault.status is not None:
        status = fault.status
    headers = (*error_headers(fault), (b"x-amzn-errortype", name.encode()))
    return Outgoing(body or msgspec.json.encode({"message": _message(fault)}), status=status, headers=headers)


def _named(fault: Fault) -> tuple[str, int]:
    known = _WRITTEN.get(fault.kind)
    if known is not None:
        return known
    return (_CALLER, fault.kind.status) if fault.kind.blame == "caller" else _OTHER


def _message(fault: Fault) -> str:
    return f"{fault.param}: {fault.message}" if fault.param and fault.param not in fault.message else fault.message


def _ours(body: bytes) -> bool:
    """Whether an upstream's error body is of this shape, fit for our client as it is."""
    tree = _tree(body)
    return isinstance(tree.get("message"), str) and "error" not in tree and "type" not in tree


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
