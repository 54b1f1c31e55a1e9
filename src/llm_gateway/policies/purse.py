"""A budget's money in its present window: spent, and reserved by requests under way. Pure; nano-USD, Unix seconds.

Law: what is reserved counts as spent until it is settled, so that any number of requests at once overspend by nothing but what a reply cost
beyond its reservation. A new window begins with nothing spent; what is still reserved is settled in the window in which it ends. Until
`seed` has told what was spent before, nothing is known, and a hard budget grants nothing.
"""

from __future__ import annotations

import math

from msgspec import Struct

from llm_gateway.core.tenancy import Period
from llm_gateway.policies.windows import ends


class Purse(Struct):
    """`until`: the present window's end; `told`: the largest share of its amount that an alert went out for; `due`: what has to be spent
    before the next one may, so that nobody looks at each request."""

    period: Period
    spent: int = 0
    reserved: int = 0
    until: float = 0.0
    told: float = 0.0
    seeded: bool = False
    due: float = 0.0

    def turn(self, wall: float) -> None:
        """Begins the next window when the present one is over. Of the first one, what was spent before has to be told."""
        if wall >= self.until:
            self.seeded = self.until > 0.0
            self.spent, self.told, self.due, self.until = 0, 0.0, 0.0, ends(self.period, wall)

    def seed(self, spent: int) -> None:
        """What was spent in the present window before anything was counted here."""
        self.spent += spent
        self.seeded = True

    def left(self, amount: int) -> int:
        """What can be reserved, of a budget of `amount`."""
        return max(0, amount - self.spent - self.reserved)

    def take(self, cost: int) -> None:
        self.reserved += cost

    def settle(self, reserved: int, cost: int) -> None:
        """A request that had `reserved` has cost `cost`."""
        self.reserved -= reserved
        self.spent += cost

    def adopt(self, amount: int, shares: tuple[float, ...]) -> None:
        """The amount or its shares may be others now; what the old amount had passed and the new one has not will be told anew."""
        self.due = 0.0
        self.told = max((each for each in shares if each <= self.told and self.spent >= each * amount), default=0.0)

    def alert(self, amount: int, shares: tuple[float, ...]) -> float:
        """The largest of the shares that were passed since it was last asked; 0 none. An amount of 0 is passed by anything."""
        passed = max((each for each in shares if each > self.told and self.spent and self.spent >= each * amount), default=0.0)
        self.told = max(self.told, passed)
        self.due = min((each * amount for each in shares if each > self.told), default=math.inf)
        return passed
