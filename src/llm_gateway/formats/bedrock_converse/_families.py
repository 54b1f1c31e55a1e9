"""What each family of models takes in `additionalModelRequestFields`, since Converse has a name for neither: how many
tokens to choose from (top_k), how much to think.

Law: data, and the words made of it. A model of no known family gets neither, and the client is told.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html; `reasoning_effort` and `reasoning_config` as
recorded with gpt-oss and Qwen; https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, structs

from llm_gateway.core.types import Conversation, Effort, Thinking
from llm_gateway.formats.anthropic_messages import _thinking

Fields = dict[str, Any]
Style = Literal["", "claude", "nova", "effort", "config"]


class Family(Struct, frozen=True):
    """word: what its models' ids hold. top_k: the path of that field. seals: it signs its thoughts, and wants them back.
    caches: it takes cache points; anywhere: beside tools, calls and results too, and for an hour (Bedrock refuses the request else).
    strict: it takes `strict` tools. alone: temperature or top_p, not both."""

    word: str
    style: Style = ""
    top_k: tuple[str, ...] = ()
    seals: bool = False
    caches: bool = False
    anywhere: bool = False
    strict: bool = False
    alone: bool = False


FAMILIES = (
    Family("claude", "claude", ("top_k",), seals=True, caches=True, anywhere=True, strict=True, alone=True),
    Family("nova-2", "nova", ("inferenceConfig", "topK"), caches=True),
    Family("nova", "", ("inferenceConfig", "topK"), caches=True),
    Family("gpt-oss", "effort"),
    Family("qwen3", "config"),
    Family("command-r", "", ("k",)),
)
_UNKNOWN = Family("")
_LEVELS: dict[Effort, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_LOW_BUDGET, _MEDIUM_BUDGET = 4096, 16384  # up to which a budget counts as that level
_EFFORTS = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
_OURS = frozenset({"thinking", "reasoning_config", "reasoningConfig", "reasoning_effort", "top_k", "k"})


def of(model: str) -> Family:
    """The family of a model, by its id, profile or ARN."""
    return next((family for family in FAMILIES if family.word in model), _UNKNOWN)


def sampled(model: str) -> bool:
    """Whether it takes a temperature and its like at all."""
    return of(model).style != "claude" or _thinking.sampled(model)


def read_top_k(fields: Fields) -> int | None:
    inner = fields.get("inferenceConfig")
    for value in (fields.get("top_k"), fields.get("k"), inner.get("topK") if isinstance(inner, dict) else None):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def read_thinking(fields: Fields, effort: str | None) -> Thinking | None:
    """effort: `outputConfig.effort`."""
    config = fields.get("thinking") or fields.get("reasoning_config") or fields.get("reasoningConfig")
    if isinstance(config, dict):
        kind, budget = config.get("type"), config.get("budget_tokens")
        level = config.get("maxReasoningEffort")
        return Thinking(
            enabled=kind != "disabled",
            effort=_effort(level) or _effort(effort),
            budget=budget if isinstance(budget, int) and budget > 0 else None,
            adaptive=kind == "adaptive",
        )
    said = _effort(config) or _effort(fields.get("reasoning_effort")) or _effort(effort)
    return Thinking(effort=said) if said is not None else None


def unread(fields: Fields) -> list[str]:
    """The members that neither of the two readers above takes."""
    inner = fields.get("inferenceConfig")
    whole = isinstance(inner, dict) and inner.keys() == {"topK"}
    return [name for name in fields if name not in _OURS and not (name == "inferenceConfig" and whole)]


def write_top_k(value: int, family: Family, more: Fields) -> bool:
    """False where there is no such field."""
    if not family.top_k:
        return False
    *outer, last = family.top_k
    for name in outer:
        more = more.setdefault(name, {})
    more[last] = value
    return True


def write_thinking(call: Conversation, model: str, asked: Fields, more: Fields, output: Fields) -> bool:
    """asked: `inferenceConfig`. False where thinking was asked for, but cannot be had as asked for."""
    thinking, family = call.thinking, of(model)
    if thinking is None:
        return True
    off = thinking.enabled is False or thinking.effort == "none"
    if family.style == "claude":
        return off or _write_claude(call, model, asked, more, output)
    if thinking.enabled is None and thinking.effort is None and thinking.budget is None:
        return True
    if not family.style:
        return off
    level = _level(thinking)
    if family.style == "nova":
        if off:
            return True
        if level == "high" and not asked.keys().isdisjoint({"maxTokens", "temperature", "topP"}):
            more["reasoningConfig"] = {
                "type": "enabled",
                "maxReasoningEffort": "medium",
            }  # it refuses `high` beside these
            return False
        more["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
    elif family.style == "effort":
        more["reasoning_effort"] = "low" if off else level  # gpt-oss cannot be kept from thinking
        return not off and thinking.budget is None
    elif not off:
        more["reasoning_config"] = "high" if level == "high" else "low"
        return thinking.budget is None and level != "medium"
    return thinking.budget is None or off


def _write_claude(call: Conversation, model: str, asked: Fields, more: Fields, output: Fields) -> bool:
    """In Anthropic's own words, which Bedrock hands on; the effort has a place of its own."""
    said: Fields = {}
    if not _thinking.write(structs.replace(call, max_tokens=asked.get("maxTokens")), model, said):
        return False
    if "thinking" in said:
        more["thinking"] = said["thinking"]
    if "max_tokens" in said:
        asked["maxTokens"] = said["max_tokens"]
    if (effort := said.get("output_config", {}).get("effort")) is not None:
        output["effort"] = effort
    return True


def _level(thinking: Thinking) -> str:
    if thinking.effort is not None:
        return _LEVELS.get(thinking.effort, "low")
    budget = thinking.budget
    if budget is None:
        return "medium"
    return "low" if budget <= _LOW_BUDGET else "medium" if budget <= _MEDIUM_BUDGET else "high"


def _effort(value: object) -> Effort | None:
    return value if isinstance(value, str) and value in _EFFORTS else None  # type: ignore[return-value]
