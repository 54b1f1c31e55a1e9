"""`/admin/v1/tenants`: tenants, their projects and users, and their own keys at providers.

    GET, POST /admin/v1/tenants                    GET, PATCH, DELETE /admin/v1/tenants/acme
    GET, POST /admin/v1/tenants/acme/projects      GET, PATCH, DELETE /admin/v1/tenants/acme/projects/search       users alike
    GET /admin/v1/tenants/acme/secrets             PUT, DELETE /admin/v1/tenants/acme/secrets/openai

Law: what config.yaml defines is shown and not changed here (409). Who may do what is `roles`'; an answer to a change is given when the
workers have been told of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_gateway.admin import answers, shown
from llm_gateway.admin.answers import Answer, Refusal
from llm_gateway.admin.roles import Caller, Roles
from llm_gateway.config.schema_admin import HolderBody, TenantBody
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.tenancy import Grant, Limits, Project, Record, Tenant, User, project_id, tenant_id, user_id
from llm_gateway.stores.sql.directory import MissingError, Register, Stored

PREFIX = "/admin/v1/tenants"
OWN = ("each_user", "each_key")  # what a tenant's own administrator may change of it

Named = TypeVar("Named", TenantBody, HolderBody)
Asked = Callable[[Request, Caller], Awaitable[Response]]


class Ground:
    """What these resources stand on. ready: returns once the database has its tables. look: has workers told what changed; kept: returns once
    what was entrusted is where the next start finds it; told: of each change, and by whom."""

    def __init__(
        self, register: Register, roles: Roles, snapshot: Callable[[], Snapshot], *,
        ready: Callable[[], Awaitable[None]], look: Callable[[], Awaitable[None]], kept: Callable[[], Awaitable[None]],
        told: Callable[..., None], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.register = register
        self.kept = kept
        self.snapshot = snapshot
        self.clock = clock
        self._roles = roles
        self._ready = ready
        self._look = look
        self._told = told

    def route(self, path: str, **methods: Asked) -> Iterable[Route]:
        """methods: what answers GET, POST and so on."""
        return [Route(path, self._opened(asked), methods=[method]) for method, asked in methods.items()]

    async def changed(self, caller: Caller, what: str, **names: str) -> None:
        self._told("info", what, by=caller.name, **names)
        await self._look()

    def written(self, holder: str) -> Record | None:
        """What config.yaml says of it."""
        return self.snapshot().tenancy.records().get(holder)

    def unwritten(self, holder: str) -> None:
        """Raises Refusal where config.yaml defines it."""
        if self.written(holder) is not None:
            raise defined()

    def countable(self, before: Grant | None, after: Grant | None, where: str = "") -> None:
        """Raises Refusal for limits and budgets that every worker would count for itself, and that would therefore be none. What was there
        already may stay: it is another time's fault. where: the field that holds it."""
        if after is None or after == before:
            return
        apart = self.snapshot().tenancy.apart
        for name, said in (("limits", after.limits != Limits() or bool(after.by_model)), ("budgets", bool(after.budgets))):
            if said and name in apart:
                hint = "set redis.url (REDIS_URL)" + (", or `state: per_worker`" if name == "limits" else ", or run one worker, no replica, and SQLite")
                raise Refusal(400, "invalid_request", f"{where}{name}: would be counted by each worker alone ({hint}).", where + name)

    async def exists(self, tenant: str) -> bool:
        if self.written(tenant_id(tenant)) is not None:
            return True
        try:
            await self.register.get(Tenant, tenant)
        except MissingError:
            return False
        return True

    def _opened(self, asked: Asked) -> Answer:
        async def answer(request: Request) -> Response:
            caller = self._roles.caller(request)
            await self._ready()
            return await asked(request, caller)

        return answers.answered(answer)


def defined() -> Refusal:
    return Refusal(409, "defined_in_configuration", "config.yaml defines it: change it there, and reload.")


