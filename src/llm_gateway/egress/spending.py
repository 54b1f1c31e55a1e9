"""One stream under a hard budget, held against what is reserved for it: topped up when it comes near, ended when there is no more.

Law: only where money may run out; nobody else pays for it. An honest provider ends a reply at its limit, and that was reserved: so more is asked
for at NEAR of the reservation by the usual estimate, but a stream is ended only when it has surely used all of it, by the usage that it
told, or by more text than its tokens can be. Asking waits for nobody: while a store that is not at hand has not answered, the stream goes on.

Rejected: ending at the estimate. English is four to five characters a token, so a reply of just the length that was allowed would often be
cut short by a fifth. What is lost by waiting is at most half of one reservation.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llm_gateway.accounting.estimate import CHARACTERS_PER_TOKEN, estimate, prompt_tokens
from llm_gateway.core.gauges import Verdict
from llm_gateway.core.types import Usage

if TYPE_CHECKING:
    from llm_gateway.admission.quota import Hold
    from llm_gateway.core.exchange import Exchange
    from llm_gateway.formats.contract import Passage
    from llm_gateway.routing.target import Target

NEAR = 0.9  # of what is reserved, at which more is asked for
SURE = 6  # characters that a token hardly exceeds, over a whole reply
TELLING = 16  # a told count of at least a token for so many characters keeps pace with the text: it alone is believed
LEAST_MORE = 256  # tokens
PART = 4  # of a reply's reservation, what is asked for beyond it
SOON = 16  # tokens after which to look again at the earliest


class Spending:
    """`ended`: the stream was ended here. share: the part of the reservation that is this attempt's, 2 for a half."""

    __slots__ = ("_at", "_hold", "_passage", "_pending", "_prompt", "_refusals", "_share", "_target", "_told_at", "_x", "ended")

    def __init__(self, x: Exchange, target: Target, passage: Passage, share: int = 1) -> None:
        passage.follow()
        self._x = x
        self._target = target
        self._passage = passage
        self._hold: Hold = x.hold
        self._share = share
        self._prompt = 0
        self._at: float = 0.0  # characters, and tokens told, at which to look again
        self._told_at: float = 0.0
        self._refusals = 0
        self._pending: asyncio.Future[Verdict] | None = None
        self.ended = False

    def __repr__(self) -> str:
        state = "ended" if self.ended else "asking" if self._pending is not None else f"refused {self._refusals}" if self._refusals else "within"
        return f"<Spending of {self._x.id}: {state}>"

    def see(self) -> None:
        """After each read of the stream, before it is asked whether it is over."""
        passage = self._passage
        usage = passage.usage
        if passage.characters >= self._at or (usage is not None and usage.output >= self._told_at):
            self._weigh(usage)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _weigh(self, told: Usage | None) -> None:
        passage, x = self._passage, self._x
        if passage.ended or passage.failed is not None:
            return
        self._prompt = self._prompt or x.prompt_estimate or prompt_tokens(x.body)
        characters = passage.characters
        usage = told if told is not None else Usage()
        usage = replace(usage, input=usage.input or self._prompt)
        if usage.output * TELLING > characters:
            likely = surely = usage.output
        else:
            likely, surely = max(usage.output, characters // CHARACTERS_PER_TOKEN), max(usage.output, characters // SURE)
        none, sure, by_now, after = (self._price(usage, output) for output in (0, surely, likely, likely + 1000))
        if none is None or sure is None or by_now is None or after is None or after <= by_now:  # nothing that it says more costs more
            self._at = self._told_at = inf
            return
        each = (after - by_now) / 1000
        reserved = self._hold.ask.cost // self._share - x.absorbed
        if self._refusals < 2 and self._pending is None:
            if not self._refusals and by_now >= NEAR * reserved:
                step = max(LEAST_MORE * each, (reserved - none) / PART)
                self._ask(int(step + max(0, by_now - NEAR * reserved)))
            elif self._refusals and sure >= reserved:  # others may have given theirs back since
                self._ask(int(LEAST_MORE * each + sure - reserved))
        reserved = self._hold.ask.cost // self._share - x.absorbed
        if self._refusals > 1 and sure >= reserved:
            self._end(told, characters)
        left = (reserved - sure if self._refusals else NEAR * reserved - by_now) / each
        self._at = characters + max(SOON, left) * CHARACTERS_PER_TOKEN
        self._told_at = usage.output + max(SOON, left)

    def _price(self, usage: Usage, output: int) -> int | None:
        return self._target.price(replace(usage, output=output), self._x.wall)

    def _ask(self, more: int) -> None:
        """nano-USD."""
        ask = replace(self._hold.ask, cost=more, least=more, now=perf_counter())
        verdict = self._hold.bound.extend(ask)
        if isinstance(verdict, Verdict):
            self._hear(verdict)
        else:
            self._pending = asyncio.ensure_future(verdict)
            self._pending.add_done_callback(self._answered)

    def _answered(self, pending: asyncio.Future[Verdict]) -> None:
        self._pending = None
        self._at = self._told_at = 0.0
        if not pending.cancelled():
            self._hear(pending.result())

    def _hear(self, verdict: Verdict) -> None:
        tally = self._hold.tally
        if verdict.refused is not None:
            self._refusals += 1
            tally.refused += 1
        else:
            self._refusals = 0
            tally.granted += 1
            self._hold.ask.cost += verdict.cost

    def _end(self, told: Usage | None, characters: int) -> None:
        """With what it must have used. Where that cannot be said yet, in the midst of an event, it is tried again."""
        if told is not None and told.output * TELLING > characters:
            usage = replace(told, input=told.input or self._prompt, estimated=True)
        else:
            usage = estimate(self._prompt, characters, told)
        if self._passage.curtail(usage):
            self.ended = True
            self._hold.tally.ended += 1

