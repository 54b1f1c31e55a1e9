"""The one mutable record of a request, from its head to its settlement.

Law: data only; whoever owns a stage fills that stage's fields and reads those of earlier stages.
  ingress    everything down to `body`; admission  `principal`, `peek`;  routing  `target`, `attempts`;
  egress     `status`, `bytes_out`, `committed`, `first_byte`;            accounting  `cost`, `settled`.
Times are perf_counter seconds, except `wall` (Unix seconds, for records).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.tenancy import INFERENCE, Holder, Scope
from llm_gateway.core.types import Usage

if TYPE_CHECKING:
    import asyncio


SHADOW = "shadow"  # label and key of copies that no client asked for


class Client(Protocol):
    """Where a reply goes: the connection that a request came in on."""

    @property
    def alive(self) -> bool: ...
    @property
    def paused(self) -> bool: ...

    sink: Any  # told when the client's buffer is full (pause) and empty again (resume)

    def send(self, data: bytes) -> None: ...  # part of a reply
    def hold(self, x: Exchange, size: int) -> bool: ...  # so many bytes more belong to the request; False: there is no room
    def release(self, x: Exchange) -> None: ...  # the request's body is not needed any more
    def finish(self, x: Exchange, data: bytes) -> None: ...  # the last bytes of a reply; the next request may start
    def abort(self, x: Exchange) -> None: ...  # the reply broke: the client must not take it for whole


class Route(Struct, frozen=True, gc=False):
    """What a method and path mean. `format` names the API shape the client speaks; `label` is the metrics' word;
    `id_header`: where the shape's SDK looks for the request's id, besides x-request-id. `stream`: what the path says of
    streaming, for shapes whose bodies do not; the model is then the path's first parameter. `sealed`: ids in its requests and
    replies are sealed; `asked`: by its path and query alone."""

    operation: str
    format: str
    label: str
    body: bool = False
    open: bool = False
    id_header: bytes = b""
    stream: bool | None = None
    sealed: bool = False
    asked: bool = False


class Principal(Struct, frozen=True, gc=False):
    """Who asks. `key`: its public name, `id`: its own for ever. `models`: the only ones allowed, `regions`: where requests may be
    answered; empty means all. `signs`: proves itself by AWS signatures, not by a key. `max_output`: tokens of a reply at most.
    `expires`: Unix seconds, 0 never. `ips`: networks it may come from. `holders`: whose limits its requests count against, the key first.
    `secrets`: its tenant's own keys at providers, sealed."""

    key: str
    tenant: str
    models: frozenset[str] = frozenset()
    signs: bool = False
    id: str = ""
    project: str = ""
    user: str = ""
    regions: frozenset[str] = frozenset()
    max_output: int | None = None
    expires: float = 0.0
    ips: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = INFERENCE
    holders: tuple[Holder, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()


class Attempt(Struct, frozen=True, omit_defaults=True, gc=False):
    """One upstream attempt of a request that needed several; the last is the one that became the reply, if any did. `ms`
    is its length. `input`, `output`, `cost` (nano-USD): of one that cost something and did not become the reply; `estimated` where the
    provider did not say."""

    provider: str
    model: str
    key: str
    outcome: str
    status: int
    ms: float
    input: int = 0
    output: int = 0
    cost: int = 0
    estimated: bool = False


class Pin(Struct, frozen=True, gc=False):
    """The account that a request is bound to, since only it knows an id in it. `param`: the field that holds the id. `mark`: of
    the account that sealed its thoughts, which goes first; others may answer without those thoughts."""

    provider: str = ""
    key_id: str = ""
    param: str = ""
    mark: bytes = b""


class Exchange(Struct, kw_only=True):
    id: str
    client: Client
    route: Route
    method: bytes = b""
    path: bytes = b""
    query: bytes = b""
    params: tuple[str, ...] = ()
    headers: dict[bytes, bytes] = {}
    known: Any = None  # what was remembered of this very head, if it came before
    peer: str = ""
    request_id: str = ""
    started: float = 0.0
    wall: float = 0.0
    http10: bool = False
    keep_alive: bool = True
    body: bytes = b""
    bytes_in: int = 0
    body_hash: str = ""  # of a large body whose signature is to be checked: hashed beforehand, in a thread
    held: int = 0  # bytes of it that count against the memory for bodies
    prompt_estimate: int = 0  # tokens, once the body is released
    task: asyncio.Task[None] | None = None
    detached: bool = False  # goes on when its client leaves
    fault: Fault | None = None

    principal: Principal | None = None
    peek: Any = None
    call: Any = None
    filled: Any = None  # the call with the bytes of media that it names by address, once a target needs those
    stream: bool = False
    model: str = ""
    pin: Pin | None = None
    later: bool = False  # its reply is made whether or not anybody listens
    marked: Any = None  # the peek as it came, where it bears marks of accounts; `peek` is then what the account `mark` may see
    mark: bytes | None = None  # b"" of a tenant's own, which has none
    lost: tuple[str, ...] = ()  # what that account may not see

    target: Any = None
    attempts: list[Attempt] = []
    tries: int = 0
    fallbacks: int = 0
    upstream_ms: float = 0.0
    upstream_started: float = 0.0  # of the attempt under way; 0 while nothing was sent for it
    first_sent: float = 0.0  # when the first attempt began
    upstream_id: str = ""
    dropped: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()  # wishes about routing that nobody here honours
    measured: bool = False  # somebody chooses by what this request will have taken
    extra: bytes = b""
    deadline: float = 0.0

    status: int = 0
    bytes_out: int = 0
    heard: float = 0.0
    committed: bool = False
    broken: bool = False
    passage: Any = None
    cascade: Any = None  # who judges whether a reply will do, while there is another to ask
    makeshift: Any = None  # the last reply that was sent back, should nobody give a better one
    stands_in: bool = False  # it became the reply
    hold: Any = None  # what was reserved of its principal's limits; settled with it
    absorbed: int = 0  # nano-USD of attempts that did not become the reply
    late: int = 0  # of them, what was not known yet when the reply was told its cost
    wasted: Usage | None = None  # of the attempt under way, once it is known that it will not
    first_byte: float = 0.0
    characters: int = 0
    finish: str | None = None

    usage: Usage | None = None
    partial: Usage | None = None  # what a stream said of its usage before it broke
    cost: int | None = None
    cached: bool = False  # answered from the cache
    saved: int | None = None  # nano-USD, by that
    settled: bool = False