class Tenants:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def routes(self) -> list[Route]:
        at, one = self._ground.route, f"{PREFIX}/{{tenant}}"
        return [*at(PREFIX, GET=self.page, POST=self.create), *at(one, GET=self.show, PATCH=self.change, DELETE=self.delete)]

    async def page(self, request: Request, caller: Caller) -> Response:
        answers.known(request, "limit", "after")
        asked = answers.page(request)
        if caller.tenant is not None:
            rows = [row for row in await self._own(caller.tenant) if row["name"] > asked.after]
            return answers.listed(rows, asked, "name")
        said = await self._written([each for each in self._ground.snapshot().tenancy.tenants if each.name > asked.after])
        written = {each.name: shown.stored_tenant(each) for each in said}
        made = await self._ground.register.page(Tenant, after=asked.after, most=asked.most + 1)
        rows = [*written.values(), *(row for row in map(shown.stored_tenant, made) if row["name"] not in written)]
        return answers.listed(sorted(rows, key=lambda row: row["name"]), asked, "name")

    async def create(self, request: Request, caller: Caller) -> Response:
        caller.commands()
        record = shown.as_tenant(answers.judged(TenantBody, await answers.fields(request)), {})
        self._ground.unwritten(tenant_id(record.name))
        self._countable(Tenant(record.name), record)
        now = self._ground.clock()
        await self._ground.register.create(record, now)
        await self._ground.changed(caller, "tenant created", tenant=record.name)
        return JSONResponse(shown.stored_tenant(Stored(record, now)), 201)

    async def show(self, request: Request, caller: Caller) -> Response:
        tenant = seen(request, caller)
        return JSONResponse(shown.stored_tenant(await self._found(tenant)))

    async def change(self, request: Request, caller: Caller) -> Response:
        tenant = changed(request, caller)
        self._ground.unwritten(tenant_id(tenant))
        patch = await answers.fields(request)
        if caller.tenant is not None:
            _only_own(patch)

        def edit(before: Tenant) -> Tenant:
            body = answers.judged(TenantBody, answers.merged(shown.tenant(before), patch))
            made = shown.as_tenant(_of_that_name(body, tenant), before.secrets)
            self._countable(before, made)
            return made

        stored = await self._ground.register.change(Tenant, (tenant,), edit)
        await self._ground.changed(caller, "tenant changed", tenant=tenant)
        return JSONResponse(shown.stored_tenant(stored))

    async def delete(self, request: Request, caller: Caller) -> Response:
        caller.commands()
        tenant = request.path_params["tenant"]
        self._ground.unwritten(tenant_id(tenant))
        cascade = answers.flag(request, "cascade") or False
        await self._ground.register.remove(Tenant, (tenant,), self._ground.clock(), cascade=cascade)
        await self._ground.changed(caller, "tenant deleted", tenant=tenant)
        return Response(status_code=204)

    def _countable(self, before: Tenant, after: Tenant) -> None:
        self._ground.countable(before.grant, after.grant)
        self._ground.countable(before.each_user, after.each_user, "each_user.")
        self._ground.countable(before.each_key, after.each_key, "each_key.")

    async def _own(self, tenant: str) -> list[dict[str, Any]]:
        try:
            return [shown.stored_tenant(await self._found(tenant))]
        except MissingError:
            return []

    async def _found(self, tenant: str) -> Stored | Tenant:
        """Raises MissingError."""
        written = self._ground.written(tenant_id(tenant))
        return (await self._written([written]))[0] if isinstance(written, Tenant) else await self._ground.register.get(Tenant, tenant)

    async def _written(self, tenants: list[Tenant]) -> list[Tenant]:
        """With what they entrusted to the gateway."""
        found = await self._ground.register.entrusted([each.name for each in tenants])
        return [replace(each, secrets=found.get(each.name, {})) for each in tenants]


