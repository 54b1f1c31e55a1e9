"""From a provider of the snapshot to where it is and as whom it is asked: the workers' requests and the operator's probes alike.

Law: values in, values out. Light: a worker imports it.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from llm_gateway.config.snapshot import Provider, ProviderKey
from llm_gateway.providers.contract import Account
from llm_gateway.providers.table import SERVICES
from llm_gateway.upstream.pool import Origin, Tls

_NO_KEY = ProviderKey(id="", value="")
FETCHED = "cloud"  # the public name of the key that a cloud gave; what it is changes, whose it is does not


def accounts(provider: Provider, fetched: str | None) -> tuple[Account, ...]:
    """One for each key. fetched: the credentials that the operator got for a provider of a cloud."""
    keys = provider.keys or (_NO_KEY,)
    if provider.cloud is not None:
        keys = (ProviderKey(id=FETCHED, value=fetched or ""),)
    return tuple(
        Account(
            provider=provider.name,
            type=provider.type,
            root=SERVICES[provider.type].root(provider.base_url),
            key=key.value,
            key_id=key.id,
            token=provider.cloud is not None,
            authority=origin(provider).authority,
            api_version=provider.api_version,
            region=provider.region,
            headers=tuple((name.lower().encode(), value.encode()) for name, value in provider.headers),
            deployments=provider.deployments,
        )
        for key in keys
    )


def origin(provider: Provider) -> Origin:
    url = urlsplit(provider.base_url)
    tls = provider.tls
    return Origin(
        scheme=url.scheme,
        host=url.hostname or "",
        port=url.port or (443 if url.scheme == "https" else 80),
        tls=Tls(tls.verify, tls.ca, tls.cert, tls.key, tls.server_name),
        proxy=provider.proxy,
        connect_timeout=provider.connect_timeout,
        idle_timeout=provider.idle_timeout,
        max_connections=provider.max_connections,
    )
