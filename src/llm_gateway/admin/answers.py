"""How the admin API hears and answers: bodies judged by their section, refusals in one shape, a database that is away.

    {"error": {"message": ..., "code": ..., "param": ...}, "errors": [...]}      `errors`: each field that is wrong

Law: knows no resource. Messages name fields and never repeat a value, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llm_gateway.config.problems import explain
from llm_gateway.config.values import Section
from llm_gateway.core.errors import Fault
from llm_gateway.stores.sql.directory import InUseError, MissingError, TakenError
from llm_gateway.stores.sql.engine import away, unfit

MOST_BODY = 1 << 20
MOST_LISTED, LISTED = 1000, 100

Body = TypeVar("Body", bound=Section)
Answer = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """What is answered instead. `errors`: by field, if several are wrong."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.errors = errors

    def response(self) -> Response:
        body: dict[str, object] = {"error": {"message": self.message, "code": self.code, "param": self.param}}
        if self.errors:
            body["errors"] = [{"param": param, "message": message} for param, message in self.errors]
        headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(self.status)
        return JSONResponse(body, self.status, headers)


class Page(Struct, frozen=True):
    """`after`: the last one of the page before; `most`: on this one."""

    after: str
    most: int


def answered(answer: Answer) -> Answer:
    """Turns what may go wrong anywhere below into its answer."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except Refusal as refusal:
            return refusal.response()
        except Fault as fault:
            return Refusal(fault.kind.status, fault.code, fault.message, fault.param).response()
        except MissingError:
            return Refusal(404, "not_found", "There is no such record.").response()
        except TakenError:
            return Refusal(409, "exists", "There is one of that name already.", "name").response()
        except InUseError as error:
            message = f"{error.keys} keys belong to it. Delete them first, or all at once with `?cascade=true`."
            return Refusal(409, "in_use", message).response()
        except (SQLAlchemyError, OSError) as error:
            if unfit(error):  # PostgreSQL takes no NUL, and no number beyond its columns
                return Refusal(400, "invalid_request", "There is something in it that no record holds.").response()
            if not away(error):
                raise
            return Refusal(503, "database_unavailable", "The database does not answer at the moment; nothing was changed.").response()

    return told


async def fields(request: Request) -> dict[str, Any]:
    """The body: a JSON object of at most 1 MiB; nothing is an empty one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            raise Refusal(413, "request_too_large", f"The body is over {MOST_BODY >> 20} MiB.")
    try:
        found = msgspec.json.decode(body or b"{}")
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested beyond all measure
        raise Refusal(400, "invalid_request", f"The body is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise Refusal(400, "invalid_request", "The body is no JSON object.")
    return found


def judged(section: type[Body], said: Mapping[str, Any]) -> Body:
    """Raises Refusal with everything that is wrong."""
    try:
        return section.model_validate(said)
    except ValidationError as error:
        problems = [problem for _, problem in explain(error, {}, section)]
        errors = tuple((each.path, f"{each.message}{f' ({each.hint})' if each.hint else ''}") for each in problems)
        param, message = errors[0]
        raise Refusal(400, "invalid_request", f"{param}: {message}." if param else f"{message}.", param or None, errors) from error


def merged(before: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, all else is replaced, null removes."""
    if not isinstance(patch, dict):
        return patch
    made = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


def page(request: Request) -> Page:
    said = request.query_params.get("limit", str(LISTED))
    if not said.isdecimal() or not 1 <= int(said) <= MOST_LISTED:
        raise Refusal(400, "invalid_request", f"limit: expected a number from 1 to {MOST_LISTED}.", "limit")
    return Page(request.query_params.get("after", ""), int(said))


def known(request: Request, *names: str) -> None:
    """Raises Refusal for a query parameter that nobody looks at: a filter that does nothing shows too much."""
    for name in request.query_params:
        if name not in names:
            raise Refusal(400, "invalid_request", f"{name[:100]}: unknown parameter; known here: {', '.join(names)}.", name[:100])


def listed(shown: Iterable[dict[str, Any]], asked: Page, by: str) -> Response:
    """One page. shown: in order, one more than are asked for where there are more. by: what `after` is of."""
    rows = list(shown)
    more = len(rows) > asked.most
    rows = rows[: asked.most]
    return JSONResponse({"data": rows, "next": rows[-1][by] if more else None})


def flag(request: Request, name: str) -> bool | None:
    said = request.query_params.get(name)
    if said not in (None, "true", "false"):
        raise Refusal(400, "invalid_request", f"{name}: expected true or false.", name)
    return None if said is None else said == "true"
