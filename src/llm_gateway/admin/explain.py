"""`POST /admin/v1/explain`: where a request would go and why, by what a worker knows at this moment. Nothing is sent.

    {"request": {"model": "gpt-4", "messages": [...]}, "path": "/v1/chat/completions", "key": "backend", "headers": {"x-gateway-tags": "batch"}}

Law: waits for one worker's answer, at most two seconds; the worker takes nothing for it.
"""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llm_gateway.admin.fleet import Fleet

PATIENCE = 2.0
MOST_BODY = 8 << 20
CHAT = "/v1/chat/completions"


class Asked(Struct, forbid_unknown_fields=True):
    """`key`: the name of the client's key that would ask; nobody's in particular if empty."""

    request: Raw
    path: str = CHAT
    key: str = ""
    headers: dict[str, str] = {}


_decode = msgspec.json.Decoder(Asked).decode


async def explain(fleet: Fleet, request: Request) -> Response:
    body = await request.body()
    if len(body) > MOST_BODY:
        return _refused(413, f"The body is over {MOST_BODY >> 20} MiB.", "")
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        return _refused(400, f"{error}.", str(error).partition("`$.")[2].rstrip("`"))
    except msgspec.DecodeError as error:
        return _refused(400, f"The body is not valid JSON: {error}.", "")
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    stop = fleet.ask(asked.path, asked.headers, bytes(asked.request), asked.key, partial(_tell, answer))
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
