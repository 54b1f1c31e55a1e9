"""The ids that a provider hands out with a response: where they stand in requests, replies and streams.

Law: finds and replaces, and leaves every other value's bytes as they are; what an id becomes is the caller's to say. Bytes
that are no response come back as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw, Struct, structs

from llm_gateway.core import sse
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats.contract import Peek

Seal = Callable[[str], str]
Members = dict[str, Raw]
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_OWN = ("id", "previous_response_id")
_decode_members = tolerant(msgspec.json.Decoder(Members).decode)
_decode_text = msgspec.json.Decoder(str).decode


class _Reference(Struct, gc=False):
    type: str | None = None
    id: str | None = None
    role: str | None = None

    def handed(self) -> str | None:
        """The id of an item that stays where it is stored. The type may be left out."""
        if self.id and (self.type == "item_reference" or (self.type is None and self.role is None)):
            return self.id
        return None


_decode_items = msgspec.json.Decoder(list[Raw]).decode
_decode_reference = msgspec.json.Decoder(_Reference).decode


def handed_ids(peek: Peek) -> dict[str, str]:
    """The ids in a request that came from an earlier reply, and the member that each stands in: of stored items, a response, a conversation."""
    members = peek.members
    found = {_reference(item): "input" for item in _items(members)}
    found |= {_text(members.get("previous_response_id")): "previous_response_id", _conversation(members): "conversation"}
    return {one: member for one, member in found.items() if one}


def with_ids(peek: Peek, mapping: Mapping[str, str]) -> Peek:
    """The request with those ids replaced that `mapping` holds."""
    members = dict(peek.members)
    earlier, conversation = _text(members.get("previous_response_id")), _conversation(members)
    if earlier is not None and earlier in mapping:
        members["previous_response_id"] = _written(mapping[earlier])
    if conversation is not None and conversation in mapping:
        named = _text(members["conversation"]) is not None
        changed = _written(mapping[conversation])
        members["conversation"] = changed if named else _replaced(members["conversation"], {"id": changed})
    items = _items(members)
    renamed = [mapping.get(_reference(item) or "") for item in items]
    if any(renamed):
        told = [
            _replaced(item, {"id": _written(name)}) if name else item for item, name in zip(items, renamed, strict=True)
        ]
        members["input"] = Raw(msgspec.json.encode(told))
    return structs.replace(peek, members=members)


def sealed_reply(body: bytes, seal: Seal) -> bytes:
    """A whole response with its own id, the earlier response's and its conversation's replaced."""
    try:
        response = _decode_members(body)
    except _BROKEN:
        return body
    return msgspec.json.encode(response) if _seal(response, seal) else body


def sealed_events(block: bytes, seal: Seal) -> bytes:
    """Whole events, those that carry the response with its ids replaced."""

    def sealed(response: Members) -> None:
        _seal(response, seal)

    return b"".join(changed(event, sealed) for event in sse.split(block))


def changed(event: bytes, change: Callable[[Members], None]) -> bytes:
    """The event with its response changed; as it is where it carries none, or none that can be read."""
    data = sse.payload(event)
    if data.find(b'"response"') < 0:
        return event
    try:
        members = _decode_members(data)
        response = _decode_members(members.get("response", Raw(b"null")))
        change(response)
    except _BROKEN:
        return event
    members["response"] = Raw(msgspec.json.encode(response))
    return b"".join(_lines(event, msgspec.json.encode(members)))


def _lines(event: bytes, data: bytes) -> list[bytes]:
    """The event's lines with other data: in the place of its first data line, without the others."""
    lines: list[bytes] = []
    told = False
    for line in event.splitlines(keepends=True):
        if not line.startswith(b"data:"):
            lines.append(line)
        elif not told:
            told = True
            lines.append(b"data: " + data + (b"\r\n" if line.endswith(b"\r\n") else b"\n"))
    return lines


def _seal(response: Members, seal: Seal) -> bool:
    """Whether there was anything to seal."""
    found = False
    for name in _OWN:
        if value := _text(response.get(name)):
            response[name] = _written(seal(value))
            found = True
    if conversation := _conversation(response):
        response["conversation"] = _replaced(response["conversation"], {"id": _written(seal(conversation))})
        found = True
    return found


def _conversation(members: Members) -> str | None:
    """Its id, alone or in an object."""
    raw = members.get("conversation")
    if raw is None:
        return None
    if (text := _text(raw)) is not None:
        return text
    try:
        return _text(_decode_members(raw).get("id"))
    except _BROKEN:
        return None


def _items(members: Members) -> list[Raw]:
    """The input's items where one of them may be a reference."""
    raw = members.get("input")
    if raw is None or bytes(raw).find(b'"id"') < 0:
        return []
    try:
        return _decode_items(raw)
    except _BROKEN:
        return []


def _reference(item: Raw) -> str | None:
    try:
        return _decode_reference(item).handed()
    except _BROKEN:
        return None


def _text(raw: Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return _decode_text(raw)
    except _BROKEN:
        return None


def _replaced(raw: Raw, changes: Members) -> Raw:
    return Raw(msgspec.json.encode({**_decode_members(raw), **changes}))


def _written(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))
