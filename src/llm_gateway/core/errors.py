"""The one thing that goes wrong: a Fault, with a kind from a closed table.

Law: no API's words here. A provider reads its error bodies into a kind; a format writes a kind in its own shape; routing
decides by kind alone. The table holds what every part needs to agree on: the status a client sees where its API has no
other, and whose mistake it was.
"""

from __future__ import annotations

from enum import Enum

from llm_gateway.core.types import Usage


class Kind(Enum):
    """value: (HTTP status for the client, short code, whose mistake). `caller` faults go to the client at once;
    `upstream` faults may be tried again on the same target; `ours` only on another key or target."""

    INVALID = (400, "invalid_request", "caller")
    CONTEXT_LENGTH = (400, "context_length_exceeded", "caller")
    CONTENT_FILTER = (400, "content_filter", "caller")
    UNAUTHENTICATED = (401, "invalid_api_key", "caller")
    PAYMENT = (402, "insufficient_quota", "caller")
    FORBIDDEN = (403, "permission_denied", "caller")
    NOT_FOUND = (404, "not_found", "caller")
    NO_MODEL = (404, "model_not_found", "caller")
    METHOD = (405, "method_not_allowed", "caller")
    SLOW_CLIENT = (408, "request_timeout", "caller")
    CONFLICT = (409, "conflict", "caller")
    TOO_LARGE = (413, "request_too_large", "caller")
    URI_TOO_LONG = (414, "uri_too_long", "caller")
    MEDIA_TYPE = (415, "unsupported_media_type", "caller")
    EXPECTATION = (417, "expectation_failed", "caller")
    UNPROCESSABLE = (422, "unprocessable", "caller")
    HEADERS_TOO_LARGE = (431, "headers_too_large", "caller")
    RATE_LIMIT = (429, "rate_limit_exceeded", "caller")
    CLIENT_GONE = (499, "client_closed_request", "caller")
    INTERNAL = (500, "internal_error", "ours")

    UPSTREAM_RATE_LIMIT = (429, "upstream_rate_limit", "upstream")
    UPSTREAM_QUOTA = (503, "upstream_quota", "ours")
    UPSTREAM_CONFLICT = (409, "upstream_conflict", "upstream")
    ESCALATED = (502, "escalated", "ours")
    UPSTREAM_AUTH = (502, "upstream_auth", "ours")
    UPSTREAM_NO_MODEL = (404, "model_not_found", "ours")
    UPSTREAM_TLS = (502, "upstream_tls", "ours")
    UPSTREAM_DNS = (502, "upstream_dns", "ours")
    UPSTREAM_CONNECT = (502, "upstream_connect", "upstream")
    UPSTREAM_CUT = (502, "upstream_cut", "upstream")
    UPSTREAM_BROKEN = (502, "bad_upstream_reply", "upstream")
    UPSTREAM_ERROR = (502, "upstream_error", "upstream")
    OVERLOADED = (503, "overloaded", "upstream")
    UNAVAILABLE = (503, "service_unavailable", "ours")
    TIMEOUT = (504, "timeout", "upstream")

    def __init__(self, status: int, code: str, blame: str) -> None:
        self.status = status
        self.code = code
        self.blame = blame


class Fault(Exception):
    """What went wrong, for a client to read and for routing to decide on.

    message: one or two sentences, what to do next; never a secret, a stack, a tenant's name.
    param: the path of the field at fault ("messages[2].content"), for caller's faults.
    code: the machine word, if more exact than the kind's own.
    status: as the upstream gave it, if one did; `body`, `content_type`: its error body, verbatim, for same-shape clients.
    retry_after: seconds, >= 0, already clamped; None when nobody said.
    headers: additional response headers for the client.
    usage: what the upstream used all the same, if it said so.
    """

    __slots__ = (
        "body",
        "code",
        "content_type",
        "headers",
        "kind",
        "message",
        "param",
        "retry_after",
        "status",
        "usage",
        "where",
    )

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code or kind.code
        self.status = status
        self.retry_after = retry_after
        self.body: bytes | None = None
        self.content_type: bytes | None = None
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.where: str | None = None
        self.usage: Usage | None = None

    def __repr__(self) -> str:
        return f"Fault({self.kind.name}, {self.message!r}{f', param={self.param!r}' if self.param else ''})"
