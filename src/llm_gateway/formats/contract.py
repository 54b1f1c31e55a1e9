"""What an API shape is to the rest of the gateway. Pure: bytes and values in, bytes and values out.

A request is seen in three depths, each derived only when needed: `Peek` (the top-level members and the few fields that
routing needs), then the typed `Conversation`, used only to cross into another shape. Same shape in and out never gets
deeper than `Peek`: its members are re-joined, so what was checked is what is sent.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeVar, runtime_checkable

from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import Event
from llm_gateway.core.types import Completion, Conversation, Usage

Call = TypeVar("Call")
Answer = TypeVar("Answer", bound="Reply")


class Peek(Struct, gc=False):
    """A request body's top level. `members` keeps every field as written (last one wins where a key is repeated).

    `form`: what a shape whose bodies are not JSON needs to write them again."""

    members: dict[str, Raw]
    model: str
    stream: bool = False
    wants_usage: bool = False
    max_tokens: int | None = None
    form: Any = None


class Outgoing(Struct, gc=False):
    """A request or reply as one shape says it. `dropped`: dotted names of what this shape could not say."""

    body: bytes
    path: str = ""
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    dropped: tuple[str, ...] = ()
    content_type: bytes = b"application/json"
    method: bytes = b"POST"


class Summary(Struct, gc=False):
    """What accounting needs to know of a whole reply. `fault`: an error object inside a 200. `empty`: nothing was said."""

    usage: Usage | None
    finish: str | None = None
    fault: Fault | None = None


class Passage(Protocol):
    """One streamed reply on its way to the client, of whole events only; same shape (splice) or crossing.

    feed() takes any cut of the upstream's body and returns what may go to the client now; usually the very same bytes.
    The final events are kept back for `tail`, which accounting releases. After `ended` or `failed`, feed returns b"".
    """

    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish(self) -> str | None: ...  # the shape's own word
    @property
    def meaningful(self) -> bool: ...  # a client that saw this much would notice a restart
    @property
    def ended(self) -> bool: ...  # the end mark of the upstream's format went by
    @property
    def failed(self) -> Fault | None: ...  # an error event went by, or close() came too early
    @property
    def characters(self) -> int: ...  # of generated text so far; what a cancelled stream is billed by
    @property
    def between(self) -> bool: ...  # what feed returned so far ends at an event boundary

    def feed(self, data: bytes) -> bytes: ...
    # No more will come: a last event may be whole; sets ended, or failed (cut). whole: HTTP's framing says it is all
    def close(self, *, whole: bool = True) -> bytes: ...
    def tail(self, cost: float | None) -> bytes: ...  # the held last events
    def fail(self, fault: Fault) -> bytes: ...  # an error event in the client's shape; nothing comes after it
    def heartbeat(self) -> bytes: ...  # b"" where the shape has none
    def follow(self) -> None: ...  # before the first feed: what `curtail` takes is to be remembered
    # Ends it here as at the reply's greatest length; `tail` says so. False: not in this shape, not here, or it is over anyway
    def curtail(self, usage: Usage) -> bool: ...


class StreamReader(Protocol):
    """Upstream bytes in one shape -> events. Tolerates every cut."""

    def feed(self, data: bytes) -> list[Event]: ...
    def close(self) -> list[Event]: ...


class StreamWriter(Protocol):
    """Events -> bytes in the client's shape."""

    def write(self, event: Event) -> bytes: ...  # Fault(UPSTREAM_ERROR) for an end that the shape cannot tell
    def tail(self, cost: float | None) -> bytes: ...
    def fail(self, fault: Fault) -> bytes: ...
    def heartbeat(self) -> bytes: ...


class Reply(Protocol):
    """What every whole reply tells, whatever it replies to."""

    @property
    def usage(self) -> Usage | None: ...
    @property
    def finish(self) -> str | None: ...


class Shape(Protocol[Call, Answer]):
    """One API shape, both sides. Stateless; one reader, writer or passage per stream.

    Shapes of one operation share its `Call` and `Answer` (chat: Conversation and Completion) and can be crossed. A shape that
    nothing crosses has no typed call: its last eight methods are never called, since its providers speak it themselves."""

    name: str
    stream_type: bytes  # the content type of a streamed reply; b"" where the upstream's reply says it
    request_headers: frozenset[bytes]  # lower case; the client's, forwarded to a same-shape upstream
    reply_headers: frozenset[bytes]  # lower case; the upstream's, forwarded to a same-shape client

    # model, stream: as the path says it, for shapes that put it there. Fault(INVALID, param=...) on anything malformed
    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek: ...
    def forward(self, peek: Peek, model: str) -> Outgoing: ...  # same shape: untouched but for model and usage option
    def summarise(self, body: bytes) -> Summary: ...  # Fault(UPSTREAM_BROKEN) if it is no reply of this shape
    def splice(self, peek: Peek) -> Passage: ...

    def write_error(self, fault: Fault, request_id: str) -> Outgoing: ...
    def read_error(self, status: int, body: bytes) -> Fault: ...  # this shape's error bodies -> a kind; providers refine it

    def read_request(self, peek: Peek) -> Call: ...  # Fault(INVALID, param=path)
    def write_request(self, call: Call, model: str) -> Outgoing: ...  # Fault(INVALID) if the meaning would change
    def read_reply(self, body: bytes) -> Answer: ...
    # now: Unix seconds, for shapes that say when a reply was made, where the upstream's did not
    # Fault(UPSTREAM_ERROR) for a failure that the shape cannot tell in a reply
    def write_reply(self, reply: Answer, call: Call, now: int = 0) -> Outgoing: ...
    def stream_reader(self) -> StreamReader: ...
    def stream_writer(self, call: Call, now: int = 0) -> StreamWriter: ...


@runtime_checkable
class Stepwise(Protocol):
    """A shape whose requests can be long conversations: read and written in steps, between which others may have the loop."""

    def read_steps(self, peek: Peek) -> Generator[None, None, Any]: ...
    def write_steps(self, call: Any, model: str) -> Generator[None, None, Outgoing]: ...


Format = Shape[Any, Any]
Chat = Shape[Conversation, Completion]
