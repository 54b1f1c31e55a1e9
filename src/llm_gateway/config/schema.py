"""What may stand in config.yaml: every section, option, default and bound, said once.

Law: shape only. No file, no environment, no look at other sections; what needs two places to judge is `compile.py`'s.
Every field carries the sentence that docs/configuration.md and the JSON Schema show. Unknown names are errors.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from llm_gateway.config.operations import Events, ProviderHealth
from llm_gateway.config.schema_auth import Auth
from llm_gateway.config.schema_cache import Cache
from llm_gateway.config.schema_redis import Redis
from llm_gateway.config.schema_resilience import Breaker, Concurrency, RateLimit, Resilience
from llm_gateway.config.schema_routing import Alias, Region, Regions
from llm_gateway.config.schema_state import Database, Journal, Usage
from llm_gateway.config.schema_tenancy import Budgets, Defaults, Key, Name, Tenant
from llm_gateway.config.values import (
    Bytes,
    Credential,
    Headers,
    Level,
    Modality,
    Port,
    Seconds,
    Section,
    Url,
    Usd,
    Workers,
    readable,
)


class Tls(Section):
    cert: str = Field(description="Certificate chain, a PEM file; read again when it changes.")
    key: str = Field(description="Private key, a PEM file.")
    client_ca: str | None = Field(default=None, description="Clients must show a certificate signed by this CA (mTLS).")


class Cors(Section):
    origins: tuple[str, ...] = Field(
        default=(), description='Origins browsers may call from; "*" is any, none turns CORS off.'
    )
    max_age: Annotated[int, Field(ge=0)] = Field(default=600, description="Seconds a browser may remember a preflight.")


class Server(Section):
    host: str = Field(default="0.0.0.0", description="Address to listen on (SERVER_HOST).")
    port: Port = Field(default=8080, description="Port of the API (SERVER_PORT); 0 takes a free one.")
    metrics_host: str | None = Field(default=None, description="Address of the operator plane; `host` if unset.")
    metrics_port: Port = Field(default=9090, description="Port of metrics, health and admin API (METRICS_PORT).")
    unix_socket: str | None = Field(default=None, description="Serve the API on this Unix socket as well.")
    tls: Tls | None = Field(default=None, description="Serve https instead of http on `port`.")
    proxy_protocol: bool = Field(default=False, description="Expect a PROXY protocol v1 or v2 head on each connection.")
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="Networks whose X-Forwarded-* and PROXY heads are believed; if empty, PROXY heads of anybody. "
        "The operator plane believes X-Forwarded-For alone, of those at its start.",
    )
    region: Region | None = Field(default=None, description="Where this gateway runs: targets in the same region, then area, come first.")
    zone: Region | None = Field(default=None, description="The zone within the region.")
    cors: Cors = Field(default=Cors(), description="Cross-origin requests of browsers.")
    max_connections: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description="Open client connections per worker; half of the descriptors it may open, if that is less. Health is answered up to it, "
        "other new connections are refused above 95 % of it.",
    )
    max_streams: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Streams relayed at once per worker; above 95 % of it, 503. Unset: as many as connections."
    )
    max_loop_lag_seconds: Seconds = Field(
        default=1.0, description="A worker that is late by so much, again and again, answers new requests with 503; 0: never."
    )
    timeout_seconds: Seconds = Field(default=590.0, description="Whole request; just below the SDKs' 600.")
    max_body_bytes: Bytes = Field(default=32 << 20, description="Largest request body; more is 413.")
    max_header_bytes: Bytes = Field(default=32 << 10, description="All request headers together; more is 431.")
    max_headers: Annotated[int, Field(ge=1)] = Field(default=100, description="Number of request headers; more is 431.")
    max_uri_bytes: Bytes = Field(default=8 << 10, description="Longest request target; more is 414.")
    header_timeout_seconds: Seconds = Field(default=10.0, description="For a whole request head; then 408.")
    body_timeout_seconds: Seconds = Field(default=30.0, description="Longest gap within a request body; then 408.")
    idle_timeout_seconds: Seconds = Field(default=75.0, description="Keep-alive of an idle client connection.")
    send_timeout_seconds: Seconds = Field(default=60.0, description="A client that reads nothing for so long is cut.")
    body_memory_bytes: Bytes | None = Field(
        default=None,
        description="Request bodies held at once per worker; above it, 503. Unset: its share of a quarter of the container's memory (cgroup), "
        "256 MiB where that has no limit. Beside it a worker keeps up to 16 MiB that bodies took, so as not to ask the kernel for it each time; "
        "glibc's `MALLOC_TRIM_THRESHOLD_` in the environment says otherwise.",
    )


class Drain(Section):
    lame_duck: Seconds = Field(
        default=10.0, description="After SIGTERM: keep accepting, but answer with `Connection: close`."
    )
    timeout: Seconds = Field(default=600.0, description="Then open requests may take so long before they get an error.")


class ProviderKey(Section):
    key: Credential = Field(description="The key itself, usually `${VAR}` or `file:/path`.")
    name: str | None = Field(default=None, description="Public name in logs and metrics; its position if unset.")
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = Field(default=1, description="Share among the provider's keys.")
    rate_limit: RateLimit | None = Field(default=None, description="What may go there with this key.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"key": value} if isinstance(value, str) else value


class ProviderTls(Section):
    verify: bool = Field(default=True, description="Check the server's certificate.")
    ca: str | None = Field(default=None, description="Trust this CA file instead of the system's; read again when it changes.")
    cert: str | None = Field(default=None, description="Client certificate (mTLS), a PEM file; read again when it changes.")
    key: str | None = Field(default=None, description="Key of the client certificate, a PEM file.")
    server_name: str | None = Field(default=None, description="Name expected in the certificate, if not the host.")


class Entra(Section):
    tenant_id: str | None = Field(default=None, min_length=1, description="Directory of the application or identity.")
    client_id: str | None = Field(
        default=None, min_length=1, description="The application; without `client_secret`, which of the machine's identities."
    )
    client_secret: SecretStr | None = Field(default=None, description="The application's secret.")
    scope: str = Field(
        default="https://cognitiveservices.azure.com/.default", min_length=1, description="What the token is for."
    )

    @model_validator(mode="after")
    def _whole(self) -> Entra:
        if self.client_secret is not None and (self.tenant_id is None or self.client_id is None):
            raise ValueError("`client_secret` needs `tenant_id` and `client_id` beside it")
        return self


class Provider(Section):
    enabled: bool = Field(default=True, description="`false`: as if it were not here.")
    type: str | None = Field(default=None, description="A known service; the provider's name if unset.")
    base_url: Url | None = Field(default=None, description="With or without `/v1`; the service's own if unset.")
    api_key: Credential | None = Field(
        default=None, description="The key; from the service's own variable if unset; `none` sends none."
    )
    keys: tuple[ProviderKey, ...] = Field(default=(), description="Several keys instead of `api_key`.")
    region: Region | None = Field(
        default=None,
        description="Where it runs; routing and `residency` go by it. Bedrock's (AWS_REGION; else us-east-1) and Vertex's "
        "(GOOGLE_CLOUD_LOCATION; else global) address follows from it.",
    )
    zone: Region | None = Field(default=None, description="The zone within the region, such as eu-west-1a.")
    tenants: tuple[str, ...] = Field(default=(), description="Whose it is: no other tenant's request goes there. Everybody's if empty.")
    profile: str | None = Field(default=None, min_length=1, description="AWS: profile of the shared configuration files.")
    role_arn: str | None = Field(default=None, pattern="^arn:", description="AWS: the role to assume.")
    external_id: str | None = Field(default=None, min_length=2, description="AWS: what that role wants to be told.")
    project: Annotated[str, Field(pattern=r"^[a-z0-9.:-]{1,100}$")] | None = Field(
        default=None, description="Google Cloud: the project (GOOGLE_CLOUD_PROJECT; else the one that `credentials` name)."
    )
    credentials: SecretStr | None = Field(
        default=None, description="Google Cloud: `file:/path` of a JSON key or federation file; else the application default."
    )
    entra: Entra | None = Field(
        default=None, description="Azure: Entra ID instead of a key; `true` is whoever the machine is, `false` nobody."
    )
    api_version: str | None = Field(
        default=None, description="Azure's `api-version`, Anthropic's `anthropic-version`, Vertex's `v1` or `v1beta1`."
    )
    headers: Headers = Field(default={}, description="Added to every request to it.")
    proxy: Annotated[str, Field(pattern=r"^http://[^\s/?#]+/?$"), AfterValidator(readable)] | None = Field(
        default=None, description="HTTP proxy to reach it through, `http://[user:password@]host:port`."
    )
    tls: ProviderTls = Field(default=ProviderTls(), description="How TLS to it is checked.")
    timeout_seconds: Seconds | None = Field(
        default=None, description="One attempt of a plain call, and silence within a stream. Unset: none, and 120 s."
    )
    connect_timeout_seconds: Seconds = Field(default=5.0, description="TCP and TLS, per address.")
    first_chunk_timeout_seconds: Seconds = Field(default=300.0, description="First meaningful chunk of a stream.")
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=2, description="Further attempts on the same target."
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(default=10_000, description="Connections to it per worker.")
    idle_timeout_seconds: Seconds = Field(default=60.0, description="Keep an unused connection so long.")
    deployments: dict[str, str] = Field(default={}, description="Model name -> deployment name (Azure).")
    rate_limit: RateLimit | None = Field(
        default=None, description="What may go there, with all its keys; then the next target is asked, or the request waits (`resilience.queue`)."
    )
    model_limits: dict[str, RateLimit] = Field(default={}, description="The same by model, for each key.")
    breaker: Breaker | None = Field(default=None, description="Its own circuit breaker, instead of `resilience.breaker`.")
    concurrency: Concurrency | None = Field(
        default=None, description="Find out how many calls at once it takes, instead of `resilience.concurrency`."
    )
    health: ProviderHealth = Field(default=ProviderHealth(), description="How the operator process asks whether it is there.")

    @field_validator("entra", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """A variable's value is text."""
        word = value.strip().lower() if isinstance(value, str) else value
        if word in (True, "true"):
            return {}
        return None if word in (False, "false", "") else value


