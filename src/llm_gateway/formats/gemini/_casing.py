"""Gemini takes every field name in two spellings, `generationConfig` and `generation_config`; we read the first.

Law: touches the names of Gemini's own fields only, never what a user put under `args`, `response` or a schema. A body
without snake case is returned as it is, after one scan.
https://protobuf.dev/programming-guides/json/#field-names
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_gateway.formats._members import invalid

_SNAKE = re.compile(
    rb'"(?:system_instruction|generation_config|tool_config|safety_settings|cached_content|inline_data|file_data|mime_type|display_name'
    rb"|file_uri|function_call|function_response|thought_signature|video_metadata|media_resolution|function_declarations"
    rb"|google_search|code_execution|url_context|google_search_retrieval|google_maps|file_search|computer_use"
    rb"|function_calling_config|[a-z]+_output_tokens|stop_sequences|response_[a-z_]+|thinking_[a-z]+|include_thoughts"
    rb'|top_[pk]|candidate_count|[a-z]+_penalty|parameters_json_schema|allowed_function_names|service_tier)"\s*:'
)
_AS_IT_IS = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema", "labels"}
)
DEEPEST = 100  # as far as Google's own parser goes; at the interpreter's limit a collection of garbage prints errors of its own
_UNDER = re.compile(r"_([a-z])")


def camel(name: str) -> str:
    return _UNDER.sub(lambda found: found[1].upper(), name)


def normal(body: bytes) -> bytes:
    """The same request, its own fields in camel case. `body` is valid JSON. Raises Fault INVALID for one nested too deeply, or with too large a number."""
    if _SNAKE.search(body) is None:
        return body
    try:
        return msgspec.json.encode(_renamed(msgspec.json.decode(body), DEEPEST))
    except RecursionError:
        raise invalid("The request body is nested too deeply.") from None
    except msgspec.DecodeError as error:  # a number that no float can hold
        raise invalid(f"The request body cannot be read: {error}.") from None


def _renamed(tree: Any, deepest: int) -> Any:
    if not isinstance(tree, (list, dict)):
        return tree
    if not deepest:
        raise RecursionError
    deeper = deepest - 1
    if isinstance(tree, list):
        return [_renamed(each, deeper) for each in tree]
    return {(own := camel(name)): value if own in _AS_IT_IS else _renamed(value, deeper) for name, value in tree.items()}
