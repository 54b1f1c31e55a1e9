"""`make bench-crossings`: what crossing from every shape into every other costs, in process, on one core.

    python bench/crossings.py               the tables
    python bench/crossings.py --publish     also into docs/benchmarks.md

CPU time of this process (so that others on the machine do not count), the best of several batches, garbage collection on. "At once" is
the longest of what runs without letting the loop go: the body's top level, or a slice of reading or writing it.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from laws.pairs import CHAT, NOW, QUESTION, crossing, pairs, peek, reply, request, shapes, stream  # noqa: E402
from llm_gateway.core.types import Conversation, Message, Text  # noqa: E402
from llm_gateway.egress.slices import SLICE  # noqa: E402
from llm_gateway.formats.contract import Format  # noqa: E402

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- crossings: begin -->", "<!-- crossings: end -->"
BATCHES, WORDS, TURNS = 7, 400, 500
# Shapes that take one question, no conversation.
SINGLE = {"openai_completions", "ollama_generate"}
GOALS = {"chunk": 25.0, "request": 150.0, "megabyte": 30.0, "at once": 5.0, "ten at once": 5.0}


def best(work: Callable[[], None], count: int) -> float:
    """Seconds of CPU for one of the `count` that `work` does."""
    times = []
    for _ in range(BATCHES):
        started = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - started) / count / 1e9)
    return min(times)


def chunk(client: str, upstream: str) -> float:
    """µs for each translated word of a stream."""
    known = shapes()
    told = stream(known[upstream], WORDS)
    passages = [crossing(known[client], known[upstream]) for _ in range(BATCHES)]

    def work() -> None:
        feed = passages.pop().feed
        feed(told.opening)
        for word in told.words:
            feed(word)

    return best(work, WORDS) * 1e6


def plain(client: str, upstream: str) -> float:
    """µs for a request there and its reply back."""
    known = shapes()
    ours, theirs = known[client], known[upstream]
    asked, answered = request(ours), reply(theirs)

    def work() -> None:
        for _ in range(50):
            call = ours.read_request(peek(ours, asked))
            theirs.write_request(call, QUESTION.model)
            ours.write_reply(theirs.read_reply(answered), call, NOW)

    return best(work, 50) * 1e6


def megabyte(client: str, upstream: str) -> float | None:
    """ms for a conversation of 1 MB; None where one of the two takes no conversation."""
    if {client, upstream} & SINGLE:
        return None
    known = shapes()
    ours, theirs = known[client], known[upstream]
    body = _long(ours, TURNS)
    return best(lambda: _over(ours, theirs, body), 1) * 1e3


def at_once(client: str, upstream: str) -> float | None:
    """ms that the loop is held at once by a conversation of 1 MB."""
    return _longest(client, upstream, TURNS)


def ten_at_once(client: str, upstream: str) -> float | None:
    return _longest(client, upstream, 10 * TURNS)


def _longest(client: str, upstream: str, turns: int) -> float | None:
    if {client, upstream} & SINGLE:
        return None
    known = shapes()
    ours, theirs = known[client], known[upstream]
    body = _long(ours, turns)
    held = []
    for _ in range(BATCHES):
        started = time.process_time()
        asked = peek(ours, body)
        looked = time.process_time() - started
        call, reading = _slices(ours.read_steps(asked))
        _, writing = _slices(theirs.write_steps(call, QUESTION.model))
        held.append(max(looked, reading, writing))
    return min(held) * 1e3


def _slices(steps: Generator[None, None, Any]) -> tuple[Any, float]:
    """What the steps come to, and the longest time between two turns that the gateway would give the loop, in seconds."""
    longest, begun = 0.0, time.process_time()
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value, max(longest, time.process_time() - begun)
        now = time.process_time()
        if now > begun + SLICE:
            longest, begun = max(longest, now - begun), now


def _long(shape: Format, turns: int) -> bytes:
    text = "All work and no play makes a long conversation. " * 42
    messages = [Message("user" if turn % 2 == 0 else "assistant", (Text(text),), at=f"messages[{turn}]") for turn in range(turns)]
    return request(shape, Conversation(model=QUESTION.model, messages=tuple(messages), max_tokens=256))


def _over(ours, theirs, body: bytes) -> None:
    theirs.write_request(ours.read_request(peek(ours, body)), QUESTION.model)


MEASURES = {
    "chunk": ("µs per translated chunk", chunk, ".1f"),
    "request": ("µs per plain request, there and back", plain, ".0f"),
    "megabyte": ("ms for a conversation of 1 MB", megabyte, ".1f"),
    "at once": ("ms at once, of a conversation of 1 MB", at_once, ".1f"),
    "ten at once": ("ms at once, of a conversation of 10 MB", ten_at_once, ".1f"),
}


def tables() -> str:
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}: rows are clients, columns upstreams."]
    for name, (title, measure, form) in MEASURES.items():
        figures = {pair: measure(*pair) for pair in pairs()}
        known = [figure for figure in figures.values() if figure is not None]
        over = [" from ".join(pair) for pair, figure in figures.items() if figure is not None and figure > GOALS[name]]
        lines += ["", f"**{title}** (goal {GOALS[name]:g}; worst {max(known):{form}})", ""]
        lines += [f"| client | {' | '.join(f'`{each}`' for each in CHAT)} |", "|---|" + "---:|" * len(CHAT)]
        for client in CHAT:
            cells = [figures.get((client, upstream)) for upstream in CHAT]
            lines.append(f"| `{client}` | {' | '.join('' if cell is None else format(cell, form) for cell in cells)} |")
        lines += ["", f"Over the goal: {', '.join(over) if over else 'none'}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true")
    chosen = parser.parse_args()
    text = tables()
    print(text)
    if chosen.publish:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
