"""Which providers there are, with URL and keys: the file's, and what the environment adds.

Law: no provider's name here; what is particular to one is a row of providers/table.py.

A provider that needs a key and has none is left out with a warning, since every call to it would fail. If that leaves
nobody, the built-in echo answers, so that a first request always works.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from llm_gateway.config import clouds, operations, schema, schema_resilience
from llm_gateway.config.load import Loaded, same_host
from llm_gateway.config.problems import Path as OptionPath
from llm_gateway.config.problems import Problem, dotted, nearest, place
from llm_gateway.config.snapshot import Concurrency, Health, Provider, ProviderKey, ProviderTls, RateLimit
from llm_gateway.config.values import readable
from llm_gateway.core.headers import sendable
from llm_gateway.policies.breaker import Terms
from llm_gateway.providers.table import SERVICES, Service

ECHO = "echo"
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
SILENCE = 120.0


class Upstreams(Struct):
    """`left_out`: name -> why, for those that are named but cannot be called."""

    providers: list[Provider]
    left_out: dict[str, str]
    problems: list[Problem]
    warnings: list[str]
    default: str | None = None


def resolve(loaded: Loaded, environ: Mapping[str, str]) -> Upstreams:
    found = Upstreams([], {}, [], [])
    sections = dict(loaded.root.providers)
    if not _file_names_providers(loaded):
        sections |= _services_of_environment(environ, sections)
    for name, section in sections.items():
        _add(found, name, section, loaded, environ)
    found.default = loaded.root.default_provider
    if not found.providers and not _broken(loaded):
        found.providers.append(Provider(name=ECHO, type=ECHO, base_url=SERVICES[ECHO].base_url))
        found.default = ECHO
        found.warnings.append("no provider has a key: the built-in `echo` provider answers everything")
    return found


def _file_names_providers(loaded: Loaded) -> bool:
    return any(
        path[:1] == ("providers",) and place and not place.startswith("$") for path, place in loaded.where.items()
    )


def _broken(loaded: Loaded) -> bool:
    return any(problem.path.startswith("providers") for problem in loaded.problems)


def _services_of_environment(
    environ: Mapping[str, str], known: Mapping[str, schema.Provider]
) -> dict[str, schema.Provider]:
    """Every known service whose key variable is set; those that need no key, whose address variable is."""
    return {
        name: schema.Provider()
        for name, service in SERVICES.items()
        if name not in known and service.implied and _first_set(environ, service.url_env if service.keyless else service.key_env)
    }


def _add(found: Upstreams, name: str, section: schema.Provider, loaded: Loaded, environ: Mapping[str, str]) -> None:
    path = ("providers", name)
    kind = section.type or name
    service = SERVICES.get(kind)
    if service is None:
        message = "unknown service" if section.type else "needs a `type`, since its name is no known service"
        hint = nearest(kind, SERVICES) or "any OpenAI-compatible server is `openai_compatible`"
        _complain(found, loaded, (*path, "type") if section.type else path, message, hint)
        return
    if "/" in name or not name:
        _complain(found, loaded, path, "a provider's name must not be empty or hold `/`", "")
        return
    if section.api_key is not None and section.keys:
        _complain(found, loaded, (*path, "keys"), "give `api_key` or `keys`, not both", "")
    if not section.enabled:
        found.left_out[name] = "is not enabled"
        return
    told = clouds.region(section, service, environ)
    url = section.base_url or _address(found, loaded, name, service, environ) or service.place(told)
    if not url:
        variables = " or ".join(service.url_env)
        if _from_environment(loaded, path):
            found.left_out[name] = f"has no address: {variables} is not set"
            found.warnings.append(f"provider {name} is left out: it {found.left_out[name]}")
        else:
            _complain(found, loaded, (*path, "base_url"), "is required", f"or set {variables}")
        return
    keys = _keys(section, service, url, environ)
    if len(names := [each.id for each in keys]) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        _complain(found, loaded, (*path, "keys"), f"two of them are called {twice}", "give each a `name` of its own; unset it is the position, from 0")
    if not all(sendable(each.value) for each in keys):  # those of the file were looked at: it is the service's own variable
        _complain(found, loaded, path, f"{' or '.join(service.key_env)} holds a line break, or what else no header can carry", "")
    cloud = clouds.identity(section, service, keyed=bool(keys) or section.api_key is not None or name in loaded.keyless)
    by_file = bool(section.keys) or (section.api_key is not None and not _from_environment(loaded, (*path, "api_key")))
    for option, message, hint in clouds.complaints(section, service, kind, cloud, keyed=by_file):
        _complain(found, loaded, (*path, option) if option else path, message, hint)
    if not keys and cloud is None and not service.keyless and section.api_key is None and _own_host(url, service):
        variable = loaded.keyless.get(name) or (service.key_env[0] if service.key_env else "")
        found.left_out[name] = f"has no key{f': {variable} is not set' if variable else ''}"
        found.warnings.append(f"provider {name} is left out: it {found.left_out[name]}")
        return
    _check_files(found, loaded, path, section)
    made = _provider(name, kind, url, () if cloud is not None else keys, section)
    region = section.region or service.region(url) or told or None
    made = msgspec.structs.replace(made, region=region, cloud=cloud, **_resilience(section, loaded.root.resilience))
    found.providers.append(_located(found, made, service, section, loaded, environ) if service.resource else made)


def _located(
    found: Upstreams, made: Provider, service: Service, section: schema.Provider, loaded: Loaded, environ: Mapping[str, str]
) -> Provider:
    """With the path to the account's own resources in its base URL; a key says by itself whose they are."""
    project = clouds.project(section, environ) if made.cloud is not None else section.project or ""
    if made.cloud is not None and not project and "/projects/" not in made.base_url:
        _complain(found, loaded, ("providers", made.name, "project"), "is required", f"or set {clouds.PROJECTS[0]}")
    region = made.region or service.region(service.base_url)
    where = service.resource.format(project=project, region=region) if project else ""
    return msgspec.structs.replace(made, base_url=clouds.located(made.base_url, service, section.api_version, where))


