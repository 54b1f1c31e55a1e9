"""How each API lists and shows models. Pure: an entry of ours in, an entry of that API out.

An entry is OpenAI's ({"id", "object", "created", "owned_by"}) with the catalogue's facts beside it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from llm_gateway.models.catalogue import Info
from llm_gateway.models.prices import FEMTO_PER_TOKEN, FEMTO_PER_USD, UNITS, Rates

Entry = dict[str, Any]
_LONG_AGO = "1970-01-01T00:00:00Z"


def facts(info: Info) -> Entry:
    known = {
        "context_window": info.context,
        "max_output_tokens": info.max_output,
        "input_modalities": info.input or None,
        "output_modalities": info.output or None,
        "tools": info.tools,
        "structured_output": info.schema,
        "reasoning": info.reasoning,
        "deprecated": info.deprecated,
        "retires": info.retires,
        "regions": info.regions or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def pricing(rates: Rates | None) -> Entry:
    """Under `pricing`, in USD: per million tokens, `search` and `request` each; `above` the rates for longer prompts. Nothing
    where nothing is known."""
    if rates is None:
        return {}
    told = _rates(rates)
    if rates.tiers:
        told["above"] = {str(start): _rates(tier) for start, tier in rates.tiers}
    return {"pricing": {"currency": "USD", "unit": "1M tokens", **told}}


def _rates(rates: Rates) -> Entry:
    known = {name: getattr(rates, name) for name in UNITS}
    each = {"search", "request"}
    return {name: value / (FEMTO_PER_USD if name in each else FEMTO_PER_TOKEN) for name, value in known.items() if value is not None}


def anthropic(entry: Entry) -> Entry:
    """https://docs.anthropic.com/en/api/models-list"""
    return {"type": "model", "id": entry["id"], "display_name": entry["id"], "created_at": _LONG_AGO}


def gemini(entry: Entry) -> Entry:
    """https://ai.google.dev/api/models#Model"""
    known = {
        "inputTokenLimit": entry.get("context_window"),
        "outputTokenLimit": entry.get("max_output_tokens"),
        "thinking": entry.get("reasoning"),
    }
    return {
        "name": f"models/{entry['id']}",
        "displayName": entry["id"],
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    } | {name: value for name, value in known.items() if value is not None}


def ollama(entry: Entry) -> Entry:
    """https://docs.ollama.com/api/tags. There are no weights here: a size of 0, and a digest that only tells names apart."""
    return {
        "name": entry["id"],
        "model": entry["id"],
        "modified_at": _LONG_AGO,
        "size": 0,
        "digest": hashlib.sha256(entry["id"].encode()).hexdigest(),
        "details": _details(entry),
    }


def ollama_shown(entry: Entry) -> Entry:
    """https://docs.ollama.com/api-reference/show-model-details"""
    family = entry["owned_by"]
    information: Entry = {"general.architecture": family, "general.basename": entry["id"]}
    if entry.get("context_window"):
        information[f"{family}.context_length"] = entry["context_window"]
    can = {
        "tools": entry.get("tools"),
        "vision": "image" in (entry.get("input_modalities") or ()),
        "thinking": entry.get("reasoning"),
    }
    return {
        "modelfile": "", "parameters": "", "template": "", "license": "", "modified_at": _LONG_AGO, "details": _details(entry),
        "model_info": information, "capabilities": ["completion", *(name for name, able in can.items() if able)],
    }  # fmt: skip


def _details(entry: Entry) -> Entry:
    family = entry["owned_by"]
    return {
        "parent_model": "", "format": "", "family": family, "families": [family], "parameter_size": "", "quantization_level": "",
    }  # fmt: skip
