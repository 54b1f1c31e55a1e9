"""From a compiled configuration to the stages of the line: the worker's tables, built anew at each reload.

Law: values in, objects out; nothing is started here. Connections, counters and what is known of providers outlive a
reload and are handed in; everything else is replaced whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from llm_gateway.admission.auth import Keys
from llm_gateway.config.snapshot import Alias as SnapshotAlias
from llm_gateway.config.snapshot import Cloud, Provider, ProviderKey, Snapshot
from llm_gateway.core.exchange import Principal
from llm_gateway.egress.media import Inlay, Terms
from llm_gateway.formats import (
    embeddings_bedrock,
    embeddings_cohere,
    embeddings_gemini,
    embeddings_ollama,
    embeddings_openai,
    embeddings_vertex,
    jobs,
)
from llm_gateway.formats.anthropic_messages import AnthropicMessages
from llm_gateway.formats.bedrock_converse import BedrockConverse
from llm_gateway.formats.completions import Completions
from llm_gateway.formats.contract import Format
from llm_gateway.formats.counting import AnthropicCount, GeminiCount
from llm_gateway.formats.counting_bedrock import BedrockCount
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.marks import Marks, field
from llm_gateway.formats.ollama import OllamaChat, OllamaGenerate
from llm_gateway.formats.openai_chat import OpenAIChat
from llm_gateway.formats.openai_responses import OpenAIResponses, stored
from llm_gateway.models.catalogue import Catalogue
from llm_gateway.models.own import Own
from llm_gateway.policies.addresses import Rules
from llm_gateway.policies.retry import Policy
from llm_gateway.providers.awaiting import Awaiting
from llm_gateway.providers.contract import Account
from llm_gateway.providers.registry import provider as speaker
from llm_gateway.providers.table import SERVICES
from llm_gateway.routing.table import Alias, Table
from llm_gateway.routing.target import Limits, Seat
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.fetch import Fetcher
from llm_gateway.upstream.pool import Origin, Pool, Tls

_NO_KEY = ProviderKey(id="", value="")
_FETCHED = "cloud"  # the public name of the key that a cloud gave; what it is changes, whose it is does not


def formats() -> Mapping[str, Format]:
    shapes: tuple[Format, ...] = (
        OpenAIChat(), AnthropicMessages(), Gemini(), Gemini(array=True), Completions(), BedrockConverse(), OllamaChat(), OllamaGenerate(),
        OpenAIResponses(),
        *stored.shapes(), AnthropicCount(), GeminiCount(), BedrockCount(), *jobs.shapes(),
        embeddings_openai.shape(), *embeddings_gemini.shapes(), *embeddings_cohere.shapes(), *embeddings_ollama.shapes(),
        embeddings_bedrock.shape(), embeddings_vertex.shape(),
    )  # fmt: skip
    return {shape.name: shape for shape in shapes}


def keys(snapshot: Snapshot) -> Keys:
    principals = [
        (key.digest or key.aws.encode(), Principal(key.name, key.tenant, frozenset(key.models), bool(key.aws)))
        for key in snapshot.keys
    ]
    return Keys(snapshot.secret, principals, required=snapshot.auth_required)


def table(
    snapshot: Snapshot, catalogue: Catalogue, metrics: Metrics, pool: Pool, fetched: Mapping[str, str] | None = None
) -> Table:
    """fetched: the credentials that the operator got for providers of clouds, by provider."""
    retry, marks = snapshot.retry, Marks(snapshot.secret)
    return Table(
        [_seat(each, pool, (fetched or {}).get(each.name), marks) for each in snapshot.providers],
        [_alias(each) for each in snapshot.aliases],
        Own(catalogue, snapshot.prices, snapshot.facts),
        metrics,
        policy=Policy(
            retry.max_attempts, retry.base, retry.cap, retry.wait_retry_after, retry.budget, retry.budget_min
        ),
        default=snapshot.default_provider,
    )


def inlay(snapshot: Snapshot, fetcher: Fetcher, metrics: Metrics) -> Inlay | None:
    """None where nothing may be fetched."""
    media = snapshot.media
    rules = Rules(frozenset(media.ports), media.hosts, media.private)
    return Inlay(fetcher, Terms(rules, media.max_bytes, media.timeout), metrics) if media.fetch else None


def origins(snapshot: Snapshot) -> set[Origin]:
    """Every origin this configuration may reach."""
    return {_origin(each) for each in snapshot.providers}


def waiting(table: Table) -> frozenset[str]:
    """Providers that nothing can be sent to before the operator has their credentials."""
    return frozenset(name for name, seat in table.seats.items() if isinstance(seat.speaker, Awaiting))


def still_good(fetched: Mapping[str, str], before: Snapshot, after: Snapshot) -> dict[str, str]:
    """The credentials of providers that are who they were; another identity, or another place to send it to, has to wait."""
    known = {_whose(each) for each in before.providers}
    return {each.name: fetched[each.name] for each in after.providers if each.name in fetched and _whose(each) in known}


def _whose(provider: Provider) -> tuple[str, str, Cloud | None]:
    return provider.name, provider.base_url, provider.cloud


def _seat(provider: Provider, pool: Pool, fetched: str | None, marks: Marks) -> Seat:
    keys = provider.keys or (_NO_KEY,)
    voice = speaker(provider.type)
    if provider.cloud is not None:
        keys = (ProviderKey(id=_FETCHED, value=fetched or ""),)
        voice = voice if fetched is not None else Awaiting(voice)
    accounts = tuple(
        Account(
            provider=provider.name,
            type=provider.type,
            root=SERVICES[provider.type].root(provider.base_url),
            key=key.value,
            key_id=key.id,
            token=provider.cloud is not None,
            authority=_origin(provider).authority,
            api_version=provider.api_version,
            region=provider.region,
            headers=tuple((name.lower().encode(), value.encode()) for name, value in provider.headers),
            deployments=provider.deployments,
            mark=marks.of(provider.name, key.id),
        )
        for key in keys
    )
    limits = Limits(provider.timeout, provider.silence, provider.first_chunk, provider.max_retries)
    seals = {shape: field(name) for shape, name in SERVICES[provider.type].seals.items()}
    return Seat(provider.name, provider.type, voice, accounts, pool.bay(_origin(provider)), limits, seals)


def _origin(provider: Provider) -> Origin:
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


def _alias(alias: SnapshotAlias) -> Alias:
    return Alias(
        alias.name,
        tuple((target.provider, target.model) for target in alias.targets),
        tuple((target.provider, target.model) for target in alias.fallbacks),
        alias.first_chunk,
        alias.timeout,
    )

