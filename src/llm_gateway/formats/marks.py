"""Whose account can read a sealed thought: a mark of ours at the seal's beginning, put there on its way to the client and taken
off on its way back.

    GWSEALED + 4 letters that say which gateway + 8 that say which account, then the provider's own seal

Law: bytes in, bytes out; every other byte stays as it came. Letters only, and twenty of them: where a seal is base64, which
clients decode and encode again, a whole number of its groups. Capitals, since text with few of them is searched in half the time.
What bears no mark of this gateway's is none of its business: seals from before there were marks, and those of a gateway behind this
one.

Rejected: reading and writing the JSON again (a seal is found by its key as surely, and its neighbours keep their bytes);
remembering digests of seals (per worker, and gone with it).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Usage
from llm_gateway.formats._members import invalid
from llm_gateway.formats.contract import Passage

_LABEL = b"marks of accounts, version 1"
_OPENING = b"GWSEALED"
_LETTERS = 8
_CAPITALS = bytes.maketrans(b"0123456789abcdef", b"ABCDEFGHIJKLMNOP")
# Google's own word for a call that another model, or nobody, sealed: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_UNSEALED = "skip_thought_signature_validator"
_SIGNATURES = frozenset({"thoughtSignature", "thought_signature"})
_CALLS = frozenset({"functionCall", "function_call"})
_GONE: Any = object()
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode


class Marks:
    """One gateway's marks. `opening`: what all of them begin with; a request without it bears none."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.opening = _OPENING + self._letters(b"")[:4]
        # At the beginning of a JSON string, also where another shape's client keeps the seal within a word of ours.
        found = rb'(?<!\\)("(?:llm-gateway-seal-1:\w+:\w+:)?)(%b[A-P]{%d})' % (self.opening, _LETTERS)
        self._found = re.compile(found)
        self._read = re.compile(r"(?:llm-gateway-seal-1:\w+:\w+:)?" + self.opening.decode())

    def of(self, provider: str, key_id: str) -> bytes:
        return self.opening + self._letters(f"{provider}\0{key_id}".encode())[:_LETTERS]

    def last(self, body: bytes) -> bytes:
        """The mark that stands last in a request; b"" where there is none."""
        found = self._found.findall(body)
        return found[-1][1] if found else b""

    def cleared(self, members: Mapping[str, Raw], own: bytes) -> tuple[dict[str, Raw], tuple[str, ...]]:
        """A request's members as the account `own` may see them, and the names of what only others could have read. Its own
        seals are without their mark; what others sealed is gone, with what makes no sense without. Raises Fault INVALID where that is
        nested too deeply to be taken apart."""
        cleared, lost = dict(members), list[str]()
        for name, raw in members.items():
            written = bytes(raw)
            if self.opening not in written:
                continue
            written = self._found.sub(lambda m: m[1] if m[2] == own else m[0], written)
            if self._found.search(written):
                try:
                    written = self._without(written, name, lost)
                except RecursionError:
                    raise invalid("The request body is nested too deeply.", name) from None
            cleared[name] = Raw(written)
        return cleared, tuple(lost)

    def _without(self, written: bytes, name: str, lost: list[str]) -> bytes:
        """Items that bear no foreign mark keep their bytes."""
        try:
            items = _decode_items(written)
        except _BROKEN:
            return written
        kept: list[Any] = []
        for at, item in enumerate(items):
            kept.append(item)
            if self._found.search(bytes(item)):
                kept[-1] = self._cut(_decode(item), f"{name}[{at}]", lost)
        return msgspec.json.encode([one for one in kept if one is not _GONE])

    def _cut(self, value: Any, path: str, lost: list[str]) -> Any:
        """The value without what others sealed; _GONE where nothing of use is left."""
        if isinstance(value, list):
            left = [one for at, each in enumerate(value) if (one := self._cut(each, f"{path}[{at}]", lost)) is not _GONE]
            return left if left or not value else _GONE
        if not isinstance(value, dict):
            return value
        kept: dict[str, Any] = {}
        for key, each in value.items():
            if not (isinstance(each, str) and self._read.match(each)):
                one = self._cut(each, f"{path}.{key}", lost)
                if one is not _GONE:
                    kept[key] = one
                elif key in {"content", "parts"}:  # a message that said nothing else
                    return _GONE
                continue
            lost.append(f"{path}.{key}")
            if key in _SIGNATURES:
                if _CALLS & value.keys() or "tool_calls" in path:
                    kept[key] = _UNSEALED
            elif not (key == "signature" and value.get("type") == "reasoning.text"):  # a text can be said without
                return _GONE
        return _GONE if kept == {"text": ""} else kept

    def _letters(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, _LABEL + b"\0" + text, "sha256").hex().encode().translate(_CAPITALS)


class Field(Struct, frozen=True):
    """A JSON member that holds a seal. `begun`: it and the opening of its value, if that is not empty; `partial`: what may be the
    beginning of such at the end of a piece."""

    begun: re.Pattern[bytes]
    partial: re.Pattern[bytes]

    def marked(self, body: bytes, mark: bytes) -> bytes:
        return self.begun.sub(rb"\g<0>" + mark, body)


def field(name: str) -> Field:
    key = name.encode()
    partial = rb'(?:"\s*(?::\s*"?)?)?'
    for at in range(len(key) - 1, -1, -1):
        partial = b"(?:%b%b)?" % (re.escape(key[at : at + 1]), partial)
    return Field(re.compile(rb'"%b"\s*:\s*"(?=[^"])' % re.escape(key)), re.compile(b'"' + partial + rb"\Z"))


class Marked:
    """A Passage that marks what it is fed: the upstream's bytes, before they are spliced or crossed. What may be the beginning of a
    seal is kept until more comes: at most a key's length."""

    __slots__ = ("_field", "_inner", "_mark", "_rest")

    def __init__(self, inner: Passage, which: Field, mark: bytes) -> None:
        self._inner = inner
        self._field = which
        self._mark = mark
        self._rest = b""

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def finish(self) -> str | None:
        return self._inner.finish

    @property
    def meaningful(self) -> bool:
        return self._inner.meaningful

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def failed(self) -> Fault | None:
        return self._inner.failed

    @property
    def characters(self) -> int:
        return self._inner.characters

    @property
    def between(self) -> bool:
        return self._inner.between

    def feed(self, data: bytes) -> bytes:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        begun = self._field.partial.search(data, max(len(data) - _LONGEST, 0))
        if begun is not None:
            data, self._rest = data[: begun.start()], data[begun.start() :]
        return self._inner.feed(self._field.marked(data, self._mark)) if data else b""

    def close(self, *, whole: bool = True) -> bytes:
        rest, self._rest = self._rest, b""
        out = self._inner.feed(rest) if rest else b""
        return out + self._inner.close(whole=whole)

    def tail(self, cost: float | None) -> bytes:
        return self._inner.tail(cost)

    def fail(self, fault: Fault) -> bytes:
        return self._inner.fail(fault)

    def heartbeat(self) -> bytes:
        return self._inner.heartbeat()

    def follow(self) -> None:
        self._inner.follow()

    def curtail(self, usage: Usage) -> bool:
        return self._inner.curtail(usage)


_LONGEST = 64  # of a key, a colon and the white space between
