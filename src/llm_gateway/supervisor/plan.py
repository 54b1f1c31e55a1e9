"""What the supervisor is told to run: plain values, as JSON in an inherited descriptor.

Law: standard library only, and no word of configuration; the command line turns configuration into this.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from llm_gateway.supervisor import boot


@dataclass(frozen=True)
class Address:
    """A TCP address, or a Unix socket if `path` is set. `setting` names what the user would change."""

    host: str = ""
    port: int = 0
    path: str | None = None
    setting: str = ""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`worker`, `operator`: argv up to what the supervisor adds. `snapshot`, `state`: inherited boot descriptors.
    `helper`: its argv; empty: there is none.

    Times in seconds. `banner` is printed once, when the first worker serves, with `{port}` and `{metrics_port}` put in; it
    may hold a key, so it is not logged. `quiet`: only what went wrong is logged.
    """

    workers: int
    listeners: tuple[Address, ...]
    metrics: Address
    worker: tuple[str, ...]
    operator: tuple[str, ...]
    snapshot: int
    state: int
    lame_duck: float
    drain_timeout: float
    log_format: str = "json"
    quiet: bool = False
    banner: str = ""
    helper: tuple[str, ...] = ()


def encode(plan: Plan) -> bytes:
    return json.dumps(asdict(plan)).encode()


def decode(data: bytes) -> Plan:
    fields = json.loads(data)
    fields["listeners"] = tuple(Address(**each) for each in fields["listeners"])
    fields["metrics"] = Address(**fields["metrics"])
    fields["worker"] = tuple(fields["worker"])
    fields["operator"] = tuple(fields["operator"])
    fields["helper"] = tuple(fields["helper"])
    return Plan(**fields)


def take(fd: int) -> Plan:
    """Reads the plan and closes its descriptor: it may hold a key, and nobody needs it twice."""
    plan = decode(boot.read(fd))
    os.close(fd)
    return plan
