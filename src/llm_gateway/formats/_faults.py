"""Error bodies of LLM services, in whatever shape they come -> Fault.

Law: what a body says decides the kind, its status only where the body is silent. The services borrow each other's shapes
(OpenAI's object, Anthropic's, FastAPI's `detail`, bare `message`, text, HTML), so one reader serves all. The message is the
service's own, bounded, except where it is about the gateway's credentials: those never reach a client, not even masked.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_gateway.core.errors import Fault, Kind

_LONGEST = 4096
_BODY = 64 << 10  # a longer error body is not worth keeping for the client
_OK = 400  # below it: an error inside a successful reply

_CREDENTIALS = "The upstream did not accept the gateway's credentials. The gateway's operator has to renew them."

_BY_STATUS = {
    401: Kind.UPSTREAM_AUTH,
    402: Kind.UPSTREAM_QUOTA,
    403: Kind.UPSTREAM_AUTH,
    404: Kind.UPSTREAM_NO_MODEL,
    408: Kind.TIMEOUT,
    409: Kind.UPSTREAM_CONFLICT,
    413: Kind.TOO_LARGE,
    415: Kind.MEDIA_TYPE,
    422: Kind.UNPROCESSABLE,
    424: Kind.UPSTREAM_ERROR,
    425: Kind.UPSTREAM_ERROR,
    429: Kind.UPSTREAM_RATE_LIMIT,
    498: Kind.OVERLOADED,  # Groq: flex tier capacity
    503: Kind.OVERLOADED,
    504: Kind.TIMEOUT,
    529: Kind.OVERLOADED,
}

# The `code`, `type` or `status` words of the services, lower case.
_BY_WORD = {
    "context_length_exceeded": Kind.CONTEXT_LENGTH,
    "model_context_window_exceeded": Kind.CONTEXT_LENGTH,
    "string_above_max_length": Kind.CONTEXT_LENGTH,
    "content_filter": Kind.CONTENT_FILTER,
    "content_policy_violation": Kind.CONTENT_FILTER,
    "responsibleaipolicyviolation": Kind.CONTENT_FILTER,
    "external_connector_error": Kind.INVALID,  # the MCP server that the caller named does not answer
    "insufficient_quota": Kind.UPSTREAM_QUOTA,
    "billing_hard_limit_reached": Kind.UPSTREAM_QUOTA,
    "billing_error": Kind.UPSTREAM_QUOTA,
    "insufficient_balance": Kind.UPSTREAM_QUOTA,
    "model_not_found": Kind.UPSTREAM_NO_MODEL,
    "unknown_model": Kind.UPSTREAM_NO_MODEL,
    "deploymentnotfound": Kind.UPSTREAM_NO_MODEL,
    "invalid_api_key": Kind.UPSTREAM_AUTH,
    "authentication_error": Kind.UPSTREAM_AUTH,
    "unsupported_country_region_territory": Kind.UPSTREAM_AUTH,
    "rate_limit_error": Kind.UPSTREAM_RATE_LIMIT,
    "rate_limit_exceeded": Kind.UPSTREAM_RATE_LIMIT,
    "ratelimitreached": Kind.UPSTREAM_RATE_LIMIT,
    "rate_limited": Kind.UPSTREAM_RATE_LIMIT,
    "overloaded_error": Kind.OVERLOADED,
    "overloaded": Kind.OVERLOADED,
    "service_unavailable": Kind.OVERLOADED,
    "engine_overloaded": Kind.OVERLOADED,
    "api_error": Kind.UPSTREAM_ERROR,
    "server_error": Kind.UPSTREAM_ERROR,
    "internal_server_error": Kind.UPSTREAM_ERROR,
    "timeout_error": Kind.TIMEOUT,
    "request_too_large": Kind.TOO_LARGE,
}

# Only read where the words above are silent. Each alternative was seen in a real error. What is about our account stands at a message's
# beginning: elsewhere it may be what the client sent and the service quotes, and our key must not be given up for that.
_BY_TEXT = (
    (
        Kind.CONTEXT_LENGTH,
        re.compile(
            r"maximum context length|prompt is too long|prompt too long|context[ _]length|context window|input is too long"
            r"|exceeds? the (?:model's )?(?:maximum|available) context|too many (?:input )?tokens"
            r"|input length and `max_tokens` exceed",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.UPSTREAM_AUTH,
        re.compile(
            r"\A(?:error: )?(?:(?:incorrect|invalid|missing|no) (?:x-)?(?:api[- ]?key|auth)|api key (?:not|is))", re.IGNORECASE
        ),
    ),
    (
        Kind.UPSTREAM_QUOTA,
        re.compile(
            r"\A(?:error: )?(?:your |you (?:have )?)?(?:credit balance|exceeded your current quota|insufficient (?:credits|balance|funds))",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.CONTENT_FILTER,
        re.compile(
            r"content (?:management|filter|polic|violates usage guidelines)|flagged by|input was flagged"
            r"|safety (?:system|filter)|output blocked by",
            re.IGNORECASE,
        ),
    ),
    (
        Kind.UPSTREAM_NO_MODEL,
        re.compile(
            r"unknown model|model .{0,200}(?:does not exist|not found|is not supported for this api)|no such model",
            re.IGNORECASE,
        ),
    ),
)
_OURS = re.compile(r"\. Team: .*API key ID: .*", re.DOTALL)  # xAI tells whose prompt it was, beside what is wrong with it
_HTML = re.compile(r"<(?:!doctype|html)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.{1,200}?)</title>", re.IGNORECASE | re.DOTALL)
_TEXT_STATUSES = frozenset({200, 400, 403, 404, 413, 422, 429})


def read(status: int, body: bytes) -> Fault:
    """status: the reply's, or 200 for an error found inside a successful one."""
    tree = _tree(body)
    error = _error(tree)
    message = _message(error, tree, body)
    words = _words(error, tree)
    kind = _kind(_status(status, error), words, message)
    if kind is Kind.UPSTREAM_AUTH:
        return Fault(kind, _CREDENTIALS, status=status)
    clean = _OURS.sub(".", message)
    param = error.get("param")
    code = error.get("code") if clean == message else None  # theirs says that we have no permission
    fault = Fault(
        kind,
        clean[:_LONGEST] or f"The upstream answered with status {status} and no explanation.",
        param=param if isinstance(param, str) else None,
        code=code[:200] if isinstance(code, str) and kind.blame == "caller" else None,
        status=status,
    )
    if kind.blame == "caller" and status >= _OK and error and len(body) <= _BODY and clean == message:
        fault.body = body
        fault.content_type = b"application/json"
    return fault


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(tree, list) and tree:
        tree = tree[0]
    return tree if isinstance(tree, dict) else {}


