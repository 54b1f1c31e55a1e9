"""How much to think, in Gemini's words: a budget up to generation 2.5, a level from 3 on, nothing before 2.5.

https://ai.google.dev/gemini-api/docs/thinking; efforts become budgets as Google's own OpenAI endpoint has it:
https://ai.google.dev/gemini-api/docs/openai#thinking
"""

from __future__ import annotations

import re

from llm_gateway.core.types import Effort, Thinking
from llm_gateway.formats.gemini import _wire

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}
_LEVELS: dict[str, Effort] = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high"}
_LOW_BUDGET, _MEDIUM_BUDGET = 4096, 16384  # up to which a budget counts as that level
_MOST_FLASH, _MOST_PRO = 24576, 32768
_LEAST_PRO, _LEAST_LITE = 128, 512
_GENERATION = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?")
_LATEST = re.compile(r"gemini-(?:pro|flash|flash-lite)-latest")  # generation 3 since 2026-01-21: https://ai.google.dev/gemini-api/docs/changelog
_NONE, _LEVELLED = (2, 5), (3, 0)
_NO_MINIMUM = (3, 7)  # from here on no model knows `minimal`; before, no pro model


def generation(model: str) -> tuple[int, int]:
    """(3, 0) for `gemini-3-pro-preview`; for a name that says none, the first that thinks, unless it stands for the latest."""
    if _LATEST.search(model):
        return _NO_MINIMUM
    found = _GENERATION.search(model)
    return (int(found[1]), int(found[2] or 0)) if found else _NONE


def seals(model: str) -> bool:
    return generation(model) >= _LEVELLED


def read(config: _wire.ThinkingConfig | None) -> Thinking | None:
    if config is None:
        return None
    budget = config.thinking_budget
    effort = _LEVELS.get((config.thinking_level or "").lower())
    asked = budget is not None or effort is not None
    return Thinking(
        enabled=budget != 0 if asked else None,
        effort=effort,
        budget=budget if budget is not None and budget > 0 else None,
        adaptive=budget == -1,
        visible=config.include_thoughts,
    )


def write(thinking: Thinking | None, model: str) -> tuple[dict[str, object], bool]:
    """The config, {} for none, and whether it says all that was asked for."""
    if thinking is None:
        return {}, True
    version = generation(model)
    asked = thinking.enabled is not False and (thinking.enabled is not None or thinking.effort or thinking.budget)
    if version < _NONE:
        return {}, not asked
    config: dict[str, object] = {}
    exact = True
    if thinking.enabled is False or thinking.effort == "none" or thinking.effort or thinking.budget:
        config, exact = (_level if version >= _LEVELLED else _budget)(thinking, model)
    elif thinking.adaptive and version < _LEVELLED:
        config = {"thinkingBudget": -1}
    if thinking.visible is not None or (asked and thinking.effort != "none"):
        config["includeThoughts"] = thinking.visible is not False
    return config, exact


def _off(thinking: Thinking) -> bool:
    return thinking.enabled is False or thinking.effort == "none"


def _level(thinking: Thinking, model: str) -> tuple[dict[str, object], bool]:
    """The first pro model knows two levels, others three or four, and none of them can be kept from thinking."""
    least: Effort = "low" if "pro" in model or generation(model) >= _NO_MINIMUM else "minimal"
    if _off(thinking):
        return {"thinkingLevel": least}, False
    effort = thinking.effort
    if effort is None:
        budget = thinking.budget or 0
        effort = "low" if budget <= _LOW_BUDGET else "medium" if budget <= _MEDIUM_BUDGET else "high"
    level = effort if effort in _LEVELS else "high"
    if "pro" in model and generation(model) == _LEVELLED:
        level = "low" if level in {"minimal", "low"} else "high"
    if level == "minimal":
        level = least
    return {"thinkingLevel": level}, thinking.budget is None


def _budget(thinking: Thinking, model: str) -> tuple[dict[str, object], bool]:
    pro, lite = "pro" in model, "lite" in model
    wanted = 0 if _off(thinking) else thinking.budget or _BUDGETS[thinking.effort or "medium"]
    budget = min(wanted, _MOST_PRO if pro else _MOST_FLASH)
    if pro:
        budget = max(budget, _LEAST_PRO)
    elif lite and budget:
        budget = max(budget, _LEAST_LITE)
    return {"thinkingBudget": budget}, budget == wanted
