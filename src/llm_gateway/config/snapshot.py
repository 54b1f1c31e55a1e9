"""The compiled configuration: what a worker is told, in one immutable value sent as msgpack.

Law: no pydantic, no defaults that `schema.py` does not also state, nothing left to resolve: references are followed,
variables expanded, names checked, paths absolute, seconds as floats. A worker turns it into tables and forgets it.
It holds secrets: it travels by inherited file descriptor and socketpair, never by path, argument or log.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llm_gateway.core.happenings import Kind
from llm_gateway.core.issuers import Issuer
from llm_gateway.core.tenancy import Grant, Key, Project, Record, Tenant, User, project_id, tenant_id, user_id
from llm_gateway.models.catalogue import Facts
from llm_gateway.policies.breaker import Terms
from llm_gateway.stores.redis import terms as redis


class ListenerTls(Struct, frozen=True):
    """`client_ca` set: clients must present a certificate signed by it (mTLS). Files are re-read when they change."""

    cert: str
    key: str
    client_ca: str | None = None


class Listener(Struct, frozen=True):
    """One bound address. Exactly one of `port` and `path` (Unix socket) is set."""

    host: str = "0.0.0.0"  # the brief's default
    port: int | None = 8080
    path: str | None = None
    tls: ListenerTls | None = None
    proxy_protocol: bool = False


class Cors(Struct, frozen=True):
    """Empty `origins`: CORS is off. "*" allows any."""

    origins: tuple[str, ...] = ()
    max_age: int = 600


class Server(Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds. body_memory: None is a quarter of what the container has."""

    listeners: tuple[Listener, ...]
    max_connections: int = 10_000
    max_streams: int | None = None
    max_loop_lag: float = 1.0
    timeout: float = 590.0
    max_body: int = 32 << 20
    max_header_bytes: int = 32 << 10
    max_headers: int = 100
    max_uri: int = 8 << 10
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    send_timeout: float = 60.0
    body_memory: int | None = None
    trusted_proxies: tuple[str, ...] = ()
    cors: Cors = Cors()
    lame_duck: float = 10.0
    drain_timeout: float = 600.0


class RateLimit(Struct, frozen=True):
    """By the minute, for this whole gateway."""

    requests: int | None = None
    tokens: int | None = None


class ProviderKey(Struct, frozen=True):
    """`id` is a short public name of the key (its position or configured name), fit for logs and metrics."""

    id: str
    value: str
    weight: int = 1
    rate_limit: RateLimit | None = None


class ProviderTls(Struct, frozen=True):
    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None


class Aws(Struct, frozen=True, tag="aws"):
    """Credentials of the default chain, or of `profile`; with `role_arn`, of the role that those may assume."""

    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None


class Google(Struct, frozen=True, tag="google"):
    """`credentials`: the JSON that tells who we are; empty for the application default."""

    credentials: str = ""


class Entra(Struct, frozen=True, tag="entra"):
    """With a `client_secret` that application; else whoever the machine is, `client_id` choosing among its identities."""

    scope: str
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str = ""


Cloud = Aws | Google | Entra


class Concurrency(Struct, frozen=True):
    """Calls at once per target, found by watching its time to the first token."""

    initial: int = 20
    min: int = 4
    max: int = 1000


class Health(Struct, frozen=True):
    """How the operator asks a provider whether it is there; seconds. `path` None: by the service's own cheap request."""

    enabled: bool = True
    path: str | None = None
    interval: float = 30.0
    timeout: float = 5.0
    fall: int = 3
    rise: int = 2


