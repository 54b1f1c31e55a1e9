"""Where a model's requests may go, in order; and where one request goes next, given what happened so far.

Law: a `Plan` is made once per model name and kept; a `Course` is one request's walk along it. The decision itself is
policies.retry's; this file only knows the order. Strategies, breakers and health will choose and skip in `Plan.stops`.
"""

from __future__ import annotations

from random import random

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.policies.retry import AFRESH, KEYS_OWN, Policy
from llm_gateway.routing.target import Target


class Stop(Struct, frozen=True):
    """One provider and model: its keys are alternatives, taken in turn."""

    keys: tuple[Target, ...]


class Plan(Struct, frozen=True):
    """`first_chunk`, `timeout`: the alias's own limits in seconds, if it has any. `only`: all targets, where there is no
    choice to make."""

    model: str
    stops: tuple[Stop, ...]
    first_chunk: float | None = None
    timeout: float | None = None
    only: list[Target] | None = None

    def targets(self, turn: int) -> list[Target]:
        """In order. turn: a running number that rotates the keys of each stop."""
        ordered: list[Target] = []
        for stop in self.stops:
            start = turn % len(stop.keys)
            ordered += (*stop.keys[start:], *stop.keys[:start])
        return ordered


class Tally:
    """How many requests are being served, and how many of them are retrying."""

    __slots__ = ("active", "retrying")

    def __init__(self) -> None:
        self.active = 0
        self.retrying = 0


class Course(Struct, eq=False):
    """One request's way: `target` is where it is to go now; `failed` moves on or raises.

    `place`: of `target` in `targets`; `fallbacks`: how often another provider or model took over (another key of the same is
    none); `same`: retries of this target; `retrying`: counted in the tally."""

    targets: list[Target]
    policy: Policy
    tally: Tally
    target: Target
    attempts: int = 1
    place: int = 0
    fallbacks: int = 0
    same: int = 0
    retrying: bool = False

    def __repr__(self) -> str:
        return f"<Course attempt {self.attempts} at {self.target}>"

    def failed(self, fault: Fault, left: float) -> float:
        """Moves to where the request goes next; returns the seconds to wait before. Raises the fault if nowhere.

        left: seconds until the request's deadline. Only asking the same target again takes from the retry budget: that is
        what multiplies a broken upstream's load. Moving on spreads it, and must work when all its clients have to."""
        policy = self.policy
        elsewhere = not self._alike(self.targets[-1])
        jitter = random()  # noqa: S311  no secret
        move = policy.after(fault, self.same, self.target.limits.retries, jitter, elsewhere=elsewhere)
        if move.verdict == "stop" or self.attempts >= policy.max_attempts or left <= 0:
            raise fault
        if move.verdict == "same" and move.wait < left and (move is AFRESH or self._affords()):
            self.same += 1
            self.attempts += 1
            return move.wait
        self._advance(fault)
        self.attempts += 1
        return 0.0

    def _advance(self, fault: Fault) -> None:
        """To the next key or target; raises the fault if there is none. Other keys of the same are passed over where the
        key is not the trouble and there is another provider or model: attempts are few."""
        left = range(self.place + 1, len(self.targets))
        if not left:
            raise fault
        others = (place for place in left if not self._alike(self.targets[place]))
        elsewhere = next(others, None)
        self.place = left[0] if elsewhere is None or fault.kind in KEYS_OWN else elsewhere
        self.same = 0
        if not self._alike(self.targets[self.place]):
            self.fallbacks += 1
        self.target = self.targets[self.place]

    def _alike(self, other: Target) -> bool:
        return (other.provider, other.model) == (self.target.provider, self.target.model)

    def _affords(self) -> bool:
        tally = self.tally
        if not self.retrying and self.policy.affords(tally.retrying, tally.active):
            self.retrying = True
            tally.retrying += 1
        return self.retrying

    def done(self) -> None:
        self.tally.active -= 1
        if self.retrying:
            self.retrying = False
            self.tally.retrying -= 1
