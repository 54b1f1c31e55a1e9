"""What the operator answers: metrics and health to anybody, the rest to whoever holds the admin token.

Law: answers from what is already known; no call here waits for a provider, a disk or a worker.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route

from llm_gateway import __version__
from llm_gateway.admin.answers import Refusal
from llm_gateway.admin.books import Books
from llm_gateway.admin.credentials import Keyring
from llm_gateway.admin.dependencies import Dependencies, disk_space_gb
from llm_gateway.admin.events import Events
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.purge import purge
from llm_gateway.admin.reload import Reloader
from llm_gateway.config.snapshot import Snapshot, Webhook
from llm_gateway.core.happenings import KINDS
from llm_gateway.telemetry.exposition import OPENMETRICS, TEXT
from llm_gateway.telemetry.metrics import escape

REDACTED = "[redacted]"
SECRETS = frozenset({"credentials", "client_secret", "external_id"})  # of a cloud's identity


Source = Callable[[], dict[str, dict[str, float]]]


class Api:
    """sources: families of the operator's own parts."""

    def __init__(
        self, fleet: Fleet, reloader: Reloader, dependencies: Dependencies, keyring: Keyring, events: Events, *, books: Books, sources: tuple[Source, ...]
    ) -> None:
        self._fleet = fleet
        self._reloader = reloader
        self._dependencies = dependencies
        self._keyring = keyring
        self._events = events
        self._books = books
        self._sources = sources

    async def metrics(self, request: Request) -> Response:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        extra: dict[str, dict[str, float]] = {
            "llm_gateway_config_generation": {"": self._reloader.snapshot.generation},
            "llm_gateway_config_reload_failures_total": {"": self._reloader.failures},
            "llm_gateway_worker_restarts_total": {"": self._fleet.restarts},
            "llm_gateway_build_info": {f'version="{__version__}"': 1},
            "llm_gateway_provider_healthy": {
                f'provider="{escape(str(each["name"]))}"': 1 if each["healthy"] else 0 for each in self._providers()
            },
        }
        for source in self._sources:
            extra |= source()
        text = self._fleet.metrics(extra, openmetrics=openmetrics)
        return Response(text, media_type=OPENMETRICS if openmetrics else TEXT)

    async def health(self, _request: Request) -> Response:
        """The brief's JSON. 200 while anybody serves, `degraded` when something is missing. What a provider's cloud
        credentials lack stands beside it."""
        troubles = self._keyring.troubles()
        providers = self._providers()
        redis = self._dependencies.redis
        database = self._books.up
        serving = self._fleet.serving()
        whole = (
            redis is not False
            and database is not False
            and not troubles
            and all(each["healthy"] for each in providers)
            and serving >= self._reloader.snapshot.workers
        )
        status = "unhealthy" if serving == 0 else "healthy" if whole else "degraded"
        body = {
            "status": status,
            "version": __version__,
            "uptime_seconds": int(time.monotonic() - self._reloader.state.started),
            "providers": providers,
            "dependencies": {"redis": redis, "database": database, "disk_space_gb": disk_space_gb(self._reloader.snapshot.data_dir)},
        }
        return JSONResponse(body, 503 if status == "unhealthy" else 200)

    def _providers(self) -> list[dict[str, object]]:
        troubles, granted = self._keyring.troubles(), self._keyring.keys()
        return [
            {**each, "healthy": each["healthy"] and name in granted, "credentials": troubles[name]}
            if (name := str(each["name"])) in troubles
            else each
            for each in self._fleet.providers()
        ]

    async def live(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _request: Request) -> Response:
        if self._fleet.draining:
            return PlainTextResponse("draining\n", 503)
        if self._fleet.serving() == 0:
            return PlainTextResponse("no worker serves\n", 503)
        return PlainTextResponse("ok\n")

    async def reload(self, _request: Request) -> Response:
        outcome = self._reloader.reload("admin API")
        return JSONResponse(msgspec.to_builtins(outcome), 422 if outcome.errors else 200)

    async def config(self, _request: Request) -> Response:
        snapshot = self._reloader.snapshot
        return JSONResponse(
            {
                "generation": snapshot.generation,
                "digest": snapshot.digest,
                "workers": self._fleet.generations(),
                "config": redacted(snapshot) | {"webhooks": [shown(each) for each in self._reloader.state.webhooks]},
            }
        )

    async def events(self, request: Request) -> Response:
        kind = request.query_params.get("event", "")
        if kind and kind not in KINDS:
            message = f"There is no such event; these there are: {', '.join(KINDS)}."
            return JSONResponse({"error": {"message": message, "code": "invalid"}}, 400)
        found = self._events.since(request.query_params.get("since", ""), kind)
        return JSONResponse({"events": msgspec.to_builtins(found)})

    async def purge(self, request: Request) -> Response:
        return await purge(self._fleet, request)

    def guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """For whoever holds the admin token."""

        async def asked(request: Request) -> Response:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            # Compared as a whole and in constant time, so that nothing can be learnt from how long it took.
            right = hmac.compare_digest(token.strip().encode(), self._reloader.state.admin_token.encode())
            if scheme.lower() != "bearer" or not right:
                refusal = {
                    "error": {"message": "The admin token is needed: Authorization: Bearer ...", "code": "unauthorized"}
                }
                return JSONResponse(refusal, 401, {"www-authenticate": "Bearer"})
            request.state.actor = "admin token"
            answered: Response = await answer(request)
            return answered

        return asked


