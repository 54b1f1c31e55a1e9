"""Who a provider is and how we knock. Pure: time is an argument, the HTTP request is a returned value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing

Operation = Literal[
    "chat", "count", "embeddings", "images", "speech", "transcription", "moderation", "rerank", "response"
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Account(Struct, frozen=True, kw_only=True):
    """One provider as configured, with one of its keys. `root`: path prefix without trailing slash ("/v1", ""). `authority`:
    what goes into Host, for those who sign it. `token`: the key is what a cloud gave us for who we are, not a key of the service's.
    `mark`: what its seals are known by."""

    provider: str
    type: str
    root: str
    authority: str = ""
    key: str = ""
    key_id: str = ""
    token: bool = False
    api_version: str | None = None
    region: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    deployments: Mapping[str, str] = {}
    mark: bytes = b""


class Wire(Struct):
    """One HTTP request, except for what the connection adds (Host, Content-Length, Connection)."""

    method: bytes
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Provider(Protocol):
    """`static`: address() leaves the body alone and its head depends on nothing but account, model, path and the shape's
    headers, so the head may be kept. `by_value`: the shapes in which it follows no URLs of media, though the shape has them.
    `betas`: Anthropic's that it knows, and by what words; None: whatever there is."""

    static: bool
    by_value: frozenset[str]
    betas: Mapping[str, str] | None

    # Names, the one to cross to first; empty if this provider, or this model there, does not do it.
    def formats(self, operation: Operation, model: str) -> tuple[str, ...]: ...
    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire: ...
    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault: ...
    def probe(self, account: Account) -> Wire | None: ...