class Members:
    """A tenant's projects, or its users."""

    def __init__(self, ground: Ground, kind: type[Project | User]) -> None:
        self._ground = ground
        self._kind = kind
        self._word = kind.__name__.lower()
        self._id = project_id if kind is Project else user_id

    def routes(self) -> list[Route]:
        at, all_of_them = self._ground.route, f"{PREFIX}/{{tenant}}/{self._word}s"
        one = at(f"{all_of_them}/{{name}}", GET=self.show, PATCH=self.change, DELETE=self.delete)
        return [*at(all_of_them, GET=self.page, POST=self.create), *one]

    async def page(self, request: Request, caller: Caller) -> Response:
        answers.known(request, "limit", "after")
        tenant, asked = seen(request, caller), answers.page(request)
        said = self._ground.snapshot().tenancy
        of_it = said.projects if self._kind is Project else said.users
        written = {each.name: shown.stored_holder(each) for each in of_it if each.tenant == tenant and each.name > asked.after}
        made = await self._ground.register.page(self._kind, tenant=tenant, after=asked.after, most=asked.most + 1)
        rows = [*written.values(), *(row for row in map(shown.stored_holder, made) if row["name"] not in written)]
        return answers.listed(sorted(rows, key=lambda row: row["name"]), asked, "name")

    async def create(self, request: Request, caller: Caller) -> Response:
        tenant = changed(request, caller)
        record = shown.as_holder(self._kind, tenant, answers.judged(HolderBody, await answers.fields(request)))
        if not await self._ground.exists(tenant):
            raise Refusal(404, "not_found", "There is no such tenant; create it first.", "tenant")
        self._ground.unwritten(self._id(tenant, record.name))
        self._ground.countable(None, record.grant)
        now = self._ground.clock()
        await self._ground.register.create(record, now)
        await self._ground.changed(caller, f"{self._word} created", tenant=tenant, name=record.name)
        return JSONResponse(shown.stored_holder(Stored(record, now)), 201)

    async def show(self, request: Request, caller: Caller) -> Response:
        tenant, name = seen(request, caller), request.path_params["name"]
        found = self._ground.written(self._id(tenant, name)) or await self._ground.register.get(self._kind, tenant, name)
        return JSONResponse(shown.stored_holder(found))  # type: ignore[arg-type]  # what stands there is one

    async def change(self, request: Request, caller: Caller) -> Response:
        tenant, name = changed(request, caller), request.path_params["name"]
        self._ground.unwritten(self._id(tenant, name))
        patch = await answers.fields(request)

        def edit(before: Project | User) -> Any:
            body = answers.judged(HolderBody, answers.merged(shown.holder(before), patch))
            made = shown.as_holder(self._kind, tenant, _of_that_name(body, name))
            self._ground.countable(before.grant, made.grant)
            return made

        stored = await self._ground.register.change(self._kind, (tenant, name), edit)
        await self._ground.changed(caller, f"{self._word} changed", tenant=tenant, name=name)
        return JSONResponse(shown.stored_holder(stored))

    async def delete(self, request: Request, caller: Caller) -> Response:
        tenant, name = changed(request, caller), request.path_params["name"]
        self._ground.unwritten(self._id(tenant, name))
        cascade = answers.flag(request, "cascade") or False
        await self._ground.register.remove(self._kind, (tenant, name), self._ground.clock(), cascade=cascade)
        await self._ground.changed(caller, f"{self._word} deleted", tenant=tenant, name=name)
        return Response(status_code=204)


def seen(request: Request, caller: Caller) -> str:
    tenant: str = request.path_params["tenant"]
    caller.sees(tenant)
    return tenant


def changed(request: Request, caller: Caller) -> str:
    tenant: str = request.path_params["tenant"]
    caller.changes(tenant)
    return tenant


def _only_own(patch: dict[str, Any]) -> None:
    for name in patch:
        if name not in OWN:
            message = f"{name[:100]}: only the gateway's operator may change what a tenant may use itself; yours to change: {', '.join(OWN)}."
            raise Refusal(403, "permission_denied", message, name[:100])


def _of_that_name(body: Named, name: str) -> Named:
    if body.name != name:
        raise Refusal(400, "invalid_request", "name: cannot be changed; create another, and delete this one.", "name")
    return body
