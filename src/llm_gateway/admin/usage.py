"""`GET /admin/v1/usage`, `/admin/v1/usage/rows`, `/admin/v1/usage/export`: who used what, and what it cost.

    /admin/v1/usage?group_by=tenant,model&since=7d&tenant=acme

Law: reads. A key with the scope `read` or `admin` sees its own tenant's alone, whatever it asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llm_gateway.admin import exporting, questions
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.roles import Caller
from llm_gateway.admin.tenancy import Ground
from llm_gateway.stores.sql import asking

PATH = "/admin/v1/usage"
Said = Mapping[str, list[str]]


async def sums(engine: AsyncEngine, said: Said, usage_days: int) -> dict[str, Any]:
    """ValueError for what cannot be asked."""
    return questions.sums(await asking.ask(engine, questions.question(said, now(), usage_days)))


async def rows(engine: AsyncEngine, said: Said, usage_days: int) -> dict[str, Any]:
    """The newest first; `next_cursor` is null on the last page. ValueError for what cannot be asked."""
    question = questions.question(said, now(), usage_days, paged="cursor")
    found = await asking.page(engine, question, questions.behind(said))
    more = len(found) == question.limit
    return {"data": [questions.row(each) for each in found], "next_cursor": questions.cursor(found[-1]) if more else None}


class Usage:
    """days: how long rows are kept."""

    def __init__(self, ground: Ground, engine: AsyncEngine, days: Callable[[], int]) -> None:
        self._ground = ground
        self._engine = engine
        self._days = days

    def routes(self) -> list[Route]:
        at = self._ground.route
        return [*at(PATH, GET=self.sums), *at(f"{PATH}/rows", GET=self.rows), *at(f"{PATH}/export", GET=self.export)]

    async def sums(self, request: Request, caller: Caller) -> Response:
        try:
            return JSONResponse(await sums(self._engine, _said(request, caller), self._days()))
        except ValueError as error:
            raise _unclear(error) from error

    async def rows(self, request: Request, caller: Caller) -> Response:
        try:
            return JSONResponse(await rows(self._engine, _said(request, caller), self._days()))
        except ValueError as error:
            raise _unclear(error) from error

    async def export(self, request: Request, caller: Caller) -> Response:
        said = _said(request, caller)
        try:
            form = questions.one(said, "format") or "csv"
            if form not in exporting.FORMATS:
                raise ValueError(f"format: expected {', '.join(exporting.FORMATS)}")
            question = questions.question(said, now(), self._days(), paged="format")
            made = exporting.writer(form)
        except ValueError as error:
            raise _unclear(error) from error
        except ImportError as error:
            raise Refusal(501, "not_installed", str(error)) from error
        await asking.page(self._engine, replace(question, limit=1), None)  # what fails is to fail before the reply has begun
        headers = {"content-disposition": f'attachment; filename="usage.{form}"'}
        return StreamingResponse(exporting.export(self._engine, question, made), media_type=exporting.TYPES[form], headers=headers)


def now() -> float:
    """Unix seconds."""
    return time.time_ns() / 1e9


def _said(request: Request, caller: Caller) -> Said:
    said = {name: request.query_params.getlist(name) for name in request.query_params}
    return said if caller.tenant is None else said | {"tenant": [caller.tenant]}


def _unclear(error: ValueError) -> Refusal:
    param, colon, _ = str(error).partition(":")
    return Refusal(400, "invalid_request", f"{error}.", param if colon else None)
