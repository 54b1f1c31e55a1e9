"""One attempt's reply on its way through: what the upstream connection tells, the client gets, without a task in between.

Law: nothing reaches the client before the first meaningful event; until then the attempt may fail and another take its
place, client unaware. From then on (`x.committed`) bytes go straight from the upstream's read callback to the client's
transport, by whole events. The end of a stream (its last events, the chunk terminator) is not sent here: it is kept for
the ledger. Two more things never happen here: an exception out of a callback, and a decision about retrying.

    upstream.head -> collecting (errors, plain replies) ................................. end -> done
                  -> streaming: pending --meaningful--> committed --end mark or error--> done
    anything --lost, time, client gone--> done, with a fault
"""

from __future__ import annotations

import asyncio
import zlib
from time import perf_counter
from typing import Protocol

from msgspec import Struct

from llm_gateway.accounting.estimate import prompt_tokens
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.respond import head, upstream_id
from llm_gateway.egress.spending import Spending
from llm_gateway.formats.contract import Passage
from llm_gateway.formats.unframed import FRAMED, Unframed

MOST_ERROR = 64 << 10
MOST_REPLY = 64 << 20
SMALL_BODY = 4 << 10  # kept with its stream: less than what is known of the stream anyway
MOST_HELD = 16 << 20
LINES = b"application/x-ndjson"
INFLATE = 20  # a compressed reply may grow to this many times its size

_WBITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_STREAM_HEADERS = b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Upstream(Protocol):
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Inflate(Protocol):
    """zlib.decompressobj()."""

    @property
    def unconsumed_tail(self) -> bytes: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Limits(Protocol):
    """Seconds; routing.target.Limits is one."""

    @property
    def attempt(self) -> float | None: ...
    @property
    def silence(self) -> float: ...
    @property
    def first_chunk(self) -> float: ...