class Provider(Struct, frozen=True, kw_only=True):
    """`type` is a row of the provider table. `base_url` has no trailing slash and no `/v1` unless the service needs it.
    `cloud`: as whom the operator fetches this provider's credentials, which then stand in for `keys`.

    timeout: one attempt of a plain call; silence: between bytes of a stream; both seconds."""

    name: str
    type: str
    base_url: str
    keys: tuple[ProviderKey, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    api_version: str | None = None
    region: str | None = None
    zone: str | None = None
    tenants: tuple[str, ...] = ()
    cloud: Cloud | None = None
    proxy: str | None = None
    tls: ProviderTls = ProviderTls()
    connect_timeout: float = 5.0
    timeout: float | None = None
    silence: float = 120.0
    first_chunk: float = 300.0
    max_retries: int = 2
    max_connections: int = 10_000
    idle_timeout: float = 60.0
    deployments: dict[str, str] = {}
    breaker: Terms = Terms()
    concurrency: Concurrency | None = None
    rate_limit: RateLimit | None = None
    model_limits: dict[str, RateLimit] = {}
    health: Health = Health()

    def owned(self, tenant: str) -> bool:
        """Whether the file gives this tenant, and nobody else, a key here."""
        return {*self.tenants} == {tenant} and bool(self.keys or self.cloud)


class Target(Struct, frozen=True):
    """`region`, `zone`: None where the provider's hold."""

    provider: str
    model: str
    weight: int = 1
    region: str | None = None
    zone: str | None = None


Strategy = Literal["priority", "weighted", "round_robin", "least_busy", "latency", "throughput", "cost", "adaptive"]
Sticky = Literal["none", "session", "prefix"]


class Rule(Struct, frozen=True, kw_only=True):
    """Requests that all of this is true of go by the alias `use`. `over`, `under`: tokens of the prompt."""

    use: str
    tags: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    over: int | None = None
    under: int | None = None
    stream: bool | None = None


class Hedge(Struct, frozen=True):
    """`seconds` None: by `quantile` of recent times to the first token."""

    seconds: float | None = None
    quantile: float = 0.95
    budget: float = 0.1


class Shadow(Struct, frozen=True):
    target: Target
    share: float


class Cascade(Struct, frozen=True):
    """What sends a whole reply back and the request to the next target. `matches`: a regular expression."""

    finish: tuple[str, ...] = ()
    under: int | None = None
    matches: str | None = None
    invalid_json: bool = False


class Caching(Struct, frozen=True):
    """What is answered from the cache. `ttl`: seconds; `ignore`: members of a body."""

    enabled: bool = False
    ttl: float = 3600.0
    sampling: bool = True
    ignore: tuple[str, ...] = ("user", "metadata", "safety_identifier")


class Alias(Struct, frozen=True, kw_only=True):
    """All lists of fallbacks are already resolved to targets, in order. `weights`: of latency, cost and errors. `attempts`, `retries`,
    `cache`: None, as for everybody."""

    name: str
    strategy: Strategy = "priority"
    targets: tuple[Target, ...]
    fallbacks: tuple[Target, ...] = ()
    context_fallbacks: tuple[Target, ...] = ()
    content_filter_fallbacks: tuple[Target, ...] = ()
    sticky: Sticky = "session"
    weights: tuple[float, float, float] = (1.0, 1.0, 2.0)
    residency: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    attempts: int | None = None
    retries: int | None = None
    silence: float | None = None
    attempt: float | None = None
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    cascade: Cascade | None = None
    first_chunk: float | None = None
    timeout: float | None = None
    cache: Caching | None = None
    tenants: tuple[str, ...] = ()


class Tenancy(Struct, frozen=True, kw_only=True):
    """What config.yaml says of who may use how much. `each_tenant`: of tenants that it does not name. `least_output`: tokens;
    `on_redis_loss`: of hard budgets. `shares`: by how many each limit is divided; `together`: workers of
    all replicas. `apart`: what each worker would count for itself, so that nobody may have it."""

    tenants: tuple[Tenant, ...] = ()
    projects: tuple[Project, ...] = ()
    users: tuple[User, ...] = ()
    each_tenant: Grant = Grant()
    each_user: Grant = Grant()
    each_key: Grant = Grant()
    least_output: int = 256
    on_redis_loss: Literal["closed", "open"] = "closed"
    shares: int = 1
    together: int = 1
    apart: tuple[Literal["limits", "budgets"], ...] = ()

    def records(self) -> dict[str, Record]:
        """By holder's id."""
        of_tenants: dict[str, Record] = {tenant_id(each.name): each for each in self.tenants}
        of_projects: dict[str, Record] = {project_id(each.tenant, each.name): each for each in self.projects}
        return of_tenants | of_projects | {user_id(each.tenant, each.name): each for each in self.users}


class Logging(Struct, frozen=True):
    """`output`: stdout, stderr or a file's absolute path."""

    level: Literal["trace", "debug", "info", "warn", "error"] = "info"
    format: Literal["json", "text"] = "json"
    output: str = "stdout"
    access: bool = True


class Retry(Struct, frozen=True):
    """Seconds; `budget` is the share of active requests that may be retries, never under `budget_min`."""

    max_attempts: int = 5
    base: float = 0.5
    cap: float = 8.0
    wait_retry_after: float = 2.0
    budget: float = 0.2
    budget_min: int = 3


class Media(Struct, frozen=True):
    """What may be fetched for targets that take no addresses. Bytes and seconds of one item; `hosts` empty: any public one."""

    fetch: bool = True
    max_bytes: int = 20 << 20
    timeout: float = 10.0
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    private: bool = False


class Snapshot(Struct, frozen=True, kw_only=True):
    """`region`, `zone`: where this gateway runs; `queue_wait` 0: nobody waits; `residency`: by tenant, "" for all others.

    `cache_room`: bytes of all workers' caches; `cache_shared`: in Redis.

    `prices`: by model, then by field of Rates, in USD per million tokens, search or request; `facts`: by model."""

    generation: int
    digest: str
    version: str
    workers: int
    data_dir: str
    secret: bytes
    server: Server
    providers: tuple[Provider, ...]
    aliases: tuple[Alias, ...]
    keys: tuple[Key, ...]
    tenancy: Tenancy = Tenancy()
    auth_required: bool = True
    issuers: tuple[Issuer, ...] = ()
    prices: dict[str, dict[str, float]] = {}
    facts: dict[str, Facts] = {}
    logging: Logging = Logging()
    retry: Retry = Retry()
    heartbeat: float = 15.0
    heartbeat_early: bool = False
    default_provider: str | None = None
    redis: redis.Terms | None = None
    journal_on_error: Literal["refuse", "continue"] = "refuse"
    strict_params: bool = False
    media: Media = Media()
    region: str | None = None
    zone: str | None = None
    residency: dict[str, tuple[str, ...]] = {}
    queue_wait: float = 0.0
    queue_length: int = 1000
    audit_requests: bool = False
    cache: Caching = Caching()
    cache_room: int = 1 << 30
    cache_shared: bool = False


class Webhook(Struct, frozen=True):
    """`key`: what is signed with. `events` empty: all."""

    url: str
    key: bytes
    events: tuple[Kind, ...] = ()
    timeout: float = 5.0
    private: bool = False

    def __repr__(self) -> str:
        return f"Webhook({self.events or 'all'})"


class Database(Struct, frozen=True):
    """`url`: with an absolute path where it is a file. `journal_keep`: seconds; `usage_days`, `sums_days`: how long rows and sums stay;
    `removed_days`: how long it is known who was removed."""

    url: str = ""
    journal_keep: float = 86_400.0
    usage_days: int = 90
    sums_days: int = 731
    removed_days: int = 30

    def __repr__(self) -> str:
        return f"Database({self.url.partition(':')[0]})"


class Operator(Struct, frozen=True):
    """What the operator is told besides the snapshot, and workers need not know. `config`: the file's path, None where only the environment speaks.

    `started`: of the gateway, on the clock that all processes of one machine share (time.monotonic). `files`: what was read, as
    config/load.py says it: what changed since has to be read again. `metrics`: where it listens, as the file said at the start."""

    config: str | None
    admin_token: str
    started: float
    webhooks: tuple[Webhook, ...] = ()
    database: Database = Database()
    files: dict[str, bytes | None] = {}
    metrics: tuple[str, int] | None = None
