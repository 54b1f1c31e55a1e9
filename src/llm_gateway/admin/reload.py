"""Reading the configuration again while everything runs: all of it takes effect, or none.

Law: an invalid file changes nothing, says everything that is wrong, and counts. What only a start can change (listening
addresses, number of workers, data_dir, secret, drain times, logging) keeps its running value, and that is said too.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from llm_gateway.admin.notices import Notices
from llm_gateway.config.aliases import Lookup
from llm_gateway.config.compile import Compiled, compile_snapshot, digest, divided
from llm_gateway.config.load import content, load
from llm_gateway.config.material import Material, prepare
from llm_gateway.config.problems import ConfigError, Problem
from llm_gateway.config.schema import Root
from llm_gateway.config.snapshot import Operator, Snapshot


class Outcome(Struct, frozen=True):
    """`errors` empty: it is in force (or was already: not `changed`)."""

    generation: int
    digest: str
    changed: bool = False
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Reloader:
    """Holds what is in force. `publish` hands a new one to everybody. `told`: of each that was refused or taken, and its cause."""

    def __init__(
        self,
        snapshot: Snapshot,
        state: Operator,
        *,
        environ: Mapping[str, str],
        lookup: Lookup,
        publish: Callable[[Snapshot, Operator], None],
        notices: Notices,
        told: Callable[[str, Outcome], None],
    ) -> None:
        self.snapshot = snapshot
        self.state = state
        self.failures = 0
        self.files = state.files or ({state.config: content(state.config)} if state.config is not None else {})
        self._environ = environ
        self._lookup = lookup
        self._publish = publish
        self._notices = notices
        self._told = told

    def reload(self, cause: str) -> Outcome:
        try:
            compiled, material, root = self._compile()
        except ConfigError as error:
            return self._refused(cause, tuple(map(str, error.problems)))
        except Exception as error:  # noqa: BLE001  a bug of ours: what is in force stays, and so does whoever looks for the next file
            traceback.print_exception(error, file=sys.stderr)
            return self._refused(cause, (f"{self.state.config}: cannot be used: {type(error).__name__}",))
        fresh, fixed = _keep_fixed(compiled, self.snapshot, material.secret)
        database = msgspec.structs.replace(compiled.database, url=self.state.database.url)
        if compiled.database.url != database.url:
            fixed.append("database.url: changed, in force after a restart")
        if self.state.metrics not in (None, watched_at(root)):
            fixed.append("server.metrics_host, server.metrics_port: changed, in force after a restart")
        state = msgspec.structs.replace(self.state, admin_token=material.admin_token, webhooks=compiled.webhooks, database=database)
        if fresh.digest == self.snapshot.digest and state == self.state:
            if fixed:  # whoever saved the file sees no outcome but this line
                self._notices.say(
                    "warn", "restart needed", cause=cause, generation=self.snapshot.generation, warnings=fixed
                )
            return Outcome(self.snapshot.generation, self.snapshot.digest, warnings=(*fixed, *compiled.warnings))
        self.snapshot, self.state = fresh, msgspec.structs.replace(state, files=self.files)
        self._publish(fresh, self.state)
        warnings = (*fixed, *compiled.warnings)
        self._notices.say(
            "info",
            "configuration reloaded",
            cause=cause,
            generation=fresh.generation,
            digest=fresh.digest,
            warnings=warnings,
        )
        taken = Outcome(fresh.generation, fresh.digest, changed=True, warnings=warnings)
        self._told(cause, taken)
        return taken

    def _refused(self, cause: str, errors: tuple[str, ...]) -> Outcome:
        self.failures += 1
        self._notices.say("error", "configuration refused", cause=cause, errors=errors, generation=self.snapshot.generation)
        refused = Outcome(self.snapshot.generation, self.snapshot.digest, errors=errors)
        self._told(cause, refused)
        return refused

    def _compile(self) -> tuple[Compiled, Material, Root]:
        loaded = load(self.state.config, self._environ)
        self.files = loaded.files
        if self.state.config is not None and not any(path and place.startswith(self.state.config) for path, place in loaded.where.items()):
            # A valid file, and what a writer leaves for a moment who truncates it first: everybody's keys would be gone.
            raise ConfigError([Problem(self.state.config, "", "is empty: what is in force stays; to run on defaults, restart")])
        material = prepare(loaded.root, self.snapshot.data_dir)
        generation = self.snapshot.generation + 1
        known = msgspec.structs.replace(material, secret=self.snapshot.secret)  # by which workers look up what is hashed now
        return compile_snapshot(loaded, self._environ, known, self._lookup, generation), material, loaded.root


def watched_at(root: Root) -> tuple[str, int]:
    """The operator's own address."""
    return root.server.metrics_host or root.server.host, root.server.metrics_port


