"""`POST /admin/v1/explain`: where a request would go and why, by what a worker knows at this moment. Nothing is sent.

    {"request": {"model": "gpt-4", "messages": [...]}, "path": "/v1/chat/completions", "key": "backend", "headers": {"x-gateway-tags": "batch"}}

Law: waits for one worker's answer, at most two seconds; the worker takes nothing for it. Keys that were made at run time are looked up in the
database by name or id, and told to the worker by where they stand in its own table: what it says is what it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_gateway.admin import answers
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.fleet import Fleet
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.tenancy import Key, position
from llm_gateway.stores.sql.directory import MissingError, Register, Stored, Wanted

PATIENCE = 2.0
MOST_BODY = 8 << 20
MOST_NAMED = 5  # keys of one name that are told
CHAT = "/v1/chat/completions"


class Asked(Struct, forbid_unknown_fields=True):
    """`key`: the name or id of the client's key that would ask; nobody's in particular if empty."""

    request: Raw
    path: str = CHAT
    key: str = ""
    headers: dict[str, str] = {}


_decode = msgspec.json.Decoder(Asked).decode


class Explaining:
    """snapshot: in force. clock: Unix seconds."""

    def __init__(self, fleet: Fleet, register: Register, snapshot: Callable[[], Snapshot], clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._register = register
        self._snapshot = snapshot
        self._clock = clock

    def route(self, guard: Callable[[Callable[[Request], Any]], Callable[[Request], Any]]) -> Route:
        """guard: lets only the gateway's operator ask."""
        return Route("/admin/v1/explain", guard(answers.answered(self.answer)), methods=["POST"])

    async def answer(self, request: Request) -> Response:
        async def find(key: str) -> bytes:
            return await placed(key, self._snapshot(), self._register, self._clock())

        return await explain(self._fleet, request, find)


async def placed(key: str, snapshot: Snapshot, register: Register, now: float) -> bytes:
    """Where the key of that name or id stands in the key table; b"" for one of the configuration, and for one that nobody has. now: Unix
    seconds. Raises Refusal where several are called so, and SQLAlchemy's errors."""
    if not key or any(key in (each.name, each.id) for each in snapshot.keys):
        return b""
    try:
        found: list[Stored] = [await register.key(key, now)]
    except MissingError:
        found = await register.keys(Wanted(name=key), now, most=MOST_NAMED)
    if len(found) > 1:
        ids = ", ".join(each.record.id for each in found if isinstance(each.record, Key))
        raise Refusal(409, "ambiguous", f"key: several are called {key[:100]!r}; name one by its id: {ids}.", "key")
    return position(found[0].record) if found else b""


async def explain(fleet: Fleet, request: Request, find: Callable[[str], Any]) -> Response:
    body = await request.body()
    if len(body) > MOST_BODY:
        return _refused(413, f"The body is over {MOST_BODY >> 20} MiB.", "")
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        return _refused(400, f"{error}.", str(error).partition("`$.")[2].rstrip("`"))
    except (ValueError, RecursionError) as error:
        return _refused(400, f"The body is not valid JSON: {error}.", "")
    at = await find(asked.key)
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    stop = fleet.ask(asked.path, asked.headers, bytes(asked.request), (asked.key, at), partial(_tell, answer))
    if stop is None:
        return _refused(503, "No worker serves.", "")
    try:
        async with asyncio.timeout(PATIENCE):
            return Response(await answer, media_type="application/json")
    except TimeoutError:
        return _refused(504, "The worker did not answer in time.", "")
    finally:
        stop()


def _tell(answer: asyncio.Future[bytes], told: bytes) -> None:
    if not answer.done():
        answer.set_result(told)


def _refused(status: int, message: str, param: str) -> Response:
    return JSONResponse({"error": {"message": message, "param": param or None, "code": "invalid_request" if status < 500 else "unavailable"}}, status)
