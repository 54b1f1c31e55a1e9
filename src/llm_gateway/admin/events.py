"""What happened, told once: a line in the operator's log, a count, an entry in a ring for whoever asks, and to webhooks.

Law: no secret stands in an event. Workers find out the same thing at about the same time: what says the same of the same
provider, key and model within five seconds is one event, unless its opposite came between.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from secrets import token_hex

from llm_gateway.admin.notices import Notices
from llm_gateway.core.changes import Change
from llm_gateway.core.happenings import GRAVE, KINDS, Happening, Kind
from llm_gateway.policies.standing import Place, place

KEPT = 500
SAME = 5.0  # seconds
MOST_PLACES = 2000


class Events:
    """clock: Unix nanoseconds. offer: gets each event once."""

    def __init__(
        self, notices: Notices, offer: Callable[[Happening], None], clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._notices = notices
        self._offer = offer
        self._clock = clock
        self._gateway = socket.gethostname()
        self._ring: deque[Happening] = deque(maxlen=KEPT)
        self._counts = dict.fromkeys(KINDS, 0)
        self._said: dict[Place, tuple[Kind, int]] = {}
        self._last = 0

    def changes(self, changes: Iterable[Change]) -> None:
        """What workers or probes found out; names of keys and models stand in it only where it is about those."""
        now = self._clock()
        for change in changes:
            where = place(change)
            what, at = self._said.get(where, (None, 0))
            if change.what == what and now - at < SAME * 1e9:
                continue
            self._said[where] = change.what, now
            data = {"provider": change.provider, "key": change.key, "model": change.model, "reason": change.reason}
            told: dict[str, object] = {name: value for name, value in data.items() if value}
            self.tell(change.what, told | ({"seconds": round(change.seconds, 1)} if change.seconds else {}))
        if len(self._said) > MOST_PLACES:
            self._said = {where: said for where, said in self._said.items() if now - said[1] < SAME * 1e9}

    def tell(self, kind: Kind, data: dict[str, object], *, noticed: bool = False) -> None:
        """noticed: the log has its line already."""
        now = self._clock()
        self._last = max(self._last + 1, now)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03}Z"
        # Ids sort by time, so that `since` works for whoever kept one from before a restart.
        happening = Happening(f"evt_{self._last:016x}{token_hex(4)}", kind, stamp, self._gateway, data)
        self._ring.append(happening)
        self._counts[kind] += 1
        if not noticed:
            self._notices.say("warn" if kind in GRAVE else "info", kind, **data)
        self._offer(happening)

    def since(self, last: str, kind: str = "") -> list[Happening]:
        """Oldest first, later than the event with the id `last`."""
        return [each for each in self._ring if each.id > last and kind in ("", each.type)]

    def metrics(self) -> dict[str, dict[str, float]]:
        return {"llm_gateway_events_total": {f'event="{kind}"': count for kind, count in self._counts.items()}}
