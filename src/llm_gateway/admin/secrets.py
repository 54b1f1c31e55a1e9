"""Tenants' own keys at providers, over HTTP: whose there are, put, and taken back.

    GET  /admin/v1/tenants/acme/secrets        PUT, DELETE  /admin/v1/tenants/acme/secrets/openai

Law: kept sealed (admission/vault.py), shown never. A tenant that was made here keeps them in its record; one that config.yaml defines has them beside,
under its name alone: what the file says of it stays the file's. A provider of the file that is that tenant's alone, and has a key there, is a
key of its own already: that one counts, and none is put over it (409).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_gateway.admin import answers
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.roles import Caller
from llm_gateway.admin.tenancy import PREFIX, Ground, changed, seen
from llm_gateway.admission.vault import Vault
from llm_gateway.config.problems import nearest
from llm_gateway.config.schema_admin import SecretBody
from llm_gateway.core.tenancy import Tenant, tenant_id
from llm_gateway.stores.sql.directory import MissingError

Sealed = dict[str, str]  # by provider


class ProviderKeys:
    def __init__(self, ground: Ground, vault: Vault) -> None:
        self._ground = ground
        self._vault = vault

    def routes(self) -> list[Route]:
        at, all_of_them = self._ground.route, f"{PREFIX}/{{tenant}}/secrets"
        return [*at(all_of_them, GET=self.page), *at(f"{all_of_them}/{{provider}}", PUT=self.entrust, DELETE=self.withdraw)]

    async def page(self, request: Request, caller: Caller) -> Response:
        """`source`: config for those that the file gives; `used`: false for one that the file's has taken the place of, or whose provider or
        tenant is no more in the file."""
        tenant = seen(request, caller)
        made, kept = await self._kept(tenant)
        written = self._written(tenant)
        if not made and not kept and not self._defined(tenant):
            raise MissingError
        there = self._providers(tenant) if made or self._defined(tenant) else []
        rows: list[dict[str, Any]] = [{"provider": each, "source": "config", "used": True} for each in written]
        rows += [{"provider": each, "source": "api", "used": each in there and each not in written} for each in kept]
        return JSONResponse({"data": sorted(rows, key=lambda row: (row["provider"], row["source"]))})

    async def entrust(self, request: Request, caller: Caller) -> Response:
        tenant, provider = changed(request, caller), request.path_params["provider"]
        providers = self._providers(tenant)
        if provider not in providers:
            hint = nearest(provider, providers)
            raise Refusal(404, "not_found", f"There is no such provider{f'; {hint}' if hint else ''}", "provider")
        if provider in self._written(tenant):
            message = f"config.yaml gives {tenant} a key of its own at {provider} (providers.{provider}.tenants): that one counts; change it there."
            raise Refusal(409, "defined_in_configuration", message, "provider")
        made, _ = await self._kept(tenant)
        if not made and not self._defined(tenant):
            raise Refusal(404, "not_found", "There is no such tenant; create it first.", "tenant")
        body = answers.judged(SecretBody, await answers.fields(request))
        sealed = self._vault.seal(tenant, provider, body.key.get_secret_value())
        await self._edit(tenant, lambda before: before | {provider: sealed}, made=made)
        await self._ground.changed(caller, "provider key entrusted", tenant=tenant, provider=provider)
        await self._ground.kept()
        return JSONResponse({"provider": provider})

    async def withdraw(self, request: Request, caller: Caller) -> Response:
        """Of a tenant that is no more in the file, too."""
        tenant, provider = changed(request, caller), request.path_params["provider"]

        def edit(before: Sealed) -> Sealed:
            if provider not in before:
                raise MissingError
            return {name: token for name, token in before.items() if name != provider}

        made, kept = await self._kept(tenant)
        if provider not in kept and provider in self._written(tenant):
            raise Refusal(409, "defined_in_configuration", f"config.yaml gives {tenant} that key (providers.{provider}): take it out there.", "provider")
        await self._edit(tenant, edit, made=made)
        await self._ground.changed(caller, "provider key withdrawn", tenant=tenant, provider=provider)
        await self._ground.kept()
        return Response(status_code=204)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _kept(self, tenant: str) -> tuple[bool, Sealed]:
        """Whether they stand in a record of its own, and what there is."""
        if not self._defined(tenant) and (record := await self._made(tenant)) is not None:
            return True, record.secrets
        return False, (await self._ground.register.entrusted([tenant])).get(tenant, {})

    async def _made(self, tenant: str) -> Tenant | None:
        try:
            record = (await self._ground.register.get(Tenant, tenant)).record
        except MissingError:
            return None
        return record if isinstance(record, Tenant) else None

    async def _edit(self, tenant: str, edit: Callable[[Sealed], Sealed], *, made: bool) -> None:
        register = self._ground.register
        if made:
            await register.change(Tenant, (tenant,), lambda before: replace(before, secrets=edit(before.secrets)))
        else:
            await register.entrust(tenant, edit, self._ground.clock())

    def _defined(self, tenant: str) -> bool:
        return self._ground.written(tenant_id(tenant)) is not None

    def _providers(self, tenant: str) -> list[str]:
        """Those that are there for it."""
        return [each.name for each in self._ground.snapshot().providers if not each.tenants or tenant in each.tenants]

    def _written(self, tenant: str) -> list[str]:
        """Those of the file that are keys of its own."""
        return [each.name for each in self._ground.snapshot().providers if each.owned(tenant)]