def application(api: Api, *more: Route) -> Starlette:
    """more: routes of the operator's other parts, which guard themselves."""
    return Starlette(
        routes=[
            *more,
            Route("/metrics", api.metrics),
            Route("/health", api.health),
            Route("/health/live", api.live),
            Route("/health/ready", api.ready),
            Route("/admin/v1/reload", api.guarded(api.reload), methods=["POST"]),
            Route("/admin/v1/config", api.guarded(api.config)),
            Route("/admin/v1/events", api.guarded(api.events)),
            Route("/admin/v1/cache/purge", api.guarded(api.purge), methods=["POST"]),
        ],
        exception_handlers={404: missing, 405: misused},
    )


async def missing(request: Request, _error: Exception) -> Response:
    return Refusal(404, "not_found", f"There is nothing at {request.url.path[:200]}.").response()


async def misused(request: Request, _error: Exception) -> Response:
    """A path has a route for each of its methods: Starlette's own answer would name those of the first."""
    routes: list[Route] = [each for each in request.app.routes if each.matches(request.scope)[0] is not Match.NONE]
    allowed = ", ".join(sorted({method for each in routes for method in each.methods or ()}))
    refused = Refusal(405, "method_not_allowed", f"{request.method[:20]} is not allowed here; use {allowed}.").response()
    refused.headers["allow"] = allowed
    return refused


def redacted(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot without anything secret: not the secret, keys, hashes of keys, added headers, passwords in URLs."""
    shown: dict[str, Any] = msgspec.to_builtins(snapshot)
    shown["secret"] = REDACTED
    if snapshot.redis is not None:
        for login in ("login", "sentinel"):
            shown["redis"][login]["password"] = REDACTED if shown["redis"][login]["password"] else ""
    for key in shown["keys"]:
        key["digest"] = REDACTED
    for provider in shown["providers"]:
        provider["keys"] = [{"id": key["id"], "weight": key["weight"], "value": REDACTED} for key in provider["keys"]]
        provider["headers"] = [[name, REDACTED] for name, _ in provider["headers"]]
        login = "".join(urlsplit(provider["base_url"]).netloc.rpartition("@")[:2])
        provider["base_url"] = provider["base_url"].replace(login, f"{REDACTED}@", 1) if login else provider["base_url"]
        provider["proxy"] = REDACTED if provider["proxy"] else None
        for secret in SECRETS & (provider["cloud"] or {}).keys():
            provider["cloud"][secret] = REDACTED if provider["cloud"][secret] else None
    return shown


def shown(webhook: Webhook) -> dict[str, Any]:
    """Without what signs, and without path and query, which are often secrets."""
    scheme, host, *_ = urlsplit(webhook.url)
    said: dict[str, Any] = msgspec.to_builtins(webhook)
    return said | {"url": f"{scheme}://{host}/{REDACTED}", "key": REDACTED}
