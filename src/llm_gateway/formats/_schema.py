"""JSON Schemas of tools, where APIs differ about what one must say.

Law: what a schema means stays as it is; one that needs nothing keeps its bytes.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

_decode = msgspec.json.Decoder(dict[str, Raw]).decode


def with_properties(schema: Raw) -> Raw:
    """An object's schema with `properties`: OpenAI refuses one without ("object schema missing properties"), which is how
    tools that take nothing are declared elsewhere."""
    try:
        members = _decode(schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return schema
    if "properties" in members or bytes(members.get("type", b"")) != b'"object"':
        return schema
    return Raw(msgspec.json.encode({**members, "properties": {}}))
