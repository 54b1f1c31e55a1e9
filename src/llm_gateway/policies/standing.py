"""What workers found out and still holds, for those that come later. Pure: time is an argument, monotonic seconds.

Law: one entry for each provider, key, model and kind of change; the last one said counts, until its end or its opposite. What ends
for a whole key or provider ends for all its models and keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec.structs import replace

from llm_gateway.core.changes import Change, What

# Kind -> what begins it, and what ends it.
FAMILIES: dict[What, str] = {
    "breaker_opened": "breaker", "breaker_closed": "breaker", "key_disabled": "key", "key_restored": "key", "cooling": "cooling",
    "provider_down": "provider", "provider_up": "provider",
}  # fmt: skip
MOST = 8192
ENDS: frozenset[What] = frozenset({"breaker_closed", "key_restored", "provider_up"})
Place = tuple[str, str, str, str]


def place(change: Change) -> Place:
    """Of two changes at one place the later one counts."""
    return change.provider, change.key, change.model, FAMILIES[change.what]


class Standing:
    def __init__(self) -> None:
        self._held: dict[Place, tuple[Change, float]] = {}

    def __repr__(self) -> str:
        return f"<Standing {', '.join(f'{change.provider}/{change.key} {change.what}' for change, _ in self._held.values())}>"

    def note(self, changes: Iterable[Change], now: float) -> None:
        for change in changes:
            # Cooling has no opposite: one without an end would never end.
            if change.what in ENDS or (change.what == "cooling" and change.seconds <= 0):
                self._held = {where: held for where, held in self._held.items() if not _within(where, place(change))}
            else:
                self._held[place(change)] = change, now + change.seconds if change.seconds > 0 else math.inf
        if len(self._held) > MOST:  # clients can make many: those that end soonest go first
            lasting = sorted((held for held in self._held.items() if held[1][1] > now), key=lambda held: held[1][1])
            self._held = dict(lasting[-MOST // 2 :])

    def holding(self, now: float) -> list[Change]:
        """With the seconds that are left of each."""
        self._held = {where: held for where, held in self._held.items() if held[1] > now}
        return [replace(change, seconds=0.0 if end == math.inf else end - now) for change, end in self._held.values()]

    def about(self, who: tuple[str, str, str], now: float) -> list[Change]:
        """As `holding`, of one target (provider, key, model), without looking at all there are."""
        provider, key, _ = who
        wholes = ((provider, key, ""), (provider, "", ""))
        places = [(*place, kind) for place in (who, *wholes) for kind in ("breaker", "cooling", "key", "provider")]
        found = [self._held[where] for where in places if where in self._held]
        return [replace(change, seconds=0.0 if end == math.inf else end - now) for change, end in found if end > now]

    def doubt(self) -> None:
        """Whether providers are there is not known any more."""
        self._held = {where: held for where, held in self._held.items() if where[3] != "provider"}

    def forget(self, providers: Iterable[str]) -> None:
        """These have other keys now, or are others by the same name. Whether they are there is found out anew by who asks."""
        gone = frozenset(providers)
        self._held = {where: held for where, held in self._held.items() if where[0] not in gone or where[3] == "provider"}


def _within(where: Place, wider: Place) -> bool:
    return all(whole in ("", part) for part, whole in zip(where, wider, strict=True))
