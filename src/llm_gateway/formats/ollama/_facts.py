"""What a reply of Ollama's tells beside its words: when, how many tokens, why it ended, how likely each token was.

Law: never raises; odd members read as absent. Replies have no ids: ours are made of their time, which is exact to the
nanosecond, so they are the same however often a reply is read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_gateway.core.types import FinishReason, Logprob, Usage
from llm_gateway.formats._numbers import likelihood, tokens
from llm_gateway.formats.ollama import _wire

Fields = dict[str, Any]
_FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_WRITTEN: dict[FinishReason, str] = {"length": "length", "content_filter": "content_filter", "error": "error"}


def usage(reply: _wire.Reply) -> Usage | None:
    """A prompt that was still in memory is not counted by old versions; thinking is part of what was generated."""
    if reply.prompt_eval_count is None and reply.eval_count is None:
        return None
    counted = {"input": reply.prompt_eval_count, "output": reply.eval_count}
    return Usage(input=tokens(counted, "input"), output=tokens(counted, "output"))


def written_usage(told: Usage) -> Fields:
    return {"prompt_eval_count": told.input, "eval_count": told.output}


def finish(word: str | None, *, called: bool) -> tuple[FinishReason, str | None]:
    """The reason, and Ollama's own word where ours says less ("load", "unload")."""
    known = _FINISHES.get(word or "stop", "stop")
    if called and known == "stop":
        return "tool_calls", None
    return known, word if word and word not in _FINISHES else None


def done_reason(reason: FinishReason) -> str:
    return _WRITTEN.get(reason, "stop")


def moment(text: str | None) -> int:
    """Unix seconds of an RFC 3339 time, 0 where there is none."""
    try:
        return int(msgspec.convert(text, datetime).timestamp()) if text else 0
    except (msgspec.ValidationError, OverflowError, OSError, ValueError):
        return 0


def time(seconds: int) -> str:
    """RFC 3339, as Ollama's clients read it. A time that no calendar has is the epoch."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, OSError, ValueError):
        return "1970-01-01T00:00:00Z"


def reply_id(created_at: str | None) -> str:
    return f"ollama-{_digits(created_at)}"


def call_id(created_at: str | None, place: int) -> str:
    """For a call of a version that gives none. place: among the reply's calls."""
    return f"call_{_digits(created_at)}_{place}"


def _digits(created_at: str | None) -> str:
    return "".join(each for each in created_at or "" if "0" <= each <= "9") or "0"


def logprobs(told: list[Any] | None) -> tuple[Logprob, ...] | None:
    return None if told is None else tuple(_logprob(one) for one in told if isinstance(one, dict))


def written_logprobs(given: tuple[Logprob, ...]) -> list[Fields]:
    return [{**_token(one), "top_logprobs": [_token(top) for top in one.top]} for one in given]


def _token(one: Logprob) -> Fields:
    return {"token": one.token, "logprob": one.logprob} | ({} if one.bytes is None else {"bytes": one.bytes})


def _logprob(one: Fields) -> Logprob:
    token, value, raw, top = (one.get(name) for name in ("token", "logprob", "bytes", "top_logprobs"))
    whole = isinstance(raw, list) and all(isinstance(each, int) for each in raw)
    return Logprob(
        token if isinstance(token, str) else "",
        likelihood(value),
        raw if whole else None,
        tuple(_logprob(each) for each in top if isinstance(each, dict)) if isinstance(top, list) else (),
    )
