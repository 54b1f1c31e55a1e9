"""Who may do what: by the head alone (`identify`), then by the body's top level (`read`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from llm_gateway.admission.auth import Keys
from llm_gateway.admission.seals import Opened, Seals
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Pin, Principal
from llm_gateway.core.sigv4 import body_hash
from llm_gateway.formats.contract import Format, Peek
from llm_gateway.formats.openai_responses import sealing

LONGEST_MODEL = 512  # letters of a name, which plans, rows and log lines keep; those of Bedrock and Vertex with all their places have 200


class Journal(Protocol):
    """`full`: usage can not be recorded now, so nothing new may be used."""

    full: bool


class Admission:
    def __init__(self, keys: Keys, formats: Mapping[str, Format], journal: Journal, seals: Seals) -> None:
        self.seals = seals
        self._marks = seals.marks
        self._marked = seals.marks.opening
        self._keys = keys
        self._formats = formats
        self._journal = journal

    def identify(self, x: Exchange) -> None:
        """Finds the principal. Raises Fault UNAUTHENTICATED, FORBIDDEN, or OVERLOADED when usage could not be recorded."""
        if not x.route.open:
            principal = x.principal = self._keys.principal(x.headers, x.query, x.peer, x.wall)
            if "inference" not in principal.scopes and x.route.operation not in _LOOKED_AT:
                raise Fault(Kind.FORBIDDEN, "This API key may not use models: it lacks the scope `inference`.", code="insufficient_scope")
            if principal.signs and not x.route.body:
                self._verify(x)
        if self._journal.full and x.route.body:
            raise Fault(
                Kind.OVERLOADED,
                "Usage cannot be recorded at the moment; try again.",
                code="journal_full",
                retry_after=5.0,
            )

    def ask(self, x: Exchange) -> None:
        """Reads a request that has no body: its path names what an earlier reply handed out. Raises Fault NOT_FOUND."""
        # A HEAD request's reply is a head: were it a stream, its events would be taken for the next reply.
        peek = self._formats[x.route.format].peek(b"" if x.method == b"HEAD" else x.query, x.params[0])
        opened = self._open(x, peek.model, "response_id")
        x.peek, x.stream, x.model = replace(peek, model=opened.id), peek.stream, opened.provider

    async def hash(self, x: Exchange) -> None:
        """A large body that was signed, in a thread: hashing needs no lock, and takes 5 ms for ten megabytes."""
        if x.principal is not None and x.principal.signs:
            x.body_hash = await asyncio.get_running_loop().run_in_executor(None, body_hash, x.body)

    def read(self, x: Exchange) -> None:
        """Reads the body's top level and checks that this key may use the model. Raises Fault UNAUTHENTICATED, INVALID, NO_MODEL, NOT_FOUND."""
        principal = x.principal
        if principal is not None and principal.signs:
            self._verify(x)
        if x.route.asked:
            self.ask(x)
            return
        model = x.params[0] if x.params else None
        peek = x.peek = self._formats[x.route.format].peek(x.body, model, stream=x.route.stream)
        x.stream = peek.stream
        if len(peek.model) > LONGEST_MODEL:
            raise Fault(Kind.INVALID, f"The model's name may have at most {LONGEST_MODEL} letters.", param="model")
        x.model = peek.model
        if x.route.sealed:
            self._unseal(x, peek)
        if x.body.find(self._marked) >= 0:  # `in` takes a detour by way of an exception
            self._prefer(x)
        if principal is not None and principal.models and peek.model not in principal.models:
            raise Fault(
                Kind.NO_MODEL,
                f"The model {peek.model[:100]!r} does not exist or is not available to you.",
                param="model",
            )

    def named(self, key: str, at: bytes, wall: float) -> Principal | None:
        """Whose key is called so, or stands there in the key table. Raises Fault UNAUTHENTICATED, FORBIDDEN where it does not work (any more)."""
        return self._keys.placed(at, wall) if at else self._keys.named(key)

    def forget(self) -> None:
        """Who may do what has changed."""
        self._keys.forget()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _verify(self, x: Exchange) -> None:
        """Before anything of it is read. Anybody may name the key that a signature is said to be of: one that does not hold is a stranger's."""
        try:
            self._keys.verify(x)
        except Fault:
            x.principal = None
            raise

    def _unseal(self, x: Exchange, peek: Peek) -> None:
        """Puts the provider's own ids in the place of ours and binds the request to who made them."""
        x.later = bytes(peek.members.get("background", b"")) == b"true"
        found: dict[str, str] = {}
        for sealed, member in sealing.handed_ids(peek).items():
            kind = member if member != "input" else _SEALED.get(sealed.partition("_")[0])
            if kind is not None:  # the ids of items go to and fro as they are; not every provider's others begin with what they are
                found[sealed] = self._open(x, sealed, kind).id
        if found:
            x.peek = sealing.with_ids(peek, found)

    def _prefer(self, x: Exchange) -> None:
        """Thoughts that an account sealed: it goes first, unless an id binds the request already; the last one where several did."""
        if mark := self._marks.last(x.body):
            x.marked = x.peek
            x.pin = x.pin or Pin(mark=mark)

    def _open(self, x: Exchange, sealed: str, param: str) -> Opened:
        opened = self.seals.open(tenant(x), sealed)
        if opened is None:
            raise Fault(Kind.NOT_FOUND, f"There is no {param.removesuffix('_id')} {sealed[:100]!r} here.", param=param)
        x.pin = Pin(opened.provider, opened.key_id, param)
        return opened


def tenant(x: Exchange) -> str:
    return x.principal.tenant if x.principal is not None else ""


_LOOKED_AT = frozenset({"models", "model", "running"})  # by keys of any scope
_SEALED = {"resp": "previous_response_id", "conv": "conversation"}
