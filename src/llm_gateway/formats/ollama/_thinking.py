"""How much to think, in Ollama's words: on or off, or a level for the models that have levels, which is gpt-oss.

Other models refuse a level, and gpt-oss does not heed on and off. https://docs.ollama.com/capabilities/thinking
"""

from __future__ import annotations

from llm_gateway.core.types import Effort, Thinking

_LEVELS: dict[Effort, str] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_LOW_BUDGET, _MEDIUM_BUDGET = 4096, 16384  # up to which a budget counts as that level


def write(thinking: Thinking | None, model: str, *, own: bool) -> tuple[bool | str | None, bool]:
    """`think`, None for the model's default, and whether it says all that was asked for. own: the client speaks Ollama's
    words, which are then the upstream's."""
    if thinking is None:
        return None, True
    if own:
        return (thinking.enabled if thinking.effort is None else thinking.effort), True
    off = thinking.enabled is False or thinking.effort == "none"
    if "gpt-oss" not in model:
        graded = thinking.effort not in {None, "none"} or thinking.budget is not None
        asked = thinking.enabled or thinking.adaptive or graded
        return (False if off else True if asked else None), off or not graded
    if off:
        return "low", False
    if thinking.effort is not None:
        level = _LEVELS[thinking.effort]
        return level, level == thinking.effort
    if thinking.budget is None:
        return (True if thinking.enabled else None), True
    budget = thinking.budget
    return ("low" if budget <= _LOW_BUDGET else "medium" if budget <= _MEDIUM_BUDGET else "high"), False
