"""No step of a long conversation's crossing is longer than a few messages' worth: counted in calls, for every pair of shapes."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from laws.pairs import CHAT, MODEL, QUESTION, pairs, peek, request, shapes
from llm_gateway.core.types import Conversation, Message, Text, ToolCall, ToolResult
from llm_gateway.formats.contract import Stepwise

# A conversation of 2,400 messages takes 30,000 calls and more to read, and as many to write.
CALLS_PER_STEP = 1_200
TURNS = 600


def conversation(turns: int) -> Conversation:
    messages = []
    for turn in range(turns):
        name = f"call_{turn}"
        messages += [
            Message("user", (Text("Look again."),), at=f"messages[{4 * turn}]"),
            Message("assistant", (Text("So I do."), ToolCall(name, "look", '{"at": "it"}')), at=f"messages[{4 * turn + 1}]"),
            Message("tool", (ToolResult(name, (Text("a cat"),), name="look"),), at=f"messages[{4 * turn + 2}]"),
            Message("assistant", (Text("A cat."),), at=f"messages[{4 * turn + 3}]"),
        ]
    return Conversation(model=MODEL, messages=tuple(messages), max_tokens=256, stream_usage=True)


LONG = [name for name in CHAT if name not in {"openai_completions", "ollama_generate"}]


def walked(steps: Generator[None, None, Any]) -> tuple[Any, int, int]:
    """What they come to, how many there were, and the most calls in one of them."""
    counts = [0]

    def count(_frame: object, what: str, _argument: object) -> None:
        counts[-1] += what in {"call", "c_call"}

    sys.setprofile(count)
    try:
        while True:
            next(steps)
            counts.append(0)
    except StopIteration as ended:
        sys.setprofile(None)
        return ended.value, len(counts), max(counts)
    finally:
        sys.setprofile(None)


def test_the_shapes_of_conversations_are_stepwise() -> None:
    assert [name for name, shape in shapes().items() if isinstance(shape, Stepwise)] == LONG


@pytest.mark.parametrize(("client", "upstream"), [pair for pair in pairs() if set(pair) <= set(LONG)], ids=lambda pair: pair)
def test_no_step_does_more_than_a_few_messages(client: str, upstream: str) -> None:
    ours, theirs = shapes()[client], shapes()[upstream]
    asked = peek(ours, request(ours, conversation(TURNS)))
    call, steps, most = walked(ours.read_steps(asked))
    assert call == ours.read_request(asked)
    assert steps > TURNS * 2 // 16
    assert most <= CALLS_PER_STEP
    written, steps, most = walked(theirs.write_steps(call, MODEL))
    assert written == theirs.write_request(call, MODEL)
    assert steps > TURNS * 2 // 16
    assert most <= CALLS_PER_STEP


@pytest.mark.parametrize("name", LONG)
def test_a_short_one_takes_no_step_but_to_find_its_messages(name: str) -> None:
    shape = shapes()[name]
    asked = peek(shape, request(shape, QUESTION))
    call, steps, _ = walked(shape.read_steps(asked))
    assert (call, steps) == (shape.read_request(asked), 2)
    written, steps, _ = walked(shape.write_steps(call, MODEL))
    assert (written, steps) == (shape.write_request(call, MODEL), 1)


@pytest.mark.parametrize("name", LONG)
def test_what_is_wrong_far_down_is_told_by_its_path(name: str) -> None:
    shape = shapes()[name]
    body = request(shape, conversation(20))
    place = body.rindex(b'"A cat."')
    broken = peek(shape, body[:place] + b"[7]" + body[place + 8 :])
    told = []
    for read in (lambda: walked(shape.read_steps(broken)), lambda: shape.read_request(broken)):
        with pytest.raises(Exception, match=r"\[\d\d\]") as caught:
            read()
        told.append((caught.value.param, str(caught.value)))
    assert told[0] == told[1]
