"""`POST /admin/v1/cache/purge`: has every worker take replies out of its cache.

    {"tenant": "acme", "model": "gpt-4", "tag": "batch"}

Law: what is named must all be true of a reply; an empty object is everything. Answers with how many workers were told. They do it in the
order they hear it, so that no request that comes after finds what is gone.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llm_gateway.admin.fleet import Fleet
from llm_gateway.supervisor.channel import Purge


class Asked(Struct, forbid_unknown_fields=True):
    tenant: str | None = None
    model: str | None = None
    tag: str | None = None


_decode = msgspec.json.Decoder(Asked).decode


async def purge(fleet: Fleet, request: Request) -> Response:
    body = await request.body()
    try:
        asked = _decode(body or b"{}")
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
        return JSONResponse({"error": {"message": f"{error}.", "code": "invalid_request"}}, 400)
    return JSONResponse({"workers": fleet.purge(Purge(asked.tenant, asked.model, asked.tag))})
