"""The JSON Schema of config.yaml, for editors; and the list of options, for docs/configuration.md.

Law: derived from `schema.py`, nothing said twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llm_gateway.config.schema import Root

REFERENCE = {
    "type": "string",
    "pattern": r"\$\{|^file:",
    "description": "A reference: ${VAR}, ${VAR:-default}, file:/path",
}
NUMERIC = ("integer", "number", "boolean")


def document() -> dict[str, Any]:
    schema = Root.model_json_schema()
    _admit_references(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "LLM Inference Gateway configuration"
    _admit_short_forms(schema["$defs"])
    return schema


def _admit_references(node: Any) -> None:
    """Any value may be a reference, and durations and sizes may carry a unit; for text that is so anyway."""
    if isinstance(node, list):
        for each in node:
            _admit_references(each)
    elif isinstance(node, dict):
        text = node.pop("x-text", False)
        if node.get("type") in NUMERIC:
            kept = {name: node.pop(name) for name in ("description", "default", "title") if name in node}
            plain = dict(node)
            node.clear()
            node |= {"anyOf": [plain, {"type": "string"} if text else REFERENCE], **kept}
            return
        for each in list(node.values()):
            _admit_references(each)


def _admit_short_forms(definitions: dict[str, Any]) -> None:
    """What a section may be written as, shorter."""
    definitions["Target"] = {"anyOf": [{"type": "string"}, definitions["Target"]]}
    definitions["ProviderKey"] = {"anyOf": [{"type": "string"}, definitions["ProviderKey"]]}
    definitions["PublicKey"] = {"anyOf": [{"type": "string"}, definitions["PublicKey"]]}
    several = definitions["Jwt"]["properties"]["public_keys"]
    definitions["Jwt"]["properties"]["public_keys"] = {"anyOf": [{"type": "string"}, several], "description": several.pop("description")}
    definitions["AliasTimeout"] = {"anyOf": [{"type": ["number", "string"]}, definitions["AliasTimeout"]]}
    definitions["Entra"] = {"anyOf": [{"type": "boolean"}, REFERENCE, definitions["Entra"]]}
    short = [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/Target"}}]
    definitions["Alias"] = {"anyOf": [*short, definitions["Alias"]]}


def options(model: type[BaseModel] = Root, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted name, default, description) of every option, in the file's order. `NAME` stands for a name the user gives."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        suffix, inner = _inner(field.annotation)
        if inner is None:
            yield path, _default(field), field.description or ""
        else:
            if suffix:
                yield f"{path}{suffix}", "", field.description or ""
            yield from options(inner, f"{path}{suffix}.")


def _inner(kind: Any) -> tuple[str, type[BaseModel] | None]:
    for part in (kind, *get_args(kind)):
        if get_origin(part) is dict:
            return ".NAME", _model(get_args(part)[1])
        if get_origin(part) is tuple:
            return "[]", _model(get_args(part)[0])
    return "", next((model for model in map(_model, (kind, *get_args(kind))) if model), None)


def _model(kind: Any) -> type[BaseModel] | None:
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, dict)):
        return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)
