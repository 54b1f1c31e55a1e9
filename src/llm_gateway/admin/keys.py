"""`/admin/v1/keys`: clients' keys.

    POST /admin/v1/keys {"name": "backend", "tenant": "acme"}          its secret stands in the answer, and nowhere else ever
    GET  /admin/v1/keys?tenant=acme&enabled=true                       filters: tenant, project, user, name, enabled
    GET, PATCH, DELETE /admin/v1/keys/key_0123456789abcdef
    POST /admin/v1/keys/key_0123456789abcdef/rotate {"overlap_seconds": 3600}
    POST /admin/v1/keys/key_0123456789abcdef/revoke

Law: as tenancy.py. A key is kept as its HMAC; an AWS secret is computed from its id and kept nowhere.
"""

from __future__ import annotations

import secrets
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_gateway.admin import answers, shown
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.roles import Caller
from llm_gateway.admin.tenancy import Ground, defined
from llm_gateway.admission.auth import AWS_PREFIX, PREFIX, aws_secret
from llm_gateway.config.schema_admin import KeyBody, NewKeyBody, RotationBody
from llm_gateway.config.tenancy import key_digest
from llm_gateway.core.tenancy import Key, Project, project_id
from llm_gateway.stores.sql.directory import MissingError, Stored, Wanted

PATH = "/admin/v1/keys"
ANYBODYS = "default"  # the tenant that need not be created
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class Made(Struct, frozen=True):
    """A new secret. `shown`: what its owner is told, once."""

    digest: bytes
    aws: str
    shown: dict[str, str]

    def __repr__(self) -> str:
        return "Made(...)"


