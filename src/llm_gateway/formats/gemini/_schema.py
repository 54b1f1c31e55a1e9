"""Gemini's own schemas (a subset of OpenAPI 3.0, types in capitals) -> JSON Schema.

Law: towards Gemini nothing is converted, since it takes JSON Schema too (`parametersJsonSchema`, `responseJsonSchema`).
https://ai.google.dev/api/caching#Schema
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from llm_gateway.formats._typed import tree

_NUMBERED = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")  # from 1: protobuf's JSON takes either
_TYPES = frozenset(_NUMBERED)
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_BY_NAME = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_ONE = frozenset({"items", "additionalProperties", "not"})


def read(raw: Raw) -> Raw:
    return Raw(msgspec.json.encode(_convert(tree(raw))))


def _convert(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    told: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _BY_NAME and isinstance(value, dict):
            told[name] = {key: _convert(each) for key, each in value.items()}
        elif name in _LISTS and isinstance(value, list):
            told[name] = [_convert(each) for each in value]
        elif name in _ONE:
            told[name] = _convert(value)
        elif name in {"type", "nullable", "propertyOrdering", "example"}:
            continue
        else:
            told[name] = int(value) if name in _COUNTS and isinstance(value, str) and value.isdigit() else value
    return _typed(schema, told)


def _typed(schema: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if type(kind) is int:
        kind = _NUMBERED[kind - 1] if 0 < kind <= len(_NUMBERED) else None
    if isinstance(kind, str):
        kind = kind.lower() if kind.upper() in _TYPES else None
    if schema.get("nullable") is True:
        if isinstance(kind, str):
            kind = [kind, "null"]
        elif "anyOf" in told:
            told["anyOf"] = [*told["anyOf"], {"type": "null"}]
        if isinstance(told.get("enum"), list) and None not in told["enum"]:
            told["enum"] = [*told["enum"], None]
    return told if kind is None else {"type": kind, **told}
