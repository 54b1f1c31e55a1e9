"""Where a model's requests may go, in order; and where one request goes next, given what happened so far.

Law: a `Plan` is made once per model name and kept; a `Course` is one request's walk along it. The decision itself is
policies.retry's; this file only knows the order. Strategies, breakers and health will choose and skip in `Plan.stops`.
"""

from __future__ import annotations

from random import random

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.policies.retry import Policy
from llm_gateway.routing.target import Target


class Stop(Struct, frozen=True):
    """One provider and model: its keys are alternatives, taken in turn. `fallback`: not what was asked for first."""

    keys: tuple[Target, ...]
    fallback: bool = False


class Plan(Struct, frozen=True):
    """`first_chunk`, `timeout`: the alias's own limits in seconds, if it has any."""

    model: str
    stops: tuple[Stop, ...]
    first_chunk: float | None = None
    timeout: float | None = None

    def targets(self, turn: int) -> list[Target]:
        """In order. turn: a running number that rotates the keys of each stop."""
        first = self.stops[0].keys
        if len(self.stops) == 1 and len(first) == 1:
            return [first[0]]
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


class Course:
    """One request's way: `target` is where it is to go now; `failed` moves on or raises."""

    __slots__ = ("_index", "_policy", "_same", "_tally", "_targets", "attempts", "retrying", "target")

    def __init__(self, targets: list[Target], policy: Policy, tally: Tally) -> None:
        self._targets = targets
        self._policy = policy
        self._tally = tally
        self._index = self._same = 0
        self.attempts = 1
        self.retrying = False
        self.target = targets[0]

    def __repr__(self) -> str:
        return f"<Course attempt {self.attempts} at {self.target}>"

    @property
    def fallbacks(self) -> int:
        """How many targets were passed over."""
        return self._index

    def failed(self, fault: Fault, left: float) -> float:
        """Moves to where the request goes next; returns the seconds to wait before. Raises the fault if nowhere.

        left: seconds until the request's deadline."""
        target, policy = self.target, self._policy
        move = policy.after(fault, self._same, target.limits.retries, random())  # noqa: S311  jitter, no secret
        if move.verdict == "stop" or self.attempts >= policy.max_attempts or left <= move.wait:
            raise fault
        if not self.retrying and not policy.affords(self._tally.retrying, self._tally.active):
            raise fault
        if move.verdict == "same":
            self._same += 1
        elif self._index + 1 < len(self._targets):
            self._index += 1
            self._same = 0
        else:
            raise fault
        if not self.retrying:
            self.retrying = True
            self._tally.retrying += 1
        self.attempts += 1
        self.target = self._targets[self._index]
        return move.wait

    def done(self) -> None:
        if self.retrying:
            self.retrying = False
            self._tally.retrying -= 1