class Relay(Struct, kw_only=True, eq=False):
    """Awaited through `done`; afterwards `fault` says what went wrong, or `status`, `headers`, `body` what came.

    A Struct because one is made per attempt: its fields are set by C. Those after `streaming` are its own affair, but for the last.
    `spending`: where money may run out. `content_type`: of a stream to the client; `spoken_type`: as the upstream's shape has it.
    """

    x: Exchange
    passage: Passage | None
    upstream: Upstream
    limits: Limits
    done: asyncio.Future[None]
    started: float
    content_type: bytes = b"text/event-stream"
    spoken_type: bytes = b"text/event-stream"
    fault: Fault | None = None
    status: int = 0
    headers: dict[bytes, bytes] = {}
    body: bytes = b""
    streaming: bool = False
    touched: bool = False
    heard: float = 0.0
    pending: bytes = b""
    parts: list[bytes] = []
    size: int = 0
    raw: int = 0
    grown: int = 0
    inflate: Inflate | None = None
    spending: Spending | None = None

    def __repr__(self) -> str:
        return f"<Relay {self.status or 'waiting'}{' streaming' if self.streaming else ''} of {self.x.id}>"

    # -- told by the upstream connection -----------------------------------------------------------------------------

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.touched = True
        if self.fault is not None:
            return
        if self.x.client.paused:
            self.upstream.pause()
        self.status = status
        self.headers = headers
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding != b"identity":
            wbits = _WBITS.get(encoding.lower())
            if wbits is None:
                self.fail(Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply has a content encoding nobody asked for."))
                return
            self.inflate = zlib.decompressobj(wbits)
        self.x.upstream_id = upstream_id(headers)
        kind = headers.get(b"content-type", b"")
        self.streaming = (
            self.passage is not None
            and 200 <= status < 300
            # Ollama's cloud calls its lines JSON.
            and (not kind.startswith(b"application/json") or self.spoken_type == LINES)
            # A transcript in plain text, of a model that ignores that it is to stream.
            and (self.content_type != b"" or not kind.startswith(b"text/") or kind.startswith(b"text/event-stream"))
        )
        if kind == FRAMED and self.spoken_type != FRAMED and self.streaming and self.passage is not None:
            self.passage = self.x.passage = Unframed(self.passage)

    def data(self, body: bytes) -> None:
        self.touched = True
        if self.fault is not None:  # given up; whoever waits has not been told yet
            return
        if self.inflate is not None:
            body = self._inflated(body)
        passage = self.passage
        if passage is None or not self.streaming:
            self._collect(body)
            return
        out = passage.feed(body)
        if self.spending is not None:
            self.spending.see()
        if not self.x.committed:
            self._before(out)
        elif out:  # as _send, which would be one call more per chunk
            x = self.x
            x.bytes_out += len(out)
            x.heard = self.heard
            x.client.send(out if x.http10 else b"%x\r\n%b\r\n" % (len(out), out))
        if passage.ended or passage.failed is not None:
            self._finish()

    def end(self, *, delimited: bool) -> None:
        if self.done.done():
            return
        cut = self.raw and self.inflate is not None and not self.inflate.eof  # HTTP's framing was whole, what it framed is not
        if self.streaming:
            self._close(whole=delimited and not cut)
            self._finish()
        elif (cut or (not delimited and self.passage is not None)) and self.status < 400:
            self.fail(Fault(Kind.UPSTREAM_CUT, "The upstream closed the connection before its reply was complete."))
        else:
            self.body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
            self.done.set_result(None)

    def lost(self, fault: Fault) -> None:
        if self.done.done():
            return
        if self.streaming and self._close(whole=False):  # all that matters had come: its end mark
            self._finish()
        self.fail(fault)

    # -- told by the client's connection -----------------------------------------------------------------------------

    def pause(self) -> None:
        if not self.done.done():  # afterwards the connection may serve another request
            self.upstream.pause()

    def resume(self) -> None:
        self.touched = True
        if not self.done.done():
            self.upstream.resume()

    # -- told by the clock -------------------------------------------------------------------------------------------

    def tick(self, now: float, heartbeat: float, *, early: bool = False) -> None:
        """Every 250 ms: gives up what is too slow, keeps the client of a silent stream awake. early: also before the upstream
        answers, which fixes the client's status at 200."""
        x, limits = self.x, self.limits
        if self.touched or x.client.paused:
            self.touched = False
            self.heard = now
        if now > x.deadline:
            self.fail(Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout"))
        elif self.passage is None:
            if limits.attempt is not None and now - self.started > limits.attempt:
                self.fail(Fault(Kind.TIMEOUT, f"The upstream did not answer within {limits.attempt:g} s."))
        elif not x.committed and now - self.started > limits.first_chunk:
            self.fail(Fault(Kind.TIMEOUT, f"The upstream sent nothing of use within {limits.first_chunk:g} s.",
                            code="first_chunk_timeout"))  # fmt: skip
        elif self.streaming and now - self.heard > limits.silence:
            self.fail(
                Fault(
                    Kind.TIMEOUT, f"The upstream's stream was silent for {limits.silence:g} s.", code="silence_timeout"
                )
            )
        elif (self.streaming or (early and not self.status)) and now - x.heard > heartbeat and self.passage.between:
            self._beat(now)

    def fail(self, fault: Fault) -> None:
        """Ends the attempt. The first fault stands."""
        if self.fault is None and not self.done.done():
            self.fault = fault
        self._finish()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _collect(self, body: bytes) -> None:
        self.size += len(body)
        if self.size <= (MOST_REPLY if self.status < 400 else MOST_ERROR):
            self.parts.append(body)
        elif self.status < 400:
            self.fail(Fault(Kind.UPSTREAM_BROKEN, f"The upstream's reply is larger than {MOST_REPLY >> 20} MiB."))

    def _send(self, out: bytes) -> None:
        x = self.x
        x.bytes_out += len(out)
        x.heard = self.heard
        x.client.send(out if x.http10 else b"%x\r\n%b\r\n" % (len(out), out))

    def _before(self, out: bytes) -> None:
        """Nothing meaningful went by yet: keep it back, or begin."""
        self.pending += out
        passage = self.passage
        if passage is None or passage.failed is not None:
            return
        if passage.meaningful or passage.ended:
            self._commit()
        elif len(self.pending) > MOST_HELD:
            self.fail(Fault(Kind.UPSTREAM_BROKEN, "The upstream's stream began with too much of no meaning."))

    def _commit(self) -> None:
        x = self.x
        x.committed = True
        x.first_byte = self.heard = perf_counter()
        pending, self.pending = self.pending, b""
        if len(x.body) > SMALL_BODY or x.held > SMALL_BODY:  # a small body may name large media
            x.prompt_estimate = prompt_tokens(x.body)
            x.client.release(x)
        self._begin(x.first_byte)
        if pending:
            self._send(pending)
        x.heard = x.first_byte

    def _begin(self, now: float) -> None:
        """Sends the reply's head, if a heartbeat has not done so already."""
        x = self.x
        if x.status == 200:
            return
        x.status = 200
        framing = b"" if x.http10 else b"transfer-encoding: chunked\r\n"
        if x.http10:
            x.keep_alive = False
        kind = self.content_type or self.headers.get(b"content-type", b"application/octet-stream")
        x.client.send(head(x, kind, framing, now, _STREAM_HEADERS))

    def _beat(self, now: float) -> None:
        x, passage = self.x, self.passage
        beat = passage.heartbeat() if passage is not None else b""
        x.heard = now
        if beat:
            self._begin(now)
            x.client.send(beat if x.http10 else b"%x\r\n%b\r\n" % (len(beat), beat))

    def _close(self, *, whole: bool) -> bool:
        """The upstream's bytes are over; whether its reply is, only its format's end mark can say."""
        passage = self.passage
        if passage is None:
            return False
        out = passage.close(whole=whole)
        if not self.x.committed:
            self._before(out)
        elif out:
            self._send(out)
        return passage.ended

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _inflated(self, body: bytes) -> bytes:
        inflate = self.inflate
        if inflate is None:
            return body
        self.raw += len(body)
        room = max(self.raw * INFLATE, MOST_ERROR) - self.grown
        try:
            grown = inflate.decompress(body, max(room, 1))
        except zlib.error:
            self.fail(Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not what its content encoding says."))
            return b""
        self.grown += len(grown)
        if inflate.unused_data:
            self.fail(Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply goes on behind the end of its content encoding."))
        if inflate.unconsumed_tail or len(grown) > room:
            self.fail(Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply grows too much when decompressed."))
        return grown
