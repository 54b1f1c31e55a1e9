"""`GET /admin/v1/audit`: what the audit log says, the newest first, and whether it is what was written.

    /admin/v1/audit?since=7d&kind=change&actor=admin%20token&action=/admin/v1/keys&tenant=acme&limit=100

Law: reads files, in a thread; needs no database. A key with the scope `admin` or `read` sees what its own tenant's lines say, and nothing of the
chain, which is everybody's. The whole chain is checked for a first page, at most once in a while; `verify=false` leaves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_gateway.admin import answers, questions
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.roles import Caller
from llm_gateway.telemetry.audit import Found, verify
from llm_gateway.telemetry.trail import Page, Wanted, page

PATH = "/admin/v1/audit"
KINDS = ("change", "refused", "request", "reload")
VERIFIED_FOR = 60.0  # seconds
HIDDEN = ("seq", "prev", "hash", "at")  # from a tenant: they tell of others


class Trail:
    """caller: who asks; raises Refusal. clock: Unix seconds. secret: the gateway's."""

    def __init__(self, data_dir: Path, secret: bytes, gateway: str, caller: Callable[[Request], Caller], clock: Callable[[], float]) -> None:
        self._directory = data_dir / "audit"
        self._secret = secret
        self._gateway = gateway
        self._caller = caller
        self._clock = clock
        self._checked: tuple[float, Found] | None = None
        self._checking = asyncio.Lock()

    def routes(self) -> list[Route]:
        return [Route(PATH, answers.answered(self._answer), methods=["GET"])]

    async def _answer(self, request: Request) -> Response:
        caller = self._caller(request)
        answers.known(request, "since", "until", "kind", "actor", "action", "tenant", "limit", "cursor", "verify")
        wanted, most, behind = self._asked(request, caller)
        found = await asyncio.to_thread(page, self._directory, wanted, most, behind)
        body: dict[str, Any] = {
            "gateway": self._gateway,
            "data": [_shown(line, caller) for line in found.lines],
            "next_cursor": _cursor(found),
        }
        if caller.tenant is None and not behind and answers.flag(request, "verify") is not False:
            body["verified"] = await self._verified()
        return JSONResponse(body)

    def _asked(self, request: Request, caller: Caller) -> tuple[Wanted, int, int]:
        said = request.query_params
        kind, cursor, limit = said.get("kind", ""), said.get("cursor", ""), answers.page(request).most
        if kind and kind not in KINDS:
            raise Refusal(400, "invalid_request", f"kind: expected {', '.join(KINDS)}.", "kind")
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise Refusal(400, "invalid_request", "cursor: is none that this gateway gave.", "cursor")
        tenant = said.get("tenant", "")
        if caller.tenant is not None:
            caller.sees(tenant or caller.tenant)
            tenant = caller.tenant
        since, until = (self._moment(said.get(name, ""), name) for name in ("since", "until"))
        return Wanted(since, until, kind, said.get("actor", ""), said.get("action", ""), tenant), limit, int(cursor or 0)

    def _moment(self, text: str, name: str) -> str:
        try:
            at = questions.moment(text.strip(), self._clock(), name)
        except ValueError as error:
            raise Refusal(400, "invalid_request", f"{error}.", name) from error
        return questions.stamp(at) if at is not None else ""

    async def _verified(self) -> dict[str, Any]:
        """What the check of the whole chain found, and when."""
        async with self._checking:
            now = self._clock()
            if self._checked is None or not 0 <= now - self._checked[0] < VERIFIED_FOR:
                self._checked = now, await asyncio.to_thread(verify, self._directory, self._secret)
        at, found = self._checked
        return {"holds": not found.broken, **msgspec.to_builtins(found), "checked": questions.stamp(int(at * 1000))}


def _cursor(found: Page) -> str | None:
    return str(found.behind) if found.behind else None


def _shown(line: dict[str, Any], caller: Caller) -> dict[str, Any]:
    return line if caller.tenant is None else {name: value for name, value in line.items() if name not in HIDDEN}