class Admin(Section):
    token: SecretStr | None = Field(
        default=None, description="Bearer token of the admin API; generated in `data_dir` if unset."
    )


class Logging(Section):
    level: Level = Field(
        default="info",
        description="trace, debug, info, warn or error (LOG_LEVEL, RUST_LOG). Of processes' notices; the access log is `access`.",
    )
    format: Literal["json", "text"] = Field(
        default="json", description="json or text, of processes' notices; the access log is JSON."
    )
    output: str = Field(
        default="stdout", description="Access log: stdout, stderr or a file. Processes' own notices go to stderr."
    )
    access: bool = Field(default=True, description="One line per request.")


class Heartbeat(Section):
    early: bool = Field(
        default=False, description="Also while the provider has not answered yet. The status is then 200 whatever it says; errors come in the stream."
    )
    interval: Seconds = Field(
        default=15.0, description="Silence in a stream after which the client gets a sign of life; 0: never."
    )


class Audit(Section):
    requests: bool = Field(default=False, description="A line for every request too: who, what, which model, which status; no content.")


class Price(Section):
    """Beside their own rates, details are billed as what they are part of: cached tokens as input, reasoning as output."""

    input: Usd | None = Field(default=None, description="USD per million prompt tokens.")
    output: Usd | None = Field(default=None, description="USD per million generated tokens.")
    cache_read: Usd | None = Field(default=None, description="USD per million tokens read from a cache.")
    cache_write: Usd | None = Field(default=None, description="USD per million tokens written to a cache.")
    cache_write_1h: Usd | None = Field(default=None, description="USD per million tokens written to a cache for an hour.")
    cache_audio: Usd | None = Field(default=None, description="USD per million tokens of sound read from a cache.")
    audio_input: Usd | None = Field(default=None, description="USD per million prompt tokens of sound.")
    audio_output: Usd | None = Field(default=None, description="USD per million generated tokens of sound.")
    image_input: Usd | None = Field(default=None, description="USD per million prompt tokens of images.")
    image_output: Usd | None = Field(default=None, description="USD per million generated tokens of images.")
    reasoning: Usd | None = Field(default=None, description="USD per million generated tokens of reasoning.")
    search: Usd | None = Field(default=None, description="USD per web search.")
    request: Usd | None = Field(default=None, description="USD per request, beside its tokens.")


