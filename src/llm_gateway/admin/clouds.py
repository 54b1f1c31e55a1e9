"""Asking AWS, Google Cloud and Azure who we are: one blocking call each, made in a thread of the operator process.

Law: the clouds' own libraries do it, so that whatever they find (variables, files, containers, instance metadata, federation) is
found. Each is loaded by its `load_*` function and nowhere else, when somebody first needs it: they take tenths of a second
and tens of megabytes. What comes back is a key as the provider's module takes it, and when it ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, assert_never

from msgspec import Struct

from llm_gateway.config.snapshot import Aws, Cloud, Entra, Google

CONNECT, READ = 5.0, 15.0  # seconds that a cloud may take to be reached, and to answer
AWS_HOME = "us-east-1"  # whose token service is asked where no region is said
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
SESSION = "llm-gateway"


class Credential(Struct, frozen=True):
    """`expires`: Unix seconds; None: it does not say."""

    value: str
    expires: float | None = None

    def __repr__(self) -> str:
        return f"Credential(expires={self.expires})"


class NoCredentialsError(Exception):
    """A cloud's library looked everywhere and found nothing."""


Fetch = Callable[[], Credential]


def source(cloud: Cloud, region: str | None) -> Fetch:
    """What fetches a fresh credential each time it is called."""
    match cloud:
        case Aws():
            return partial(_aws, cloud, region or AWS_HOME)
        case Google():
            return partial(_google, cloud)
        case Entra():
            return partial(_entra, cloud)
        case _:
            assert_never(cloud)


def load_botocore() -> tuple[Any, Any]:
    return import_module("botocore.session"), import_module("botocore.config")


def load_google_auth() -> tuple[Any, Any]:
    return import_module("google.auth"), import_module("google.auth.transport.requests")


def load_azure_identity() -> Any:
    for name in ("azure", "msal"):  # their errors say the same; a log of JSON has no place for the thirteen lines of each attempt
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return import_module("azure.identity")


def _aws(who: Aws, region: str) -> Credential:
    """From a new session each time: files and variables may have changed, and nothing is remembered that is about to end."""
    sessions, configs = load_botocore()
    session = sessions.Session(profile=who.profile)
    if who.role_arn is None:
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError("no AWS credentials were found: no variables, profile, container or instance role")
        frozen = found.get_frozen_credentials()
        # botocore tells nobody when they end; what its own refreshing goes by is the only witness.
        return _signing((frozen.access_key, frozen.secret_key, frozen.token), getattr(found, "_expiry_time", None))
    config = configs.Config(connect_timeout=CONNECT, read_timeout=READ, retries={"total_max_attempts": 2})
    asked = {"RoleArn": who.role_arn, "RoleSessionName": SESSION} | ({"ExternalId": who.external_id} if who.external_id else {})
    told = session.create_client("sts", region_name=region, config=config).assume_role(**asked)["Credentials"]
    return _signing((told["AccessKeyId"], told["SecretAccessKey"], told["SessionToken"]), told["Expiration"])


def _signing(parts: tuple[str, str, str | None], until: datetime | None) -> Credential:
    """As providers/bedrock.py takes them."""
    return Credential(":".join(part for part in parts if part), until.timestamp() if until is not None else None)


def _google(who: Google) -> Credential:
    auth, transport = load_google_auth()
    if who.credentials:
        # Configuration is the operator's own, so any kind of file is taken: key, federation, impersonation.
        found, _ = auth.load_credentials_from_dict(json.loads(who.credentials), scopes=[GOOGLE_SCOPE])
    else:
        found, _ = auth.default(scopes=[GOOGLE_SCOPE])
    found.refresh(partial(transport.Request(), timeout=READ))
    return Credential(found.token, found.expiry.replace(tzinfo=UTC).timestamp() if found.expiry is not None else None)


def _entra(who: Entra) -> Credential:
    identity = load_azure_identity()
    limits = {"connection_timeout": CONNECT, "read_timeout": READ}
    if who.client_secret:
        asked = identity.ClientSecretCredential(who.tenant_id, who.client_id, who.client_secret, **limits)
    else:
        told = {"managed_identity_client_id": who.client_id, "workload_identity_client_id": who.client_id} if who.client_id else {}
        asked = identity.DefaultAzureCredential(**told, **limits)
    token = asked.get_token(who.scope, **({"tenant_id": who.tenant_id} if who.tenant_id and not who.client_secret else {}))
    return Credential(token.token, float(token.expires_on))
