"""From a compiled configuration to the stages of the line: the worker's tables, built anew at each reload.

Law: values in, objects out; nothing is started here. Connections, counters and what is known of providers outlive a
reload and are handed in; everything else is replaced whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from llm_gateway.admission.auth import Keys
from llm_gateway.admission.directory import Directory
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.admission.quota import Quota
from llm_gateway.admission.tokens import Tokens
from llm_gateway.admission.vault import Vault
from llm_gateway.config.accounts import accounts, origin
from llm_gateway.config.snapshot import Alias as SnapshotAlias
from llm_gateway.config.snapshot import Caching, Cascade, Cloud, Concurrency, Provider, RateLimit, Snapshot
from llm_gateway.config.snapshot import Rule as SnapshotRule
from llm_gateway.config.snapshot import Target as SnapshotTarget
from llm_gateway.core.gauges import Gauges
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
from llm_gateway.policies.bucket import Rate
from llm_gateway.policies.cascade import Escalation
from llm_gateway.policies.gradient import Bounds
from llm_gateway.policies.retry import Policy
from llm_gateway.providers.awaiting import Awaiting
from llm_gateway.providers.registry import provider as speaker
from llm_gateway.providers.table import SERVICES
from llm_gateway.routing.alias import Alias, Goal
from llm_gateway.routing.condition import Conditions
from llm_gateway.routing.plan import Hedge, Rule, When
from llm_gateway.routing.queue import Patience, Queue
from llm_gateway.routing.replay import Replay
from llm_gateway.routing.replay import Terms as CacheTerms
from llm_gateway.routing.table import Table
from llm_gateway.routing.target import Limits, Seat
from llm_gateway.stores.memory import Memory
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.replies import Replies
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.fetch import Fetcher
from llm_gateway.upstream.pool import Origin, Pool


def formats() -> Mapping[str, Format]:
    shapes: tuple[Format, ...] = (
        OpenAIChat(), AnthropicMessages(), Gemini(), Gemini(array=True), Completions(), BedrockConverse(), OllamaChat(), OllamaGenerate(),
        OpenAIResponses(),
        *stored.shapes(), AnthropicCount(), GeminiCount(), BedrockCount(), *jobs.shapes(),
        embeddings_openai.shape(), *embeddings_gemini.shapes(), *embeddings_cohere.shapes(), *embeddings_ollama.shapes(),
        embeddings_bedrock.shape(), embeddings_vertex.shape(),
    )  # fmt: skip
    return {shape.name: shape for shape in shapes}


def keys(snapshot: Snapshot, directory: Directory | None = None, tokens: Tokens | None = None) -> Keys:
    """directory: who was made at run time. tokens: adopts this configuration's issuers."""
    if tokens is not None:
        tokens.adopt(snapshot.issuers)
    found = directory if directory is not None else Directory()
    return Keys(snapshot.secret, snapshot.keys, holders(snapshot, found), directory=found, tokens=tokens, required=snapshot.auth_required)


def holders(snapshot: Snapshot, directory: Directory) -> Holders:
    said = snapshot.tenancy
    return Holders(said.records(), Everybody(said.each_tenant, said.each_user, said.each_key), directory.find, directory.secrets)


def table(
    snapshot: Snapshot, catalogue: Catalogue, metrics: Metrics, pool: Pool, fetched: Mapping[str, str] | None = None,
    *, conditions: Conditions | None = None,
) -> Table:  # fmt: skip
    """fetched: the credentials that the operator got for providers of clouds, by provider; conditions: what is known of targets."""
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
        conditions=conditions,
        here=(snapshot.region, snapshot.zone),
        residency=snapshot.residency,
        queue=Queue(Patience(snapshot.queue_wait, snapshot.queue_length)),
        vault=Vault(snapshot.secret),
    )


def quota(snapshot: Snapshot, gauges: Gauges, metrics: Metrics) -> Quota:
    return Quota(gauges, least_output=snapshot.tenancy.least_output, shares=snapshot.tenancy.shares, on_limit=metrics.limit)