class Model(Section):
    context: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Tokens of prompt and reply together.")
    max_output: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Tokens of a reply.")
    input: tuple[Modality, ...] | None = Field(default=None, description="What it reads: text, image, audio, video, document.")
    output: tuple[Modality, ...] | None = Field(default=None, description="What it writes, in the same words.")
    tools: bool | None = Field(default=None, description="Whether it calls tools.")
    structured_output: bool | None = Field(default=None, description="Whether it keeps to a JSON Schema.")
    reasoning: bool | None = Field(default=None, description="Whether it thinks before it answers.")
    deprecated: bool | None = Field(default=None, description="Whether callers should look for another; replies say so in a header.")
    retires: date | None = Field(default=None, description="The last day it is served, such as 2026-12-31.")
    regions: tuple[str, ...] | None = Field(default=None, description="Where it runs; the provider's `region` if unset.")


class Media(Section):
    fetch: bool = Field(default=True, description="Fetch what a request names by URL, for a target that takes bytes only.")
    max_bytes: Annotated[Bytes, Field(le=1 << 30)] = Field(default=20 << 20, description="Largest item; a request gets twice as much.")
    timeout_seconds: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="For one item, from its name's look-up on.")
    allow_hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9._:-]+$")], ...] = Field(
        default=(), description="The only hosts to fetch from, in lower case; `*.example.com` is all below. Any public one if empty."
    )
    allow_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(default=(80, 443), description="Ports to fetch from.")
    allow_private: bool = Field(
        default=False, description="Fetch from loopback and private networks too; never from link-local or a cloud's metadata."
    )


