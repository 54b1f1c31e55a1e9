"""When a provider that is asked again and again counts as down, and when as up again. Pure: results in, changes out.

Law: `fall` failures in a row make it down, `rise` answers in a row make it up; what was never asked is up. One result more
or less on the other side starts the count anew, so a provider that flickers stays what it was.
"""

from __future__ import annotations

from msgspec import Struct


class Bounds(Struct, frozen=True):
    fall: int = 3
    rise: int = 2


class Pulse(Struct):
    """`against`: results in a row that speak against `healthy`."""

    healthy: bool = True
    against: int = 0

    def __repr__(self) -> str:
        return f"<Pulse {'up' if self.healthy else 'down'}{f', {self.against} against' if self.against else ''}>"

    def beat(self, bounds: Bounds, *, good: bool) -> bool:
        """Whether this result changed what counts."""
        if good is self.healthy:
            self.against = 0
            return False
        self.against += 1
        if self.against < (bounds.fall if self.healthy else bounds.rise):
            return False
        self.healthy, self.against = good, 0
        return True
