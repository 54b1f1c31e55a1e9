"""Reasoning items <-> Reasoning.

Law: what OpenAI sealed stays beside the summary it was shown with, as two parts of one id; another API's thought is one
item whose `encrypted_content` holds its seal. Plain thoughts, which nobody sealed, are an item's `content`.
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Reasoning
from llm_gateway.formats.openai_responses import _seals, _wire
from llm_gateway.formats.openai_responses._seals import Seal

SHAPE = "openai_responses"
Fields = dict[str, Any]


def read(item: _wire.Reasoning) -> tuple[Reasoning, ...]:
    """The item's parts; none for an empty one, or for one that only seals what stands before it."""
    content = "".join(piece.text for piece in item.content or ())
    summary = tuple(piece.text for piece in item.summary or () if piece.text)
    seal = _seals.read(item.encrypted_content)
    if seal is not None:
        return _foreign(seal, content or "\n\n".join(summary))
    found: list[Reasoning] = []
    if content:
        found.append(Reasoning(content, id=item.id if item.encrypted_content else None))
    if summary:
        found.append(Reasoning(summary=summary, id=item.id, format=SHAPE))
    if item.encrypted_content:
        found.append(Reasoning(redacted=item.encrypted_content, id=item.id, format=SHAPE))
    return tuple(found)


def _foreign(seal: Seal, text: str) -> tuple[Reasoning, ...]:
    match seal.use:
        case "signature":
            return (Reasoning(text, signature=seal.value, format=seal.shape),)
        case "redacted":
            return (Reasoning(redacted=seal.value, format=seal.shape),)
        case "part":
            return ()


def encrypted(part: Reasoning) -> str | None:
    """What of the part goes into `encrypted_content`."""
    if part.redacted is not None:
        return part.redacted if part.format == SHAPE else _seals.write(Seal(part.format, "redacted", part.redacted))
    if part.signature is not None:
        return _seals.write(Seal(part.format, "signature", part.signature))
    return None


def summarised(part: Reasoning) -> bool:
    """Whether the part's words are shown as a summary: OpenAI's are, and other APIs' of which a seal shows the origin."""
    return bool(part.summary or part.format or part.signature)


def item(name: str, parts: tuple[Reasoning, ...]) -> Fields:
    """parts: one, or OpenAI's summary and what it sealed."""
    written: Fields = {"type": "reasoning", "id": name, "summary": []}
    for part in parts:
        if summarised(part):
            texts = part.summary or ((part.text,) if part.text else ())
            written["summary"] += [{"type": "summary_text", "text": text} for text in texts]
        elif part.text:
            written["content"] = [{"type": "reasoning_text", "text": part.text}]
        if (sealed := encrypted(part)) is not None:
            written["encrypted_content"] = sealed
    return written


def seal_item(name: str, shape: str, signature: str) -> Fields:
    """Behind a call or a text that another API sealed: the place this shape has for it."""
    sealed = _seals.write(Seal(shape, "part", signature))
    return {"type": "reasoning", "id": name, "summary": [], "encrypted_content": sealed}


def grouped(parts: tuple[Reasoning, ...]) -> list[tuple[Reasoning, ...]]:
    """Parts in a row as the items they came from: what OpenAI showed goes with what it sealed next, under the same id."""
    groups: list[tuple[Reasoning, ...]] = []
    for part in parts:
        before = groups[-1][-1] if groups else None
        if before is not None and _one_item(before, part):
            groups[-1] = (*groups[-1], part)
        else:
            groups.append((part,))
    return groups


def _one_item(before: Reasoning, part: Reasoning) -> bool:
    if before.redacted is not None or part.format != SHAPE:
        return False
    if before.format == SHAPE:
        return before.id is None or part.id is None or before.id == part.id
    return before.format == "" and before.id is not None and before.id == part.id