def _keep_fixed(compiled: Compiled, running: Snapshot, secret: bytes) -> tuple[Snapshot, list[str]]:
    """What was compiled, with the running values of what cannot change; and a sentence for each that wanted to. secret: as it is said now."""
    fresh = compiled.snapshot
    before, after = _fixed(running), _fixed(fresh) | {"secret": secret}
    changed = [name for name, value in after.items() if value != before[name]]
    # Who may do without a key was judged by the addresses that are said now.
    shut = running.auth_required and not fresh.auth_required and fresh.server.listeners != running.server.listeners
    changed += ["auth.required"] if shut else []
    server = msgspec.structs.replace(
        fresh.server,
        listeners=running.server.listeners,
        lame_duck=running.server.lame_duck,
        drain_timeout=running.server.drain_timeout,
    )
    kept = msgspec.structs.replace(
        fresh, server=server, workers=running.workers, data_dir=running.data_dir, secret=running.secret,
        logging=running.logging, auth_required=fresh.auth_required or shut,
        providers=tuple(divided(each, _shares(fresh, running)) for each in compiled.whole),
        tenancy=msgspec.structs.replace(
            fresh.tenancy, shares=_shares(fresh, running), together=_together(fresh, running), apart=_apart(fresh, running)
        ),
    )  # fmt: skip
    kept = msgspec.structs.replace(kept, digest=digest(kept))
    return kept, [f"{name}: changed, in force after a restart" for name in changed]


def _shares(fresh: Snapshot, running: Snapshot) -> int:
    """By how many limits are divided, with as many workers as do run."""
    return _together(fresh, running) if fresh.redis is None else fresh.tenancy.shares


def _apart(fresh: Snapshot, running: Snapshot) -> tuple[Literal["limits", "budgets"], ...]:
    """What each of the workers that do run would count for itself."""
    if fresh.redis is None and fresh.workers != running.workers:
        return running.tenancy.apart
    return fresh.tenancy.apart


def _together(fresh: Snapshot, running: Snapshot) -> int:
    return fresh.tenancy.together * running.workers // fresh.workers


def _fixed(snapshot: Snapshot) -> dict[str, object]:
    """What only a start can change, by the options that say it."""
    return {
        "server.host, server.port, server.tls, server.unix_socket": snapshot.server.listeners,
        "workers": snapshot.workers,
        "data_dir": snapshot.data_dir,
        "secret": snapshot.secret,
        "logging": snapshot.logging,
        "drain": (snapshot.server.lame_duck, snapshot.server.drain_timeout),
    }


class Watch:
    """Notices that a file the configuration came from has another content than was read: by stat, then by hash, since ConfigMaps are
    swapped by symlink and editors replace files, which a file-system watch misses. What still changes from one look to the
    next is being written, and waited for."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._moving = self._stamp()
        self._tried = reloader.files

    def look(self) -> None:
        """Reloads if there is something new. A broken file is reported once, not each time."""
        stamps = self._stamp()
        still, self._moving = stamps == self._moving, stamps
        if stamps == self._stamps or not still:
            return
        self._stamps = stamps
        before = self._reloader.files
        found = {name: content(name) for name in before}
        if found in (self._tried, before):
            return
        self._reloader.reload("file change")
        # Not what stands there now: it may have been saved again while it was read.
        self._tried = self._reloader.files if self._reloader.files is not before else found

    def _stamp(self) -> dict[str, tuple[int, int, int] | None]:
        return {name: _stat(Path(name)) for name in self._reloader.files}


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
