"""`GET /admin/v1/usage`, `/admin/v1/usage/rows`, `/admin/v1/usage/export`: who used what, and what it cost.

    /admin/v1/usage?group_by=tenant,model&since=7d&tenant=acme

Law: reads. A database that is away is 503; a question that cannot be understood is 400 and says why.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from llm_gateway.admin import exporting, questions
from llm_gateway.stores.sql import asking

Said = Mapping[str, list[str]]


async def sums(engine: AsyncEngine, said: Said, usage_days: int) -> dict[str, Any]:
    """ValueError for what cannot be asked."""
    return questions.sums(await asking.ask(engine, questions.question(said, _now(), usage_days)))


async def rows(engine: AsyncEngine, said: Said, usage_days: int) -> dict[str, Any]:
    """The newest first; `next_cursor` is null on the last page."""
    question = questions.question({name: said[name] for name in said if name != "group_by"}, _now(), usage_days, paged="cursor")
    found = await asking.page(engine, question, questions.behind(said))
    more = len(found) == question.limit
    return {"data": [questions.row(each) for each in found], "next_cursor": questions.cursor(found[-1]) if more else None}


class Usage:
    """days: how long rows are kept."""

    def __init__(self, engine: AsyncEngine, days: int) -> None:
        self.days = days
        self._engine = engine

    async def sums(self, request: Request) -> Response:
        return await self._answered(sums, request)

    async def rows(self, request: Request) -> Response:
        return await self._answered(rows, request)

    async def export(self, request: Request) -> Response:
        said = _said(request)
        form = (said.get("format") or ["csv"])[0]
        try:
            if form not in exporting.FORMATS:
                raise ValueError(f"format: expected {', '.join(exporting.FORMATS)}")
            question = questions.question(said, _now(), self.days)
            made = exporting.writer(form)
        except ValueError as error:
            return _refused(400, "invalid_request", str(error))
        except ImportError as error:
            return _refused(501, "not_installed", str(error))
        name = f'attachment; filename="usage.{form}"'
        return StreamingResponse(
            exporting.export(self._engine, question, made), media_type=exporting.TYPES[form], headers={"content-disposition": name}
        )

    async def _answered(self, answer: Any, request: Request) -> Response:
        try:
            return JSONResponse(await answer(self._engine, _said(request), self.days))
        except ValueError as error:
            return _refused(400, "invalid_request", str(error))
        except (SQLAlchemyError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            return _refused(503, "database_away", f"The database does not answer: {type(cause).__name__}. Ask again in a moment.")


def _said(request: Request) -> dict[str, list[str]]:
    return {name: request.query_params.getlist(name) for name in request.query_params}


def _refused(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": code}}, status)


def _now() -> float:
    return time.time_ns() / 1e9
