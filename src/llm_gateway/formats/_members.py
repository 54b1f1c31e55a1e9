"""A request body's top level, checked member by member.

Law: names no shape's field. Everything refused is a Fault(INVALID) whose `param` is the member's name; nothing is
repaired. Members stay as the client wrote them.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault, Kind

_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_str = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode
_EMPTY_ARRAY = re.compile(rb"\[\s*\]")
_PREFIX = 16  # an array's opening, looked at without copying what may be megabytes


def invalid(message: str, param: str | None = None) -> Fault:
    return Fault(Kind.INVALID, message, param=param)


def decode(body: bytes) -> dict[str, Raw]:
    """The members of a JSON object; of a repeated key, the last. The whole text is checked, also where it stays raw.

    msgspec passes over strings in a Raw without looking at their encoding, hence the check here."""
    try:
        if not body.isascii():
            str(body, "utf-8")
        return _decode(body)
    except UnicodeDecodeError as error:
        raise invalid(f"The request body is not valid UTF-8 (byte {error.start}).") from None
    except msgspec.ValidationError:
        raise invalid("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise invalid("The request body is nested too deeply.") from None


def text(members: dict[str, Raw], key: str) -> str:
    """A member that must be a string with something in it."""
    raw = members.get(key)
    if raw is None:
        raise invalid(f"'{key}' is required.", key)
    try:
        value = _decode_str(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid(f"'{key}' must be a string.", key) from None
    if not value:
        raise invalid(f"'{key}' must not be empty.", key)
    return value


def filled_array(members: dict[str, Raw], key: str) -> None:
    """Check that a member is an array with something in it, without reading it."""
    raw = members.get(key)
    if raw is None:
        raise invalid(f"'{key}' is required.", key)
    opening = bytes(memoryview(raw)[:_PREFIX])
    if opening[:1] != b"[":
        raise invalid(f"'{key}' must be an array.", key)
    if len(opening) < _PREFIX and _EMPTY_ARRAY.fullmatch(opening):
        raise invalid(f"'{key}' must not be empty.", key)


def flag(members: dict[str, Raw], key: str) -> bool:
    """A boolean member; False where it is absent or null."""
    raw = members.get(key)
    if raw is None:
        return False
    written = bytes(raw)
    if written in {b"false", b"null"}:
        return False
    if written != b"true":
        raise invalid(f"'{key}' must be true or false.", key)
    return True


def count(members: dict[str, Raw], key: str) -> int | None:
    """A positive whole number; None where it is absent or null."""
    raw = members.get(key)
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        value = _decode_int(raw)
    except msgspec.DecodeError:
        raise invalid(f"'{key}' must be a whole number.", key) from None
    if value < 1:
        raise invalid(f"'{key}' must be at least 1.", key)
    return value


def object_(members: dict[str, Raw], key: str) -> dict[str, Raw]:
    """An object member, itself cut into members; {} where it is absent or null."""
    raw = members.get(key)
    if raw is None or bytes(raw) == b"null":
        return {}
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise invalid(f"'{key}' must be an object.", key) from None
    except RecursionError:  # less of the stack is left than when the whole body was read
        raise invalid("The request body is nested too deeply.", key) from None


join = msgspec.json.encode  # members -> the body; a name of its own, and no call of its own


def replaced(members: dict[str, Raw], changes: dict[str, Raw]) -> bytes:
    """The body with some members replaced in their place, or added at the end."""
    return msgspec.json.encode({**members, **changes})


def written(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))
