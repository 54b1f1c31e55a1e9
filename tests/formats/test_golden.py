"""Recorded cases and what they become, as readable JSON under tests/golden.

`python -m pytest tests/formats/test_golden.py --update-golden` writes them anew; read the diff before committing it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from formats.shapes import CALL, MODELS, NOW, other, recorded, request_body, shape_of
from llm_gateway.core import sse
from llm_gateway.core.errors import Fault
from llm_gateway.formats.crossing import Crossing

WANTED = (
    "tool_call",
    "parallel",
    "tool_result",
    "vision",
    "document",
    "audio",
    "reasoning",
    "cache",
    "citation",
    "server",
    "logprobs",
    "schema",
    "max_tokens",
    "refusal",
)
LARGEST = 24_000  # a golden file is for reading
MOST_PER_KIND = 14


def chosen(cases):
    """For Gemini and for the two others apart: more of one must not push out another."""
    gemini = [one for one in cases if shape_of(one).name == "gemini"]
    return telling([one for one in cases if one not in gemini]) + telling(gemini)


def telling(cases):
    """The smallest cases that together show every feature, by provider where that adds one."""
    cases = sorted((one for one in cases if len(one.body) < LARGEST), key=lambda one: (len(one.body), one.id))
    seen: set[str] = set()
    picked = []
    for one in cases:
        new = {(one.row["api"], feature) for feature in one.features if any(word in feature for word in WANTED)} - seen
        if new:
            seen |= new
            picked.append(one)
    return sorted(picked[:MOST_PER_KIND], key=lambda one: one.id)


GOOD = [one for one in recorded() if one.status < 400]
REQUESTS = chosen([one for one in GOOD if isinstance(one.request, dict) and len(json.dumps(one.request)) < LARGEST])
REPLIES = chosen([one for one in GOOD if not one.row["streaming"]])
STREAMS = chosen([one for one in GOOD if one.row["streaming"]])


def each(cases):
    return pytest.mark.parametrize("interaction", cases, ids=[one.id for one in cases])


@each(REQUESTS)
def test_requests(interaction, golden):
    shape, target = shape_of(interaction), other(shape_of(interaction))
    body = request_body(interaction)
    assert body is not None
    try:
        sent = target.write_request(shape.read_request(shape.peek(body)), MODELS[target.name])
    except Fault as fault:
        golden(
            f"requests/{interaction.id}",
            {"from": interaction.request, "refused": {"message": fault.message, "param": fault.param}},
        )
        return
    golden(
        f"requests/{interaction.id}",
        {"from": interaction.request, "to": json.loads(sent.body), "dropped": sorted(sent.dropped)},
    )


@each(REPLIES)
def test_replies(interaction, golden):
    shape, target = shape_of(interaction), other(shape_of(interaction))
    told = target.write_reply(shape.read_reply(interaction.body), CALL, NOW)
    golden(
        f"replies/{interaction.id}",
        {"from": json.loads(interaction.body), "to": json.loads(told.body), "dropped": list(told.dropped)},
    )


@each(STREAMS)
def test_streams(interaction, golden):
    shape, target = shape_of(interaction), other(shape_of(interaction))
    crossing = Crossing(shape.stream_reader(), target.stream_writer(CALL, NOW))
    told = crossing.feed(interaction.body) + crossing.close()
    told += crossing.tail(None) if crossing.failed is None else crossing.fail(crossing.failed)
    golden(f"streams/{interaction.id}", {"from": events(interaction.body), "to": events(told)})


def events(stream: bytes) -> list[Any]:
    payloads = (sse.payload(event) for event in sse.split(stream))
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in payloads if data]