class Residency(Section):
    default: tuple[Regions, ...] = Field(default=(), description="Where requests of everybody else may be answered; anywhere if empty.")
    tenants: dict[str, tuple[Regions, ...]] = Field(default={}, description="By tenant: where its requests may be answered.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"default": value} if isinstance(value, list) else value


class Root(Section):
    """The whole file. An empty one is a valid one."""

    server: Server = Field(default=Server(), description="Listening, limits and timeouts towards clients.")
    workers: Workers = Field(default=1, description="Serving processes, one core each; `auto` (or 0) is one per core.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="Gateways that serve together; above 1, limits need Redis.")
    state: Literal["per_worker"] | None = Field(
        default=None,
        description="With several workers or replicas and no Redis, limits need a say: `per_worker` divides each by their number. Unset, they are refused.",
    )
    data_dir: str = Field(default="./data", description="The only writable folder: journal, database, secret, generated keys.")
    secret: SecretStr | None = Field(
        default=None, description="Keys the hashes of API keys (LLM_GATEWAY_SECRET); generated in `data_dir` if unset."
    )
    providers: dict[str, Provider] = Field(default={}, description="Upstream services, by any name.")
    models: dict[str, Alias] = Field(default={}, description="Aliases: what clients may call, and where it leads.")
    default_provider: str | None = Field(default=None, description="Takes models that nothing else names.")
    keys: tuple[Key, ...] = Field(
        default=(), description="API keys of clients. With none, a development key is generated."
    )
    tenants: dict[Name, Tenant] = Field(default={}, description="Who keys belong to, and what all of a tenant's keys may use together.")
    limits: Defaults = Field(default=Defaults(), description="Limits of whoever has none of their own.")
    budgets: Budgets = Field(default=Budgets(), description="Budgets of whoever has none of their own, and what holds for all.")
    auth: Auth = Field(default=Auth(), description="Who may call.")
    admin: Admin = Field(default=Admin(), description="The operator plane's admin API.")
    cache: Cache = Field(default=Cache(), description="Response cache, in each worker's memory.")
    logging: Logging = Field(default=Logging(), description="Logs.")
    resilience: Resilience = Field(default=Resilience(), description="What is done about failures.")
    residency: Residency = Field(
        default=Residency(), description="Regions, areas (`eu`, `us`) or patterns (`eu-*`) that requests must not leave; 403 where none is left."
    )
    heartbeat: Heartbeat = Field(default=Heartbeat(), description="Signs of life in silent streams.")
    drain: Drain = Field(default=Drain(), description="Going down without cutting anybody.")
    database: Database = Field(default=Database(), description="Where the operator keeps what it knows: keys made at run time, usage.")
    journal: Journal = Field(default=Journal(), description="The record of usage, as workers write it.")
    usage: Usage = Field(default=Usage(), description="The record of usage, as the database keeps it.")
    audit: Audit = Field(default=Audit(), description="The audit log in `data_dir`: administrative changes and refused authentications, always.")
    redis: Redis = Field(default=Redis(), description="The Redis or Valkey that workers and replicas share.")
    prices: dict[str, Price] = Field(
        default={}, description="Own prices by `provider/model`, alias or bare model name (the narrowest wins), over the catalogue's."
    )
    catalogue: dict[str, Model] = Field(
        default={}, description="Facts of models, by the same names, over the catalogue's; `GET /v1/models` lists them."
    )
    media: Media = Field(default=Media(), description="Media by URL, for targets that take bytes only.")
    helper: Literal["auto", "off"] = Field(
        default="auto", description="The process that counts tokens exactly: `auto`, where a provider cannot count itself; `off`: estimates. Read at start."
    )
    events: Events = Field(default=Events(), description="Who is told what happens.")


# Sections and options of later versions. They are refused, since a limit that silently does nothing is worse than none.
LATER = frozenset(
    {
        "strict_params",
        "guards", "telemetry", "plugins", "batches", "files",
        "cache.semantic",
        "resilience.timeouts", "resilience.hedge",
        "models.*.params",
        "models.*.capabilities", "providers.*.passthrough",
    }
)  # fmt: skip
