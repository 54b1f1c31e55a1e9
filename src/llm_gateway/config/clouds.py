"""Whose credentials a provider uses, where it runs, and which of its options mean something: what clouds add to a provider.

Law: no provider's name here, and no cloud's library: what is asked of those is whether they are installed. Nothing is
fetched; the operator process does that (admin/credentials.py), with what is said here.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from llm_gateway.config import schema
from llm_gateway.config.snapshot import Aws, Cloud, Entra, Google
from llm_gateway.providers.table import SERVICES, Service

# Cloud -> the library that fetches its credentials, and the extra that installs it.
LIBRARIES = {"aws": ("botocore", "aws"), "google": ("google.auth", "google"), "azure": ("azure.identity", "azure")}
PROJECTS = ("GOOGLE_CLOUD_PROJECT", "ANTHROPIC_VERTEX_PROJECT_ID")
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # in AWS's own order
KEY_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
_IDENTITY = ("profile", "role_arn", "credentials", "entra")  # options that say: not by key

Complaint = tuple[str, str, str]  # option, message, hint


def identity(section: schema.Provider, service: Service, *, keyed: bool) -> Cloud | None:
    """As whom the operator has to fetch credentials; None for nobody. keyed: there is a key, or should have been."""
    asked = any(getattr(section, option) is not None for option in _IDENTITY)
    if not service.cloud or not (asked or not (keyed or service.asked)):
        return None
    match service.cloud:
        case "aws":
            return Aws(section.profile, section.role_arn, section.external_id)
        case "google":
            return Google(section.credentials.get_secret_value() if section.credentials is not None else "")
        case "azure":
            entra = section.entra or schema.Entra()
            secret = entra.client_secret.get_secret_value() if entra.client_secret is not None else ""
            return Entra(entra.scope, entra.tenant_id, entra.client_id, secret)


def complaints(
    section: schema.Provider, service: Service, kind: str, cloud: Cloud | None, *, keyed: bool
) -> Iterator[Complaint]:
    """What is wrong with a provider's own options. keyed: the file gives it a key; one of the environment just gives way."""
    for option in sorted(frozenset().union(*(each.options for each in SERVICES.values())) - service.options):
        if getattr(section, option) is not None:
            takers = ", ".join(f"`{name}`" for name, each in SERVICES.items() if option in each.options)
            yield option, f"means nothing to a provider of type `{kind}`", f"it is an option of {takers}"
    if section.external_id is not None and section.role_arn is None:
        yield "external_id", "needs a `role_arn` beside it", ""
    if cloud is None:
        return
    for option in _IDENTITY:
        if keyed and getattr(section, option) is not None and option in service.options:
            yield option, f"give `api_key` or `{option}`, not both", ""
    if section.credentials is not None and not isinstance(_facts(section.credentials.get_secret_value()).get("type"), str):
        yield "credentials", "expected Google's JSON of a key or a federation", "`file:/path` takes it from a file"
    library, extra = LIBRARIES[service.cloud]
    if not installed(library):
        message = f"its credentials are fetched by {library}, which is not installed"
        yield "", message, f"pip install 'llm-inference-gateway[{extra}]', or give `api_key`"


def named(cloud: Cloud) -> str:
    """Whose credentials they are, in words without secrets."""
    match cloud:
        case Aws(profile, role, _):
            source = f"profile {profile}" if profile else "default chain"
            return f"AWS {source}{f', role {role}' if role else ''}"
        case Google(credentials):
            return f"Google {_facts(credentials).get('client_email') or 'federation' if credentials else 'application default'}"
        case Entra(_, _, client, secret):
            return f"Entra {'application' if secret else 'identity'}{f' {client}' if client else ''}"


def region(section: schema.Provider, service: Service, environ: Mapping[str, str]) -> str:
    """The configured one, the environment's, or the profile's in AWS's own configuration file."""
    told = section.region or _first_set(environ, service.region_env)
    if told or service.cloud != "aws":
        return told
    profile = section.profile or _first_set(environ, PROFILES) or "default"
    path = environ.get("AWS_CONFIG_FILE") or "~/.aws/config"
    file = configparser.RawConfigParser(strict=False)
    try:
        file.read_string(_content(environ.get("HOME", "") + path[1:] if path.startswith("~/") else path))
    except configparser.Error:
        return ""
    return file.get("default" if profile == "default" else f"profile {profile}", "region", fallback="")


def project(section: schema.Provider, environ: Mapping[str, str]) -> str:
    """The configured one, the environment's, or the one that a service account's key names."""
    told = section.project or _first_set(environ, PROJECTS)
    if told:
        return told
    text = section.credentials.get_secret_value() if section.credentials is not None else _content(environ.get(KEY_FILE, ""))
    found = _facts(text).get("project_id") or _facts(text).get("quota_project_id")
    return found if isinstance(found, str) else ""


def located(url: str, service: Service, version: str | None, where: str) -> str:
    """`url`, with the API's version and where the account's resources are, as far as it does not say so itself."""
    plain = url.rstrip("/")
    path = urlsplit(plain).path
    own = urlsplit(service.base_url).path
    if "/projects/" in path:
        return plain
    if not path or path == own:
        plain = f"{plain.removesuffix(own)}{f'/{version}' if version else own}"
    return plain + where


def installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False


def _first_set(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for value in (environ.get(name, "").strip() for name in names) if value), "")


def _facts(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: str) -> str:
    try:
        return Path(path).read_text() if path else ""
    except (OSError, UnicodeDecodeError):
        return ""
