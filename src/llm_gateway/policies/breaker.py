"""Whether an upstream may be called, judged by how its last calls ended. Pure: time and dice are arguments.

    closed --5 failures in a row, or half of >= 20 in 30 s--> open --its time is over--> half-open: one probe
    half-open --probe fails--> open, for longer (10 s x times opened, at most 300)     half-open --probe succeeds--> recovering
    recovering: a share of the calls that grows with time, then closed; a failure there opens it again

Law: a breaker only ever says no; whether there is anybody else to ask is not its business, but `knock` is for callers who
have nobody else: one probe a second instead of a growing ejection. Sources of the numbers: RELIABILITY "Breaker", Envoy's
outlier_detection.proto (consecutive_5xx, base_ejection_time x ejections, max_ejection_time).
"""

from __future__ import annotations

from msgspec import Struct


class Terms(Struct, frozen=True):
    """Seconds and counts. `consecutive` 0: never opens by that; `ratio` of `volume` calls within `window`; `recovery`: of growing share;
    `knock`: between probes of whoever is the last; `panic`: the last is asked whatever its breaker says; `key_ejection`: of a key that is
    refused, 0: none; `cooling`: a Retry-After is kept."""

    enabled: bool = True
    consecutive: int = 5
    ratio: float = 0.5
    volume: int = 20
    window: float = 30.0
    ejection: float = 10.0
    cap: float = 300.0
    recovery: float = 10.0
    knock: float = 1.0
    panic: bool = False
    key_ejection: float = 300.0
    cooling: bool = True


class Breaker(Struct):
    """`until`: when it may be probed, while it is open; `probing`: since when a probe is under way; 0: not.

    `good`, `bad` count calls of the present half window, `was_good`, `was_bad` of the one before."""

    terms: Terms
    open: bool = False
    until: float = 0.0
    opened: int = 0
    probing: float = 0.0
    knocked: float = 0.0
    healed: float = 0.0
    row: int = 0
    half: float = 0.0
    good: int = 0
    bad: int = 0
    was_good: int = 0
    was_bad: int = 0

    def __repr__(self) -> str:
        if self.open:
            return f"<Breaker {'half-open' if self.probing else 'open'} {self.opened}x until {self.until:g}>"
        return f"<Breaker {'recovering' if self.healed else 'closed'} {self.row} in a row>"

    def admit(self, now: float, dice: float) -> bool:
        """Whether one more call may go there. A yes while it is half-open is the probe: it must be recorded, or forgotten.

        dice: uniform in [0, 1)."""
        if self.open:
            if now < self.until or self.probing:
                return False
            self.probing = now
            return True
        if self.healed:
            grown = (now - self.healed) / self.terms.recovery if self.terms.recovery else 1.0
            if grown >= 1.0:
                self.healed, self.opened = 0.0, 0
                return True
            return dice < max(grown, 0.1)
        return True

    def knock(self, now: float, *, held: bool = True) -> bool:
        """As `admit`, for callers who have nobody else to ask: one real call every second finds out. `held`: by whatever."""
        if self.terms.panic or not (self.open or held):
            return True
        if self.probing or now - self.knocked < self.terms.knock:
            return False
        self.probing = self.knocked = now
        return True

    def succeed(self, now: float) -> bool:
        """Records a good call; whether that closed the breaker. A call that was under way when it opened closes nothing."""
        self.row = 0
        if now - self.half > self.terms.window / 2:
            self._turn(now)
        self.good += 1
        if not self.open:
            self.probing = 0.0
        if not self.probing:
            return False
        self.open, self.probing, self.until = False, 0.0, 0.0
        self.healed = now
        self.good = self.bad = self.was_good = self.was_bad = 0
        return True

    def fail(self, now: float) -> bool:
        """Records a failed call; whether that opened the breaker."""
        terms = self.terms
        self.row += 1
        if now - self.half > terms.window / 2:
            self._turn(now)
        self.bad += 1
        if not self.open:
            self.probing = 0.0
        elif not self.probing:
            return False  # it was under way when the breaker opened: nothing new
        bad, calls = self.bad + self.was_bad, self.bad + self.was_bad + self.good + self.was_good
        trips = 0 < terms.consecutive <= self.row or (calls >= terms.volume and bad >= terms.ratio * calls)
        if not terms.enabled or not (self.open or self.healed or trips):
            return False
        self.trip(now)
        return True

    def trip(self, now: float, seconds: float | None = None) -> None:
        """Opens it, for longer each time; `seconds`: as another process found."""
        terms = self.terms
        if seconds is None or not self.open:
            self.opened += 1
        self.open, self.probing, self.healed = True, 0.0, 0.0
        self.until = now + (min(terms.ejection * self.opened, terms.cap) if seconds is None else seconds)
        self.knocked = now

    def close(self, now: float) -> None:
        """As another process found."""
        if self.open:
            self.open, self.probing, self.until, self.row, self.healed = False, 0.0, 0.0, 0, now

    def forget(self) -> None:
        """The probe came to nothing that tells of the upstream: its client left, or sent what nobody could answer."""
        self.probing = 0.0

    def _turn(self, now: float) -> None:
        """The next half window begins."""
        stale = now - self.half > self.terms.window
        self.was_good, self.was_bad = (0, 0) if stale else (self.good, self.bad)
        self.good = self.bad = 0
        self.half = now