def replay(snapshot: Snapshot, shapes: Mapping[str, Format], before: Replay | None, shared: Shared | None = None) -> Replay | None:
    """None where nothing is cached; else the one before, with what it keeps, unless that is to be kept elsewhere now. shared: Redis, if any."""
    by_alias = {each.name: _terms(each.cache) for each in snapshot.aliases if each.cache is not None}
    everybody = _terms(snapshot.cache)
    if not everybody.enabled and not any(terms.enabled for terms in by_alias.values()):
        return None
    room = snapshot.cache_room // snapshot.workers
    place = shared if snapshot.cache_shared else None
    made = before
    if made is None or (made.store.shared if isinstance(made.store, Replies) else None) is not place:
        made = Replay(Replies(place) if place is not None else Memory(room), shapes)
        if before is not None and isinstance(before.store, Replies) and isinstance(made.store, Replies):
            made.store.inherit(before.store)
    made.adopt(room, everybody, by_alias, snapshot.server.timeout)
    return made


def _terms(said: Caching) -> CacheTerms:
    return CacheTerms(said.enabled, said.ttl, said.sampling, frozenset(said.ignore))


def inlay(snapshot: Snapshot, fetcher: Fetcher, metrics: Metrics) -> Inlay | None:
    """None where nothing may be fetched."""
    media = snapshot.media
    rules = Rules(frozenset(media.ports), media.hosts, media.private)
    return Inlay(fetcher, Terms(rules, media.max_bytes, media.timeout), metrics) if media.fetch else None


def origins(snapshot: Snapshot) -> set[Origin]:
    """Every origin this configuration may reach."""
    return {origin(each) for each in snapshot.providers}


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
    voice = speaker(provider.type)
    if provider.cloud is not None and fetched is None:
        voice = Awaiting(voice)
    limits = Limits(provider.timeout, provider.silence, provider.first_chunk, provider.max_retries)
    known = tuple(msgspec.structs.replace(each, mark=marks.of(provider.name, each.key_id)) for each in accounts(provider, fetched))
    return Seat(
        provider.name, provider.type, voice, known, pool.bay(origin(provider)), limits, provider.region, provider.zone,
        tuple(key.weight for key in provider.keys), provider.breaker, _bounds(provider.concurrency),
        _rate(provider.rate_limit), {key.id: rate for key in provider.keys if (rate := _rate(key.rate_limit)) is not None},
        {model: rate for model, said in provider.model_limits.items() if (rate := _rate(said)) is not None},
        {shape: field(name) for shape, name in SERVICES[provider.type].seals.items()},
        frozenset(provider.tenants), SERVICES[provider.type].forgets,
    )  # fmt: skip


def _rate(said: RateLimit | None) -> Rate | None:
    return Rate(said.requests, said.tokens) if said is not None else None


def _bounds(concurrency: Concurrency | None) -> Bounds | None:
    return Bounds(concurrency.initial, concurrency.min, concurrency.max) if concurrency is not None else None


def _alias(alias: SnapshotAlias) -> Alias:
    return Alias(
        alias.name,
        _goals(alias.targets),
        _goals(alias.fallbacks),
        _goals(alias.context_fallbacks),
        _goals(alias.content_filter_fallbacks),
        first_chunk=alias.first_chunk,
        timeout=alias.timeout,
        strategy=alias.strategy,
        sticky=alias.sticky,
        weights=alias.weights,
        residency=alias.residency,
        rules=tuple(Rule(_when(rule), rule.use) for rule in alias.rules),
        attempts=alias.attempts,
        retries=alias.retries,
        silence=alias.silence,
        attempt=alias.attempt,
        hedge=Hedge(alias.hedge.seconds, alias.hedge.quantile, alias.hedge.budget) if alias.hedge is not None else None,
        shadow=(_goals((alias.shadow.target,))[0], alias.shadow.share) if alias.shadow is not None else None,
        cascade=_escalation(alias.cascade) if alias.cascade is not None else None,
        tenants=frozenset(alias.tenants),
    )


def _escalation(said: Cascade) -> Escalation:
    matches = re.compile(said.matches) if said.matches is not None else None
    return Escalation(frozenset(said.finish), said.under, matches, said.invalid_json)


def _goals(targets: tuple[SnapshotTarget, ...]) -> tuple[Goal, ...]:
    return tuple(Goal(each.provider, each.model, each.weight, each.region, each.zone) for each in targets)


def _when(rule: SnapshotRule) -> When:
    return When(
        frozenset(rule.tags), frozenset(rule.tenants), frozenset(rule.keys), frozenset(rule.needs), rule.over, rule.under, rule.stream,
        rule.regions,
    )
