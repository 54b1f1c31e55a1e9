"""What a candidate says beside its parts: where its words come from, and how likely each was.

Law: never raises; odd members read as absent. https://ai.google.dev/api/generate-content#GroundingMetadata
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Citation, Logprob
from llm_gateway.formats._numbers import likelihood, section

Fields = dict[str, Any]


def citations(metadata: Fields | None) -> tuple[Citation, ...]:
    """One for each source of each supported stretch of text; for an unplaced source, one without text."""
    if not metadata:
        return ()
    chunks = [_source(chunk) for chunk in _dicts(metadata.get("groundingChunks"))]
    found: list[Citation] = []
    used: set[int] = set()
    for support in _dicts(metadata.get("groundingSupports")):
        text = section(support, "segment").get("text")
        places = support.get("groundingChunkIndices")
        for place in places if isinstance(places, list) else ():
            if isinstance(place, int) and 0 <= place < len(chunks):
                used.add(place)
                url, title = chunks[place]
                found.append(Citation(url, title, text if isinstance(text, str) else None, format="gemini"))
    found += [Citation(url, title, format="gemini") for at, (url, title) in enumerate(chunks) if at not in used]
    return tuple(one for one in found if one.url is not None)


def searches(metadata: Fields | None) -> int:
    queries = (metadata or {}).get("webSearchQueries")
    return len(queries) if isinstance(queries, list) else 0


def grounding(cited: tuple[Citation, ...]) -> Fields | None:
    """Sources of another shape's answer, as grounding."""
    sources = list(dict.fromkeys((one.url, one.title) for one in cited if one.url is not None))
    if not sources:
        return None
    chunks = [{"web": {"uri": url, "title": title or ""}} for url, title in sources]
    supports = [
        {"segment": {"text": one.cited_text}, "groundingChunkIndices": [sources.index((one.url, one.title))]}
        for one in cited
        if one.url is not None and one.cited_text
    ]
    return {"groundingChunks": chunks, "groundingSupports": supports} if supports else {"groundingChunks": chunks}


def logprobs(result: Fields | None) -> tuple[Logprob, ...] | None:
    if not result:
        return None
    tops = [_dicts(step.get("candidates")) for step in _dicts(result.get("topCandidates"))]
    chosen = _dicts(result.get("chosenCandidates"))
    return tuple(
        _logprob(one, tuple(_logprob(each, ()) for each in (tops[at] if at < len(tops) else ())))
        for at, one in enumerate(chosen)
    )


def written_logprobs(given: tuple[Logprob, ...]) -> Fields:
    return {
        "chosenCandidates": [_candidate(one) for one in given],
        "topCandidates": [{"candidates": [_candidate(top) for top in one.top]} for one in given],
    }


def _candidate(one: Logprob) -> Fields:
    return {"token": one.token, "logProbability": one.logprob}


def _logprob(one: Fields, top: tuple[Logprob, ...]) -> Logprob:
    token, value = one.get("token"), one.get("logProbability", 0.0)
    text = token if isinstance(token, str) else ""
    return Logprob(text, likelihood(value), list(text.encode()), top)


def _source(chunk: Fields) -> tuple[str | None, str | None]:
    told = section(chunk, "web") or section(chunk, "retrievedContext") or section(chunk, "maps")
    url, title = told.get("uri"), told.get("title")
    return (url if isinstance(url, str) else None), (title if isinstance(title, str) else None)


def _dicts(value: object) -> list[Fields]:
    return [one if isinstance(one, dict) else {} for one in value] if isinstance(value, list) else []
