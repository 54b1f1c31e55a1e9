"""Our requests against the schemas that the APIs publish: the parameter types of their own SDKs, botocore's service model.

Law: a member that the schema does not know is wrong, except those of `SPOKEN`, which the many speakers of OpenAI's shape know. The
SDKs' TypedDicts become JSON Schema, which alone says what is inside their lazily read lists; what is checked of it is what
pydantic writes.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import ollama._types as own_ollama
from anthropic.types import message_count_tokens_params, message_create_params
from google.genai import types as google
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from pydantic import TypeAdapter, ValidationError

from formats.bedrock import complaints as by_botocore

JSON = dict[str, Any]
_SDKS: dict[str, Any] = {
    "openai_chat": completion_create_params.CompletionCreateParams,
    "openai_responses": response_create_params.ResponseCreateParams,
    "openai_completions": completion_params.CompletionCreateParams,
    "openai_embeddings": embedding_create_params.EmbeddingCreateParams,
    "anthropic_messages": message_create_params.MessageCreateParams,
    "anthropic_count": message_count_tokens_params.MessageCountTokensParams,
}
_OLLAMA: dict[str, Any] = {
    "ollama_chat": own_ollama.ChatRequest,
    "ollama_generate": own_ollama.GenerateRequest,
    "ollama_embed": own_ollama.EmbedRequest,
    "ollama_embeddings": own_ollama.EmbeddingsRequest,
}
_GOOGLE: dict[str, Any] = {
    "contents": list[google.Content],
    "systemInstruction": google.Content,
    "tools": list[google.Tool],
    "toolConfig": google.ToolConfig,
    "safetySettings": list[google.SafetySetting],
    "generationConfig": google.GenerationConfig,
    "cachedContent": str,
    "labels": dict[str, str],
}
_GOOGLE_EMBED: dict[str, Any] = {
    "model": str, "content": google.Content, "taskType": str, "title": str, "outputDimensionality": int,
}  # fmt: skip
# OpenAI's own API has no word for thoughts; who has, reads and writes them here.
SPOKEN = frozenset({"reasoning_content", "reasoning_details", "extra_content"})
# The newest SDK of Anthropic's has no word for what the newest models refuse; the older models' API has.
_OLDER: dict[str, Any] = {"temperature": int | float, "top_p": int | float, "top_k": int}
_SAMPLED = frozenset({"claude-sonnet-4-5"})
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,), "null": (type(None),),
}  # fmt: skip


def complaint(shape: str, body: bytes, model: str = "") -> str:
    """What the API would have against this request to `model`; "" for nothing."""
    tree = json.loads(body)
    if shape == "anthropic_messages" and model in _SAMPLED:
        tree = {name: value for name, value in tree.items() if name not in _OLDER or not isinstance(value, _OLDER[name])}
    if shape == "bedrock_converse":
        return by_botocore(tree)
    if shape == "bedrock_count":
        return by_botocore(tree, "CountTokens")
    if shape in _OLLAMA:
        return _ollama(_OLLAMA[shape], tree)
    if shape == "gemini":
        return _google(tree, _GOOGLE)
    if shape == "gemini_count":
        inner = dict(tree.get("generateContentRequest") or tree)
        inner.pop("model", None)
        return _google(inner, _GOOGLE)
    if shape.startswith("gemini_embed"):
        return next((told for one in tree.get("requests", [tree]) if (told := _google(one, _GOOGLE_EMBED))), "")
    if shape in _SDKS:
        schema = _schema(shape)
        return _against(schema, tree, schema.get("$defs", {}), "")
    return ""  # Cohere's and Titan's: nobody ships a schema here


@cache
def _schema(shape: str) -> JSON:
    return TypeAdapter(_SDKS[shape]).json_schema()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _google(tree: JSON, members: dict[str, Any]) -> str:
    for name, value in tree.items():
        if name not in members:
            return f"{name}: no such member"
        try:
            _adapter(members[name] if not isinstance(members[name], str) else str).validate_python(value)
        except ValidationError as error:
            return f"{name}.{_first(error)}"
    return ""


def _ollama(kind: Any, tree: JSON) -> str:
    if unknown := tree.keys() - kind.model_fields.keys():
        return f"{min(unknown)}: no such member"
    options = tree.get("options") or {}
    if unknown := options.keys() - own_ollama.Options.model_fields.keys() - {"min_p"}:  # the server knows min_p
        return f"options.{min(unknown)}: no such member"
    try:
        kind.model_validate(_pictured(tree))
    except ValidationError as error:
        return _first(error)
    return ""


def _pictured(tree: JSON) -> JSON:
    """With images as its SDK's types hold them: an object around the base64."""
    told = dict(tree)
    if isinstance(images := told.get("images"), list):
        told["images"] = [{"value": each} for each in images]
    if isinstance(messages := told.get("messages"), list):
        told["messages"] = [_pictured(each) for each in messages]
    return told


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _against(schema: JSON, value: Any, defs: JSON, path: str) -> str:
    """The first complaint of a JSON Schema, as far as pydantic writes it for TypedDicts."""
    if "$ref" in schema:
        return _against(defs[schema["$ref"].rpartition("/")[2]], value, defs, path)
    for name in ("anyOf", "oneOf"):
        if name in schema:
            told = [_against(one, value, defs, path) for one in schema[name]]
            return "" if "" in told else max(told, key=_depth)  # who got furthest was meant
    if "const" in schema:
        return "" if value == schema["const"] else f"{path}: not {schema['const']!r}"
    if "enum" in schema:
        return "" if value in schema["enum"] else f"{path}: {value!r} is none of {schema['enum']}"
    kind = schema.get("type")
    if kind is None:
        return ""
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind in {"integer", "number"}):
        return f"{path}: no {kind}"
    if kind == "array":
        each = schema.get("items") or {}
        return next((told for at, one in enumerate(value) if (told := _against(each, one, defs, f"{path}[{at}]"))), "")
    return _members(schema, value, defs, path) if kind == "object" else ""


def _members(schema: JSON, value: JSON, defs: JSON, path: str) -> str:
    known = schema.get("properties")
    more = schema.get("additionalProperties", known is None)
    for name in schema.get("required", ()):
        if name not in value:
            return f"{path}: {name} is missing"
    for name, one in value.items():
        inner = (known or {}).get(name, more)
        if inner is False and name not in SPOKEN:
            return f"{path}.{name}: no such member"
        if isinstance(inner, dict) and (told := _against(inner, one, defs, f"{path}.{name}")):
            return told
    return ""


def _depth(told: str) -> tuple[int, int]:
    path, _, what = told.partition(": ")
    return path.count(".") + path.count("["), not what.startswith("not ")
