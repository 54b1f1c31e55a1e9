"""The workers as the operator sees them: who is linked, what each reported last, what all of them add up to.

Law: no I/O of its own; links are handed in and only `send` is called on them.

Invariants
- A worker that says `Hello` with an older generation is sent the newest snapshot; a newer one than ours cannot be, since
  only the operator makes them. Then it hears the newest cloud credentials, if there are any, the changes that still hold, which
  tables there are and what changed since.
- What one worker found out is told to all others, and never back to it.
- What dead workers counted stays counted (telemetry/exposition.py); their gauges and health do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.policies.standing import Standing
from llm_gateway.supervisor.channel import (
    Answer,
    Changed,
    Credentials,
    Delta,
    Found,
    Hello,
    Keysets,
    Load,
    Mean,
    OperatorLink,
    Probed,
    Purge,
    Question,
    Report,
    Tables,
    Told,
    Up,
    Wanted,
)
from llm_gateway.telemetry.exposition import Merger
from llm_gateway.telemetry.vitals import joint

Health = dict[str, tuple[bool, float | None]]


class Member(Struct):
    """One link. `pid` 0: it has not said hello. `probed`: what it was told last of the operator's probes; `spent`: it
    knows what was spent."""

    index: int
    link: OperatorLink | None = None
    pid: int = 0
    generation: int = 0
    report: Report | None = None
    probed: Health | None = None
    spent: bool = False


class Fleet:
    """on_change, on_told: what workers tell; on_wanted: the issuer of a key they do not know; on_restart: a worker's index and the new
    process; on_join: one has said hello, and what its predecessor spent is to be known before it is told what was spent."""

    def __init__(
        self, snapshot: Snapshot, on_change: Callable[[list[Change]], None], on_restart: Callable[[int, int], None],
        *, on_told: Callable[[Told], None] | None = None, on_join: Callable[[], None] | None = None,
        on_wanted: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._snapshot = snapshot
        self._on_change = on_change
        self._on_restart = on_restart
        self._on_told = on_told
        self._on_join = on_join
        self._on_wanted = on_wanted
        self._keysets = Keysets({})
        self._standing = Standing()
        self._probed: Health = {}
        self._members: dict[int, Member] = {}  # by link
        self._pids: dict[int, int] = {}
        self._granted = Credentials({})
        self._tables = Tables("", 0)
        self._deltas: list[Delta] = []
        self._merger = Merger()
        self._asked: dict[int, Callable[[bytes], object]] = {}
        self._serial = 0
        self.restarts = 0
        self.draining = False

    def join(self, index: int, key: int, link: OperatorLink) -> None:
        """A new link to worker `index`; `key` tells links apart."""
        member = self._members.setdefault(key, Member(index))
        member.link = link
        self._welcome(member)

    def hear(self, index: int, key: int, message: Up) -> None:
        member = self._members.setdefault(key, Member(index))
        match message:
            case Hello():
                if self._pids.get(index, message.pid) != message.pid:
                    self.restarts += 1
                    self._on_restart(index, message.pid)
                self._pids[index] = member.pid = message.pid
                member.generation = message.generation
                self._welcome(member)
                if self._on_join is not None:
                    self._on_join()
            case Report():
                member.pid, member.generation, member.report = message.pid, message.generation, message
                self._merger.feed(message)
            case Answer(serial, body):
                waiting = self._asked.pop(serial, None)
                if waiting is not None:
                    waiting(body)
            case Changed(changes):
                self.change(changes, by=key)
                self._on_change(changes)
            case Told():
                if self._on_told is not None:
                    self._on_told(message)
            case Wanted(issuer):
                if self._on_wanted is not None:
                    self._on_wanted(issuer)

    def lose(self, index: int, key: int) -> None:
        member = self._members.pop(key, None)
        if member is not None:
            self._merger.forget(index, member.pid)

    def load(self, snapshot: Snapshot) -> None:
        """All workers serve by this from now on. What was found out about providers that it changes is forgotten."""
        before = {each.name: each for each in self._snapshot.providers}
        after = {each.name: each for each in snapshot.providers}
        self._standing.forget(name for name, each in before.items() if after.get(name) != each)
        self._snapshot = snapshot
        for member in self._members.values():
            self._update(member)

    def grant(self, keys: dict[str, str]) -> None:
        """All workers call these providers with these credentials from now on. What was found out about others is forgotten."""
        self._standing.forget(name for name, key in keys.items() if self._granted.keys.get(name) != key)
        self._granted = Credentials(keys)
        for member in self._members.values():
            self._grant(member)

    def keysets(self, sets: dict[str, str]) -> None:
        """All workers check tokens by these from now on."""
        self._keysets = Keysets(dict(sets))
        for member in self._members.values():
            if member.link is not None and member.pid:
                member.link.send(self._keysets)

    def table(self, keys: str, serial: int, *, anew: bool = False) -> None:
        """All workers look keys up in this from now on. Deltas that it holds are forgotten; anew: all of them."""
        self._tables = Tables(keys, serial, self._tables.spend)
        self._deltas = [] if anew else [each for each in self._deltas if each.serial > serial]
        for member in self._members.values():
            self._refer(member)

    def absent(self) -> None:
        """Nobody need wait for a table: there is none to be had for now."""
        self._tables = structs.replace(self._tables, absent=True)
        for member in self._members.values():
            self._refer(member)

    def spend(self, name: str) -> None:
        """All workers look up in this what was spent, from now on."""
        self._tables = structs.replace(self._tables, spend=name)
        told = Tables("", self._tables.serial, name)  # of keys nothing: a new file may have that name, and only `_refer` says what it lacks
        for member in self._members.values():
            if member.link is not None and member.pid:
                member.spent = member.link.send(told)

    def differ(self, delta: Delta) -> None:
        """All workers know this beside the table from now on."""
        self._deltas.append(delta)
        for member in self._members.values():
            if member.link is not None and member.pid:
                member.link.send(delta)

    @property
    def differences(self) -> int:
        """Entries that the table does not hold yet."""
        return sum(len(each.entries) for each in self._deltas)

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

    def change(self, changes: list[Change], by: int | None = None) -> None:
        """Tells everybody but the link `by`, and keeps it for those that come."""
        self._standing.note(changes, time.monotonic())
        told = Changed(changes)
        for key, member in self._members.items():
            if key != by and member.link is not None and member.pid:
                member.link.send(told)

    def ask(
        self, path: str, headers: dict[str, str], body: bytes, key: tuple[str, bytes], told: Callable[[bytes], object]
    ) -> Callable[[], object] | None:
        """Has a worker say where a request would go; `told` hears its JSON. key: its name, and where it stands in the key table. Returns how to
        stop waiting; None if there is no worker."""
        link = next((member.link for member in self._members.values() if member.link is not None and member.pid), None)
        if link is None:
            return None
        self._serial += 1
        serial = self._serial
        self._asked[serial] = told
        link.send(Question(serial, path, headers, body, *key))
        return lambda: self._asked.pop(serial, None)

    def purge(self, order: Purge) -> int:
        """Tells every worker; returns how many those are. One that comes later has an empty cache."""
        told = [member.link.send(order) for member in self._members.values() if member.link is not None]
        return sum(told)

    def probed(self, found: Health) -> None:
        """Tells whoever does not know it yet; one that was behind, or came later, when this is called again."""
        self._probed = found
        for member in self._members.values():
            if member.link is not None and member.pid and member.probed != found and member.link.send(Probed(found)):
                member.probed = found

    def reports(self) -> list[Report]:
        return [member.report for member in self._members.values() if member.report is not None]

    def serving(self) -> int:
        """Workers that are linked and have said so."""
        return sum(member.pid != 0 for member in self._members.values())

    def generations(self) -> list[int]:
        return sorted(member.generation for member in self._members.values() if member.pid)

    def providers(self) -> list[dict[str, object]]:
        """The brief's list: healthy if any worker finds it so, latency the mean of those that know, else null; and as probes say."""
        shown: list[dict[str, object]] = []
        reports = self.reports()
        for provider in self._snapshot.providers:
            said = [report.providers[provider.name] for report in reports if provider.name in report.providers]
            known = [latency for _, latency in said if latency is not None]
            passive = any(ok for ok, _ in said) or not said, sum(known) / len(known) if known else None
            healthy, latency = joint(passive, self._probed.get(provider.name))
            shown.append({"name": provider.name, "healthy": healthy, "latency_ms": None if latency is None else round(latency)})
        return shown

    def metrics(self, extra: Mapping[str, Mapping[str, float]], *, openmetrics: bool) -> str:
        return self._merger.render(extra, openmetrics=openmetrics)

    def _welcome(self, member: Member) -> None:
        self._update(member)
        self._grant(member)
        self._refer(member)
        if member.link is not None and member.pid and self._keysets.sets:
            member.link.send(self._keysets)
        holding = self._standing.holding(time.monotonic())
        if member.link is not None and member.pid and holding:
            member.link.send(Changed(holding))

    def _update(self, member: Member) -> None:
        if member.link is not None and member.pid and member.generation < self._snapshot.generation:
            member.link.send(Load(self._snapshot))

    def _grant(self, member: Member) -> None:
        if member.link is not None and member.pid and self._granted.keys:
            member.link.send(self._granted)

    def _refer(self, member: Member) -> None:
        if member.link is not None and member.pid and (self._tables.keys or self._tables.absent):
            spend = self._tables.spend if member.spent else ""
            member.link.send(structs.replace(self._tables, spend=spend, since=tuple(self._deltas)))