def _error(tree: dict[str, Any]) -> dict[str, Any]:
    error = tree.get("error")
    if isinstance(error, dict):
        return error
    return {**tree, "message": error} if isinstance(error, str) else tree


def _message(error: dict[str, Any], tree: dict[str, Any], body: bytes) -> str:
    raw = error.get("metadata")
    if isinstance(raw, dict) and isinstance(raw.get("raw"), str):  # OpenRouter wraps its upstream's error in its own
        inner = _tree(raw["raw"].encode())
        return _message(_error(inner), inner, raw["raw"].encode())
    for value in (error.get("message"), error.get("msg"), tree.get("detail"), tree.get("message"), error.get("reason")):
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value:
            return _detail(value)
    return "" if tree else _plain(body)


def _detail(items: list[Any]) -> str:
    """FastAPI's list of validation errors, as one sentence each."""
    lines = []
    for item in items[:5]:
        if isinstance(item, dict):
            loc = item.get("loc")
            path = ".".join(str(step) for step in loc if step != "body") if isinstance(loc, list) else ""
            lines.append(f"{path}: {item.get('msg', '')}" if path else str(item.get("msg", "")))
    return "; ".join(lines)


def _plain(body: bytes) -> str:
    text = body[:_LONGEST].decode("utf-8", "replace").strip()
    if _HTML.match(text):
        title = _TITLE.search(text)
        return f"The upstream answered with an HTML page: {title[1].strip() if title else 'untitled'}."
    return text


def _words(error: dict[str, Any], tree: dict[str, Any]) -> list[str]:
    inner = error.get("innererror") or error.get("inner_error")
    found = [error.get("code"), error.get("type"), error.get("status"), tree.get("code")]
    if isinstance(inner, dict):
        found.insert(0, inner.get("code"))
    return [word.lower() for word in found if isinstance(word, str)]


def _status(status: int, error: dict[str, Any]) -> int:
    """An error inside a 200 often carries the status it should have had."""
    if status >= _OK:
        return status
    for name in ("status_code", "code", "status"):
        value = error.get(name)
        if isinstance(value, int) and _OK <= value < 600:
            return value
        if isinstance(value, str) and len(value) == 3 and value.isdigit() and value[0] in "45":
            return int(value)
    return status


def _kind(status: int, words: list[str], message: str) -> Kind:
    named = next((_BY_WORD[word] for word in words if word in _BY_WORD), None)
    if named is not None and not (named is Kind.UPSTREAM_ERROR and status in _BY_STATUS):
        return named
    if status in _TEXT_STATUSES:
        for kind, pattern in _BY_TEXT:
            if pattern.search(message):
                return kind
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if _OK <= status < 500 or "invalid_request_error" in words:
        return Kind.INVALID
    return Kind.UPSTREAM_ERROR
