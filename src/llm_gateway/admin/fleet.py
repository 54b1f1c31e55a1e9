"""The workers as the operator sees them: who is linked, what each reported last, what all of them add up to.

Law: no I/O of its own; links are handed in and only `send` is called on them.

Invariants
- A worker that says `Hello` with an older generation is sent the newest snapshot; a newer one than ours cannot be, since
  only the operator makes them. Then it hears the newest cloud credentials, if there are any.
- What dead workers counted stays counted (telemetry/exposition.py); their gauges and health do not.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_gateway.config.snapshot import Snapshot
from llm_gateway.supervisor.channel import Credentials, Found, Hello, Load, Mean, OperatorLink, Report, Up
from llm_gateway.telemetry.exposition import Merger


class Member(Struct):
    """One link. `pid` 0: it has not said hello."""

    index: int
    link: OperatorLink | None = None
    pid: int = 0
    generation: int = 0
    report: Report | None = None


class Fleet:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._members: dict[int, Member] = {}  # by link
        self._pids: dict[int, int] = {}
        self._granted = Credentials({})
        self._merger = Merger()
        self.restarts = 0
        self.draining = False

    def join(self, index: int, key: int, link: OperatorLink) -> None:
        """A new link to worker `index`; `key` tells links apart."""
        member = self._members.setdefault(key, Member(index))
        member.link = link
        self._update(member)
        self._grant(member)

    def hear(self, index: int, key: int, message: Up) -> None:
        member = self._members.setdefault(key, Member(index))
        match message:
            case Hello():
                if self._pids.get(index, message.pid) != message.pid:
                    self.restarts += 1
                self._pids[index] = member.pid = message.pid
                member.generation = message.generation
                self._update(member)
                self._grant(member)
            case Report():
                member.pid, member.generation, member.report = message.pid, message.generation, message
                self._merger.feed(message)

    def lose(self, index: int, key: int) -> None:
        member = self._members.pop(key, None)
        if member is not None:
            self._merger.forget(index, member.pid)

    def load(self, snapshot: Snapshot) -> None:
        """All workers serve by this from now on."""
        self._snapshot = snapshot
        for member in self._members.values():
            self._update(member)

    def grant(self, keys: dict[str, str]) -> None:
        """All workers call these providers with these credentials from now on."""
        self._granted = Credentials(keys)
        for member in self._members.values():
            self._grant(member)

    def balance(self) -> None:
        """Tells everybody the mean, so that whoever is far above it sheds."""
        reports = self.reports()
        if len(reports) < 2:
            return
        mean = Mean(sum(report.connections for report in reports) / len(reports))
        for member in self._members.values():
            if member.link is not None:
                member.link.send(mean)

    def inform(self, redis: bool | None) -> None:
        """Tells everybody what only the operator can see. Again and again, so that a restarted worker soon knows."""
        found = Found(redis)
        for member in self._members.values():
            if member.link is not None:
                member.link.send(found)

    def reports(self) -> list[Report]:
        return [member.report for member in self._members.values() if member.report is not None]

    def serving(self) -> int:
        """Workers that are linked and have said so."""
        return sum(member.pid != 0 for member in self._members.values())

    def generations(self) -> list[int]:
        return sorted(member.generation for member in self._members.values() if member.pid)

    def providers(self) -> list[dict[str, object]]:
        """The brief's list: healthy if any worker finds it so, latency the mean of those that know, else null."""
        shown: list[dict[str, object]] = []
        reports = self.reports()
        for provider in self._snapshot.providers:
            said = [report.providers[provider.name] for report in reports if provider.name in report.providers]
            known = [latency for _, latency in said if latency is not None]
            healthy = any(ok for ok, _ in said) or not said
            latency = round(sum(known) / len(known)) if known else None
            shown.append({"name": provider.name, "healthy": healthy, "latency_ms": latency})
        return shown

    def metrics(self, extra: Mapping[str, Mapping[str, float]], *, openmetrics: bool) -> str:
        return self._merger.render(extra, openmetrics=openmetrics)

    def _update(self, member: Member) -> None:
        if member.link is not None and member.pid and member.generation < self._snapshot.generation:
            member.link.send(Load(self._snapshot))

    def _grant(self, member: Member) -> None:
        if member.link is not None and member.pid and self._granted.keys:
            member.link.send(self._granted)
