"""Checked sections -> the snapshot that workers serve by. Whatever takes two sections to judge is judged here.

Law: pure but for asking whether files exist; environment and generated material are arguments. Everything that is wrong
is found in one go: what the schema found comes first, what is left is judged as if that were right.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from llm_gateway import __version__
from llm_gateway.config import aliases, issuers, schema, schema_redis, snapshot, state, tenancy, upstreams, webhooking
from llm_gateway.config.load import Loaded
from llm_gateway.config.material import Material
from llm_gateway.config.problems import ConfigError, Problem, dotted, nearest, place
from llm_gateway.config.problems import Path as OptionPath
from llm_gateway.config.schema_resilience import Retry
from llm_gateway.config.snapshot import Database, Provider, Webhook
from llm_gateway.config.upstreams import absolute
from llm_gateway.models.catalogue import Facts


class Compiled(Struct, frozen=True):
    """`webhooks`, `database`: for the operator alone, beside the snapshot. `whole`: the providers with what they allow the whole gateway."""

    snapshot: snapshot.Snapshot
    warnings: tuple[str, ...]
    webhooks: tuple[Webhook, ...] = ()
    database: Database = Database()
    whole: tuple[Provider, ...] = ()


def compile_snapshot(
    loaded: Loaded, environ: Mapping[str, str], material: Material, lookup: aliases.Lookup, generation: int
) -> Compiled:
    """ConfigError with every problem of file and environment."""
    root = loaded.root
    found = upstreams.resolve(loaded, environ)
    resolver = aliases.Resolver(loaded, found, lookup)
    models = resolver.all()
    keys, key_problems = tenancy.keys(loaded, material)
    webhooks, hook_problems = webhooking.resolve(loaded)
    problems = [*loaded.problems, *found.problems, *resolver.problems, *key_problems, *hook_problems, *_judge(loaded, found), *_unshareable(loaded)]
    problems += issuers.judge(loaded)
    database, state_problems = state.resolve(loaded)
    problems += [*tenancy.unshareable(loaded), *state_problems]
    if problems:
        raise ConfigError(problems)
    workers = root.workers or os.cpu_count() or 1
    made = snapshot.Snapshot(
        generation=generation,
        digest="",
        version=__version__,
        workers=workers,
        data_dir=str(Path(root.data_dir).absolute()),
        secret=material.secret,
        server=_server(root),
        providers=tuple(divided(each, 1 if root.redis.url is not None else workers * root.replicas) for each in found.providers),
        aliases=models,
        keys=keys,
        tenancy=tenancy.tenancy(loaded, workers),
        auth_required=root.auth.required,
        issuers=issuers.resolve(root.auth.jwt),
        prices={name: each.model_dump(exclude_none=True) for name, each in root.prices.items()},
        facts={name: _facts(each) for name, each in root.catalogue.items()},
        logging=_logging(root.logging),
        retry=_retry(root.resilience.retry),
        heartbeat=root.heartbeat.interval,
        heartbeat_early=root.heartbeat.early,
        default_provider=found.default,
        redis=schema_redis.terms(root.redis),
        journal_on_error=root.journal.on_error,
        media=_media(root.media),
        region=root.server.region,
        zone=root.server.zone,
        residency=_residency(root.residency),
        queue_wait=root.resilience.queue.max_wait,
        queue_length=root.resilience.queue.max_length,
        audit_requests=root.audit.requests,
        cache=snapshot.Caching(root.cache.enabled, root.cache.ttl_seconds, root.cache.sampling, root.cache.ignore),
        cache_room=root.cache.max_size_mb << 20,
        cache_shared=root.cache.backend == "redis",
    )
    return Compiled(
        _digested(made, loaded),
        (*found.warnings, *resolver.warnings, *_apart(loaded, workers), *_nobodys(loaded, found, models)),
        webhooks,
        database,
        tuple(found.providers),
    )


def _digested(made: snapshot.Snapshot, loaded: Loaded) -> snapshot.Snapshot:
    try:
        return msgspec.structs.replace(made, digest=digest(made))
    except OverflowError:
        raise ConfigError([Problem(place((), loaded.where), "", "a number in it is larger than any that can be kept")]) from None


def digest(made: snapshot.Snapshot) -> str:
    """Equal for equal configurations, whatever their generation."""
    plain = msgspec.structs.replace(made, generation=0, digest="")
    return sha256(msgspec.msgpack.encode(plain, order="deterministic")).hexdigest()[:16]


def _server(root: schema.Root) -> snapshot.Server:
    server, drain = root.server, root.drain
    tls = None
    if server.tls is not None:
        cert, key = absolute(server.tls.cert), absolute(server.tls.key)
        tls = snapshot.ListenerTls(cert or "", key or "", absolute(server.tls.client_ca))
    listeners = [snapshot.Listener(host=server.host, port=server.port, tls=tls, proxy_protocol=server.proxy_protocol)]
    if server.unix_socket is not None:
        listeners.append(snapshot.Listener(host="", port=None, path=absolute(server.unix_socket)))
    return snapshot.Server(
        listeners=tuple(listeners),
        max_connections=server.max_connections,
        max_streams=server.max_streams,
        max_loop_lag=server.max_loop_lag_seconds,
        timeout=server.timeout_seconds,
        max_body=server.max_body_bytes,
        max_header_bytes=server.max_header_bytes,
        max_headers=server.max_headers,
        max_uri=server.max_uri_bytes,
        header_timeout=server.header_timeout_seconds,
        body_timeout=server.body_timeout_seconds,
        idle_timeout=server.idle_timeout_seconds,
        send_timeout=server.send_timeout_seconds,
        body_memory=server.body_memory_bytes,
        trusted_proxies=server.trusted_proxies,
        cors=snapshot.Cors(server.cors.origins, server.cors.max_age),
        lame_duck=drain.lame_duck,
        drain_timeout=drain.timeout,
    )


def _logging(section: schema.Logging) -> snapshot.Logging:
    output = section.output if section.output in ("stdout", "stderr") else absolute(section.output) or ""
    return snapshot.Logging(section.level, section.format, output, section.access)


def _retry(section: Retry) -> snapshot.Retry:
    return snapshot.Retry(
        max_attempts=section.max_attempts,
        base=section.base_seconds,
        cap=section.cap_seconds,
        wait_retry_after=section.wait_retry_after_seconds,
        budget=section.budget,
        budget_min=section.budget_min,
    )


def _media(section: schema.Media) -> snapshot.Media:
    return snapshot.Media(
        section.fetch, section.max_bytes, section.timeout_seconds, section.allow_hosts, section.allow_ports, section.allow_private
    )


def divided(provider: snapshot.Provider, shares: int) -> snapshot.Provider:
    """With this worker's share of its limits."""
    if shares == 1:
        return provider

    def share(rate: snapshot.RateLimit | None) -> snapshot.RateLimit | None:
        if rate is None:
            return None
        return snapshot.RateLimit(*(None if each is None else max(1, each // shares) for each in (rate.requests, rate.tokens)))

    return msgspec.structs.replace(
        provider,
        rate_limit=share(provider.rate_limit),
        keys=tuple(msgspec.structs.replace(key, rate_limit=share(key.rate_limit)) for key in provider.keys),
        model_limits={model: kept for model, rate in provider.model_limits.items() if (kept := share(rate)) is not None},
    )


def _unshareable(loaded: Loaded) -> list[Problem]:
    """Limits that several workers would each count for themselves."""
    root = loaded.root
    if (root.workers == 1 and root.replicas == 1) or root.state == "per_worker" or root.redis.url is not None:
        return []
    hint = "set redis.url (REDIS_URL), or one worker, or `state: per_worker`, which divides it by the number of workers and replicas"
    problems = []
    for name, provider in root.providers.items():
        options: list[tuple[str | int, ...]] = [("rate_limit",)] if provider.rate_limit is not None else []
        options += [("keys", at, "rate_limit") for at, key in enumerate(provider.keys) if key.rate_limit is not None]
        options += [("model_limits", model) for model in provider.model_limits]
        problems += [_problem(loaded, ("providers", name, *option), "is counted by each worker alone", hint) for option in options]
    return problems


def _residency(section: schema.Residency) -> dict[str, tuple[str, ...]]:
    said = {name: places for name, places in section.tenants.items() if places}
    return {**said, "": section.default} if section.default else said


def _facts(section: schema.Model) -> Facts:
    said = section.model_dump(exclude={"structured_output", "retires"})
    return Facts(**said, schema=section.structured_output, retires=section.retires.isoformat() if section.retires else None)


def _judge(loaded: Loaded, found: upstreams.Upstreams) -> list[Problem]:
    root = loaded.root
    server = root.server
    problems = []
    if not root.auth.required and not root.auth.force and not _is_loopback(server.host):
        message = f"`false` would let anybody use the gateway on {server.host}"
        hint = "listen on 127.0.0.1, or set auth.force if something in front authenticates"
        problems.append(_problem(loaded, ("auth", "required"), message, hint))
    if server.port == server.metrics_port != 0:
        problems.append(_problem(loaded, ("server", "metrics_port"), "is the port of the API"))
    for position, network in enumerate(server.trusted_proxies):
        if not _is_network(network):
            path = ("server", "trusted_proxies", position)
            problems.append(_problem(loaded, path, "expected an address or network such as 10.0.0.0/8"))
    for name in ("cert", "key", "client_ca"):
        file = getattr(server.tls, name, None)
        if file is not None and not Path(file).is_file():
            problems.append(_problem(loaded, ("server", "tls", name), f"there is no file {file}"))
    callable_names = [provider.name for provider in found.providers]
    if root.default_provider is not None and root.default_provider not in (*callable_names, *found.left_out):
        hint = nearest(root.default_provider, callable_names)
        problems.append(
            _problem(loaded, ("default_provider",), f"there is no provider `{root.default_provider}`", hint)
        )
    if root.cache.backend == "redis" and root.redis.url is None:
        problems.append(_problem(loaded, ("cache", "backend"), "needs a Redis", "set redis.url (REDIS_URL)"))
    problems += [_problem(loaded, path, message) for path, message in schema_redis.judge(root.redis)]
    if root.secret is not None and len(root.secret.get_secret_value()) < 16:
        problems.append(_problem(loaded, ("secret",), "expected at least 16 characters"))
    return problems


def _apart(loaded: Loaded, workers: int) -> list[str]:
    """Several workers do not see each other's replies."""
    root = loaded.root
    if workers == 1 or root.cache.backend == "redis" or not (root.cache.enabled or any(alias.cache.enabled for alias in root.models.values())):
        return []
    share = max(1, root.cache.max_size_mb // workers)
    where = place(("cache",), loaded.where)
    return [f"{where}: each of {workers} workers has a cache of its own, of {share} MB: a reply is found by the worker that kept it"]


def _nobodys(loaded: Loaded, found: upstreams.Upstreams, models: tuple[snapshot.Alias, ...]) -> list[str]:
    """Prices and facts that look like a provider's but are nobody's here. Some models have a slash in their own names, so that
    this is no error."""
    providers = {provider.name for provider in found.providers} | set(found.left_out)
    known = {target.model for alias in models for target in (*alias.targets, *alias.fallbacks)} | {alias.name for alias in models}
    warnings = []
    for section in ("prices", "catalogue"):
        for name in getattr(loaded.root, section):
            provider, slash, _ = name.partition("/")
            if slash and provider not in providers and name not in known:
                hint = nearest(provider, sorted(providers))
                where = place((section, name), loaded.where)
                warnings.append(f"{where}: {section}: no provider is called `{provider}`, so this is of models named `{name}`{hint and f'; {hint}'}")
    return warnings


def _problem(loaded: Loaded, path: OptionPath, message: str, hint: str = "") -> Problem:
    return Problem(place(path, loaded.where), dotted(path), message, hint)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