class ClientKeys:
    """secret: of the gateway."""

    def __init__(self, ground: Ground, secret: bytes) -> None:
        self._ground = ground
        self._secret = secret

    def routes(self) -> list[Route]:
        at, one = self._ground.route, f"{PATH}/{{id}}"
        each = at(one, GET=self.show, PATCH=self.change, DELETE=self.delete)
        return [*at(PATH, GET=self.page, POST=self.create), *each, *at(f"{one}/rotate", POST=self.rotate), *at(f"{one}/revoke", POST=self.revoke)]

    async def page(self, request: Request, caller: Caller) -> Response:
        answers.known(request, "limit", "after", "tenant", "project", "user", "name", "enabled")
        asked, said = answers.page(request), request.query_params
        if caller.tenant is not None and said.get("tenant", caller.tenant) != caller.tenant:
            return answers.listed([], asked, "id")
        enabled = answers.flag(request, "enabled")
        disabled = not enabled if enabled is not None else None
        wanted = Wanted(caller.tenant or said.get("tenant"), said.get("project"), said.get("user"), said.get("name"), disabled)
        now = self._ground.clock()
        written = [each for each in self._ground.snapshot().keys if each.id > asked.after and _is(each, wanted)]
        made = await self._ground.register.keys(wanted, now, after=asked.after, most=asked.most + 1)
        rows = [*(shown.stored_key(each, now) for each in written), *(shown.stored_key(each, now) for each in made)]
        return answers.listed(sorted(rows, key=lambda row: row["id"]), asked, "id")

    async def create(self, request: Request, caller: Caller) -> Response:
        said = await answers.fields(request)
        if caller.tenant is not None:
            said.setdefault("tenant", caller.tenant)
        body = answers.judged(NewKeyBody, said)
        caller.changes(body.tenant)
        await self._belongs(body)
        made = self._secret_of(aws=body.aws)
        record = shown.as_key(body, _new_id(), digest=made.digest, aws=made.aws)
        self._ground.countable(None, record.grant)
        now = self._ground.clock()
        await self._ground.register.add(record, now, caller.name)
        await self._ground.changed(caller, "key created", id=record.id, name=record.name, tenant=record.tenant)
        return JSONResponse(shown.stored_key(Stored(record, now, caller.name), now) | made.shown, 201)

    async def show(self, request: Request, caller: Caller) -> Response:
        now = self._ground.clock()
        return JSONResponse(shown.stored_key(await self._find(request, caller), now))

    async def change(self, request: Request, caller: Caller) -> Response:
        before = await self._mine(request, caller)
        patch, now = await answers.fields(request), self._ground.clock()
        changed = answers.judged(KeyBody, answers.merged(shown.key(before), patch))
        if changed.tenant != before.tenant:
            raise Refusal(400, "invalid_request", "tenant: cannot be changed; create another key.", "tenant")
        if "project" in patch:
            await self._belongs(changed)

        def edit(found: Key) -> Key:
            body = answers.judged(KeyBody, answers.merged(shown.key(found), patch))
            made = shown.as_key(body, found.id, digest=found.digest, aws=found.aws)
            self._ground.countable(found.grant, made.grant)
            return made

        stored = await self._ground.register.change_key(before.id, edit, now)
        await self._ground.changed(caller, "key changed", id=before.id, name=before.name, tenant=before.tenant)
        return JSONResponse(shown.stored_key(stored, now))

    async def rotate(self, request: Request, caller: Caller) -> Response:
        before = await self._mine(request, caller)
        body = answers.judged(RotationBody, await answers.fields(request))
        made, now = self._secret_of(aws=bool(before.aws)), self._ground.clock()
        fresh = Key(id=_new_id(), name=before.name, digest=made.digest, aws=made.aws)
        stored = await self._ground.register.rotate(before.id, fresh, body.overlap_seconds, now)
        await self._ground.changed(caller, "key rotated", id=before.id, name=before.name, tenant=before.tenant)
        return JSONResponse(shown.stored_key(stored, now) | made.shown)

    async def revoke(self, request: Request, caller: Caller) -> Response:
        before = await self._mine(request, caller)
        now = self._ground.clock()
        stored = await self._ground.register.change_key(before.id, lambda found: replace(found, disabled=True), now)
        await self._ground.changed(caller, "key revoked", id=before.id, name=before.name, tenant=before.tenant)
        return JSONResponse(shown.stored_key(stored, now))

    async def delete(self, request: Request, caller: Caller) -> Response:
        before = await self._mine(request, caller)
        await self._ground.register.remove_key(before.id, self._ground.clock())
        await self._ground.changed(caller, "key deleted", id=before.id, name=before.name, tenant=before.tenant)
        return Response(status_code=204)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _find(self, request: Request, caller: Caller) -> Stored | Key:
        wanted: str = request.path_params["id"]
        written = next((each for each in self._ground.snapshot().keys if each.id == wanted), None)
        found = written or await self._ground.register.key(wanted, self._ground.clock())
        tenant = (found if isinstance(found, Key) else _key(found)).tenant
        caller.sees(tenant)
        request.state.tenant = tenant  # for the audit log
        return found

    async def _mine(self, request: Request, caller: Caller) -> Key:
        """A key that this caller may change."""
        found = await self._find(request, caller)
        record = found if isinstance(found, Key) else _key(found)
        caller.changes(record.tenant)
        if isinstance(found, Key):
            raise defined()
        return record

    async def _belongs(self, body: KeyBody) -> None:
        """Raises Refusal where a misspelt name would make a key without its limits."""
        if body.tenant != ANYBODYS and not await self._ground.exists(body.tenant):
            raise Refusal(400, "invalid_request", "tenant: there is no such tenant; create it first.", "tenant")
        if body.project is not None and self._ground.written(project_id(body.tenant, body.project)) is None:
            try:
                await self._ground.register.get(Project, body.tenant, body.project)
            except MissingError as error:
                raise Refusal(400, "invalid_request", "project: that tenant has no such project; create it first.", "project") from error

    def _secret_of(self, *, aws: bool) -> Made:
        if aws:
            access_key = AWS_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(16))
            told = {"aws_access_key_id": access_key, "aws_secret_access_key": aws_secret(self._secret, access_key)}
            return Made(b"", access_key, told)
        key = PREFIX + secrets.token_urlsafe(32)
        return Made(key_digest(self._secret, key), "", {"key": key})


def _is(key: Key, wanted: Wanted) -> bool:
    asked: dict[str, Any] = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not None}
    return all(getattr(key, name) == value for name, value in asked.items())


def _key(stored: Stored) -> Key:
    record = stored.record
    assert isinstance(record, Key)  # noqa: S101  found among those
    return record


def _new_id() -> str:
    return f"key_{secrets.token_hex(8)}"