def _provider(name: str, kind: str, url: str, keys: tuple[ProviderKey, ...], section: schema.Provider) -> Provider:
    tls = section.tls
    return Provider(
        name=name,
        type=kind,
        base_url=url.rstrip("/"),
        keys=keys,
        headers=tuple(section.headers.items()),
        api_version=section.api_version,
        proxy=section.proxy,
        tls=ProviderTls(tls.verify, absolute(tls.ca), absolute(tls.cert), absolute(tls.key), tls.server_name),
        connect_timeout=section.connect_timeout_seconds,
        timeout=section.timeout_seconds,
        silence=section.timeout_seconds if section.timeout_seconds is not None else SILENCE,
        first_chunk=section.first_chunk_timeout_seconds,
        max_retries=section.max_retries,
        max_connections=section.max_connections,
        idle_timeout=section.idle_timeout_seconds,
        deployments=dict(section.deployments),
        tenants=section.tenants,
    )


def _resilience(section: schema.Provider, general: schema_resilience.Resilience) -> dict[str, Any]:
    said = section.breaker or general.breaker
    breaker = Terms(
        said.enabled, said.failures, said.ratio, said.volume, said.window, said.ejection, said.max_ejection, said.recovery,
        said.probe_interval, said.panic, said.key_ejection, said.cooling,
    )  # fmt: skip
    bounds = section.concurrency or general.concurrency
    return {
        "zone": section.zone,
        "rate_limit": _rate(section.rate_limit),
        "model_limits": {model: rate for model, said in section.model_limits.items() if (rate := _rate(said)) is not None},
        "health": _health(section.health, general.health),
        "breaker": breaker,
        "concurrency": Concurrency(bounds.initial, bounds.min, bounds.max) if bounds is not None else None,
    }


def _rate(said: schema_resilience.RateLimit | None) -> RateLimit | None:
    return RateLimit(said.requests_per_minute, said.tokens_per_minute) if said is not None else None


def _health(own: operations.ProviderHealth, common: operations.Health) -> Health:
    """The provider's own words, else everybody's."""
    given = own.model_dump(exclude_none=True)
    return Health(**(common.model_dump() | given))


def _keys(section: schema.Provider, service: Service, url: str, environ: Mapping[str, str]) -> tuple[ProviderKey, ...]:
    """Configured ones; else the service's own variable, which is never sent to a host of another name unless the file
    says nothing of keys at all."""
    if section.keys:
        return tuple(
            ProviderKey(each.name or str(position), each.key.get_secret_value(), each.weight, _rate(each.rate_limit))
            for position, each in enumerate(section.keys)
            if each.key.get_secret_value()
        )
    if section.api_key is not None:
        value = section.api_key.get_secret_value()
        return (ProviderKey("0", value),) if value not in ("", "none") else ()
    value = _first_set(environ, service.key_env) if _own_host(url, service) else ""
    return (ProviderKey("0", value),) if value else ()


def _own_host(url: str, service: Service) -> bool:
    return not service.base_url or same_host(url, service.base_url) or service.region(url) != ""


def _address(found: Upstreams, loaded: Loaded, name: str, service: Service, environ: Mapping[str, str]) -> str:
    given = _first_set(environ, service.url_env)
    if not given:
        return ""
    url = given if "://" in given else f"http://{given}"
    try:
        where = urlsplit(readable(url))
    except ValueError as error:
        _complain(found, loaded, ("providers", name, "base_url"), f"{' or '.join(service.url_env)}: {error}", "")
        return ""
    if where.hostname in LOOPBACK and where.port == loaded.root.server.port:
        # A shell set up to use this gateway must not make the gateway call itself.
        found.warnings.append(f"provider {name}: {' or '.join(service.url_env)} is this gateway's own address; ignored")
        return ""
    return url


def _check_files(found: Upstreams, loaded: Loaded, path: OptionPath, section: schema.Provider) -> None:
    for name in ("ca", "cert", "key"):
        file = getattr(section.tls, name)
        if file is not None and not Path(file).is_file():
            _complain(found, loaded, (*path, "tls", name), f"there is no file {file}", "")


def _complain(found: Upstreams, loaded: Loaded, path: OptionPath, message: str, hint: str) -> None:
    found.problems.append(Problem(place(path, loaded.where), dotted(path), message, hint))


def _from_environment(loaded: Loaded, path: OptionPath) -> bool:
    said = place(path, loaded.where)
    return said.startswith("$") or path not in loaded.where


def _first_set(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for value in (environ.get(name, "").strip() for name in names) if value), "")


def absolute(path: str | None) -> str | None:
    """Relative paths are meant from the working directory."""
    return str(Path(path).absolute()) if path is not None else None
