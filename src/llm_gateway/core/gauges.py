"""What counts against limits and budgets: the contract between admission, which asks, and the stores that count (memory, Redis).

Law: `reserve` takes all claims of a request or none; `settle` is called once for whatever was reserved, whatever became of the request,
and puts the truth in the estimate's place. A store that is gone answers by its policy, it never raises. Both are idempotent by
`Ask.request`. Clocks: memory by the times in `Ask`, Redis by its own TIME.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from msgspec import Struct

from llm_gateway.core.tenancy import Claim


class Ask(Struct, gc=False):
    """`tokens`: estimated, of prompt and reply; `cost`: nano-USD, an upper bound; `least`: the smallest amount that would do (equal to
    `cost` where nothing can be cut). `seconds`: how long it may be held at most. `now`: of a clock that only goes forward; `wall`: Unix."""

    request: str
    tokens: int = 0
    cost: int = 0
    least: int = 0
    seconds: float = 600.0
    now: float = 0.0
    wall: float = 0.0


class Verdict(Struct, gc=False):
    """`refused`: the claim that stands in the way, None: all are taken. `wait`: seconds until asking again makes sense. `held`: the budget
    is not spent, but others have reserved what is left; `unknown`: what was spent so far is not known yet. `cost`: nano-USD reserved,
    between `least` and `cost` of the ask. `left`: by claim, what is left after this request; of those that are not by the minute it may be missing."""

    refused: Claim | None = None
    wait: float = 0.0
    held: bool = False
    unknown: bool = False
    cost: int = 0
    left: tuple[int, ...] = ()


class Bound(Protocol):
    """One tenant's claims at a store, looked up beforehand; those by the minute come first."""

    claims: tuple[Claim, ...]

    def reserve(self, ask: Ask) -> Verdict | Awaitable[Verdict]:
        """Takes one request, its tokens, a slot and its money."""
        ...

    def extend(self, ask: Ask) -> Verdict | Awaitable[Verdict]:
        """`ask.cost` nano-USD more for a request that has reserved before; of the budgets alone, all of it or nothing."""
        ...

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        """What it was in truth. `ask`: as reserved, its `cost` what was granted in all."""
        ...


class Seeds(Protocol):
    """The spend table: what was spent before this store began to count."""

    def spent(self, claim: Claim, wall: float) -> int | None:
        """nano-USD in the budget's present window; None: not known yet."""
        ...


class Gauges(Protocol):
    def bind(self, tenant: str, claims: tuple[Claim, ...]) -> Bound: ...

    def rest(self, now: float, wall: float) -> None:
        """No `Bound` is used for new requests any more that was given out before; what nobody needs may be forgotten."""
        ...
