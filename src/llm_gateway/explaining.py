"""A request that is only asked about: read as any other, then explained instead of sent.

Law: the same stages as `pipeline`, up to routing; nothing is taken, sent, counted or written.
"""

from __future__ import annotations

from time import time_ns
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway import wiring
from llm_gateway.admission.access import Admission
from llm_gateway.admission.directory import Directory
from llm_gateway.admission.seals import Seals
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Client, Exchange, Principal, Route
from llm_gateway.ingress.routes import match
from llm_gateway.models.catalogue import Catalogue
from llm_gateway.routing.explain import explain
from llm_gateway.routing.table import Table
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.pool import Pool

NO_ROUTE = Route("unknown", "openai_chat", "other")


class _Nobody:
    """Where nothing is sent."""

    alive = True
    paused = False
    sink: Any = None

    def send(self, data: bytes) -> None: ...
    def hold(self, x: Exchange, size: int) -> bool:
        return False

    def release(self, x: Exchange) -> None: ...
    def finish(self, x: Exchange, data: bytes) -> None: ...
    def abort(self, x: Exchange) -> None: ...


class Asked(Struct, frozen=True):
    """A POST of `body` to `path` by the client's key of that name or id; "": nobody's in particular. `at`: where it stands in the key table, if
    it was made at run time."""

    path: str
    headers: dict[str, str]
    body: bytes
    key: str = ""
    at: bytes = b""


class _Unwritten:
    """No journal."""

    full = False


def by_configuration(snapshot: Snapshot, catalogue: Catalogue, asked: Asked, directory: Directory | None = None) -> dict[str, Any]:
    """As `explained`, of a gateway that has just started and called nobody yet. directory: who was made at run time, where that is known."""
    table = wiring.table(snapshot, catalogue, Metrics(), Pool(memoryview(bytearray(1))))
    return explained(Admission(wiring.keys(snapshot, directory), wiring.formats(), _Unwritten(), Seals(snapshot.secret)), table, asked)


def explained(admission: Admission, routing: Table, asked: Asked) -> dict[str, Any]:
    """What `routing.explain` says of it."""
    client: Client = _Nobody()
    x = Exchange(
        id="explain", client=client, route=NO_ROUTE, method=b"POST", path=asked.path.encode(), body=asked.body, wall=time_ns() / 1e9,
        headers={name.lower().encode(): value.encode() for name, value in asked.headers.items()},
    )  # fmt: skip
    try:
        x.route, x.params = match(x.method, x.path)
        if not x.route.body:
            raise Fault(Kind.INVALID, "The gateway answers that path itself: it goes nowhere.", param="path")
        x.principal = _principal(admission, asked, x.wall)
        admission.read(x)
    except Fault as fault:
        refusal = {"status": fault.kind.status, "code": fault.code, "message": fault.message, "param": fault.param, "retry_after": None}
        return {"model": x.model, "order": [], "excluded": [], "elsewhere": {}, "refusal": refusal}
    return explain(routing, x)


def _principal(admission: Admission, asked: Asked, wall: float) -> Principal | None:
    if not asked.key:
        return None
    found = admission.named(asked.key, asked.at, wall)
    if found is None:
        raise Fault(Kind.NOT_FOUND, f"There is no client key named {asked.key[:100]!r}.", param="key")
    return replace(found, signs=False)  # who only asks has signed nothing
