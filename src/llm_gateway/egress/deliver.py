"""Sends one attempt to one target and turns what comes back into the reply's last bytes, or into a Fault.

Law: an attempt leaves nothing behind: its connection goes back to the pool if its reply was whole, and is closed at once
if not, so that an upstream nobody listens to stops generating. What the client gets beyond its last bytes goes through
`Relay`; last bytes are returned, for the ledger to let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.accounting.estimate import estimate, prompt_tokens
from llm_gateway.admission.access import tenant
from llm_gateway.admission.seals import Opened, Seals
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Attempt, Exchange
from llm_gateway.core.types import Completion, Refusal, Text
from llm_gateway.egress.absorbed import LATER, absorbed, expected, given_up, unheard
from llm_gateway.egress.counted import Counter, counted
from llm_gateway.egress.hedge import Lane, Odds, Race, due
from llm_gateway.egress.local import Local
from llm_gateway.egress.makeshift import SENT_BACK, Makeshift
from llm_gateway.egress.media import Inlay
from llm_gateway.egress.relay import Relay
from llm_gateway.egress.respond import plain, refusal, whole
from llm_gateway.egress.slices import LARGE, sliced
from llm_gateway.egress.spending import Spending
from llm_gateway.egress.telling import ending, gone, told
from llm_gateway.formats import addressed, by_value, crossings
from llm_gateway.formats.contract import Format, Outgoing, Passage, Stepwise
from llm_gateway.formats.counting import Count
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.marks import Marked
from llm_gateway.formats.openai_responses import sealing
from llm_gateway.formats.openai_responses.watch import SealedPassage
from llm_gateway.policies.cascade import Escalation
from llm_gateway.policies.overload import STREAMS, Overload
from llm_gateway.policies.quota import PAIRS, pause
from llm_gateway.providers import betas
from llm_gateway.providers.faults import UNCOUNTED
from llm_gateway.routing.plan import Course, Hedge, Plan, Shadow
from llm_gateway.routing.planner import ESTIMATED
from llm_gateway.routing.target import Target
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.telemetry.vitals import Vitals
from llm_gateway.upstream.echo import EchoConnection
from llm_gateway.upstream.http1 import Connection
from llm_gateway.upstream.pool import Pool

SHORTEST_TIMEOUT = 0.001
VECTORS = "embeddings"  # all that they cost is what was asked
ITS_REQUESTS, ITS_TOKENS = (remaining for remaining, _ in PAIRS[:2])
THEIRS = PAIRS[2][0]


class Timing(Struct, frozen=True):
    """Seconds. `whole`: from a request's head to its last byte; `heartbeat`: silence after which a stream is kept alive;
    `early`: also while the upstream has not answered."""

    whole: float = 590.0
    heartbeat: float = 15.0
    early: bool = False


class Shadows(Protocol):
    """egress.shadow.Shadows is one."""

    def cast(self, x: Exchange, shadow: Shadow, egress: Egress) -> None: ...


class Egress:
    def __init__(
        self, pool: Pool, formats: Mapping[str, Format], seals: Seals, gauges: tuple[Metrics, Vitals], local: Local, timing: Timing,
        *, inlay: Inlay | None = None,
    ) -> None:  # fmt: skip
        """inlay: None if nothing may be fetched."""
        self.relays: set[Relay] = set()
        self.overload = Overload()
        self.timing = timing
        self.local = local.answer
        self._local = local
        self._pool = pool
        self._formats = formats
        self._seals = seals
        self._metrics, self.vitals = gauges
        self._inlay = inlay
        self._odds = Odds()
        self.shadows: Shadows | None = None
        self.counter: Counter | None = None

    def expect(self, x: Exchange, plan: Plan, course: Course) -> None:
        """Sets the request's deadline: the shortest of ours, the alias's and the client's `x-gateway-timeout`.

        Raises Fault OVERLOADED where it would be a stream too many."""
        if x.stream and self.overload.streams >= self.overload.full:
            raise self.overload.refuse(STREAMS)
        whole_request = min(self.timing.whole, plan.timeout or self.timing.whole)
        asked = x.headers.get(b"x-gateway-timeout")
        if asked is not None:
            whole_request = min(whole_request, _seconds(asked))
        x.deadline = x.started + whole_request
        x.heard = x.started  # the client has heard nothing since
        x.measured = plan.measured or plan.limited
        if plan.cascade is not None and not x.stream:
            x.cascade = partial(_will_not_do, plan.cascade, course)

    def copy(self, x: Exchange, shadow: Shadow) -> None:
        """Before it is sent: a copy of it to another target, by lot."""
        if self.shadows is not None:
            self.shadows.cast(x, shadow, self)

    async def attempt(self, x: Exchange, target: Target) -> bytes:
        """One try at one target. Returns the reply's last bytes; raises Fault if it failed."""
        form = self._formats[x.route.format]
        forms = target.forms[x.route.operation]
        if not forms:
            return await self._counted(x, form, target)
        spoken = form if x.route.format in forms else self._formats[forms[0]]
        x.target = target
        x.upstream_started = x.upstream_ms = 0.0
        if x.marked is not None and x.mark != target.account.mark:
            self._unmark(x, target)
        if form is not spoken:
            await self._type(x, form, spoken)
        elif form.name in target.by_value and self._inlay is not None:
            await self._enclose(x, form.name, self._inlay)
        if x.bytes_in <= LARGE:
            request = target.request(self._outgoing(x, form, spoken, target.model), x.wall)
        else:
            request = await self._large(x, form, spoken, target)
        x.upstream_started = perf_counter()
        x.first_sent = x.first_sent or x.upstream_started
        x.tries += 1
        target.meter.requests += 1
        passage = x.passage = self._passage(x, form, spoken) if x.stream else None
        connection = self._pool.take(target.bay) or await self._open(x, target)
        relay = x.client.sink = Relay(
            x=x, passage=passage, upstream=connection, limits=target.limits, started=x.upstream_started, content_type=form.stream_type,
            spoken_type=spoken.stream_type,
            done=asyncio.get_running_loop().create_future(), heard=x.upstream_started,
            spending=Spending(x, target, passage, 2 if isinstance(x.client, Lane) else 1)
            if x.hold is not None and x.hold.hard and passage is not None
            else None,
        )  # fmt: skip
        self.relays.add(relay)
        condition = target.condition
        condition.busy += 1
        self.overload.streams += x.stream
        try:
            connection.send(request, relay)
            await relay.done
        except BaseException:
            _quit(connection, relay)
            raise
        finally:
            condition.busy -= 1
            self.relays.discard(relay)
            self.overload.streams -= x.stream
            x.client.sink = None  # the last bytes may fill the client's buffer: no longer this connection's affair
            x.upstream_ms = (perf_counter() - x.upstream_started) * 1e3
            if passage is not None:
                passage = x.passage  # which may have been wrapped
                x.characters, x.partial = passage.characters, passage.usage
        if relay.fault is not None:
            _quit(connection, relay)
            raise relay.fault
        if connection.sink is relay:  # the end mark went by, the upstream's last bytes did not; or it was we who ended it
            connection.leave() if relay.spending is None or not relay.spending.ended else connection.close()
        return self._reply(x, target, relay, form, spoken)

    async def race(self, x: Exchange, course: Course, hedge: Hedge) -> bytes:
        """As `attempt`, with a second one beside it if the first is slow. The course is then at whoever answered."""
        odds = self._odds
        odds.requests += 1
        odds.fade()
        other = course.beside(perf_counter()) if odds.affords(hedge.budget) else None
        if other is None:
            return await self.attempt(x, course.target)
        race = Race(x, self.attempt)
        try:
            return await race.first_of(course, due(hedge, course.target), other)
        finally:
            if race.both:
                odds.hedged += 1
                self._metrics.hedges += 1

    def record(self, x: Exchange, target: Target, fault: Fault) -> float:
        """Keeps what became of a failed attempt; returns the seconds left until the request's deadline.

        After the first meaningful event there is no second attempt: the fault is raised again."""
        now = perf_counter()
        if not x.upstream_started:  # nothing was sent: the request cannot be said in that provider's shape
            return x.deadline - now
        ms = round((now - x.upstream_started) * 1e3, 3)
        if fault.usage is not None and not x.committed:
            x.wasted = fault.usage
        elif given_up(x, fault):
            x.wasted = unheard(x)
        x.attempts.append(absorbed(x, target, fault.code, fault.status or 0, ms))
        if fault.kind is Kind.ESCALATED:  # it answered, and well
            target.condition.good(now)
            return x.deadline - now
        target.meter.fail(fault.kind.name.lower())
        self.vitals.failed(target.provider, fault)
        target.condition.bad(now, fault)
        if fault.kind is Kind.UPSTREAM_RATE_LIMIT:
            self._metrics.limit("provider")
        if x.committed:
            raise fault
        return x.deadline - now

    def refuse(self, x: Exchange, fault: Fault) -> bytes:
        """The last bytes of a reply that failed: an error reply, or an error event in a stream that has begun. Where a reply was sent back
        before, that one."""
        fault.__traceback__ = None  # its frames hold the exchange, which holds the fault
        kept, x.makeshift = x.makeshift, None
        if kept is not None:
            with contextlib.suppress(Fault, UnicodeDecodeError):
                kept.resume(x)
                return self._whole(x, kept.target, kept, kept.form, kept.spoken)
        x.fault, fault = fault, told(fault)
        if x.status == 200 and x.passage is not None:
            x.broken = True
            event = x.passage.fail(fault) if x.passage.between else b""  # inside an event nothing can be said
            return event if x.http10 or not event else b"%x\r\n%b\r\n" % (len(event), event)
        return refusal(x, fault, self._formats[x.route.format], perf_counter())

    def crash(self, x: Exchange, error: Exception) -> bytes:
        """A bug: its stack goes to standard error, the client learns that it was not its own fault."""
        traceback.print_exception(error, file=sys.stderr)
        return self.refuse(x, Fault(Kind.INTERNAL, f"The gateway failed; tell its operator request id {x.request_id}."))

    def abandon(self, x: Exchange) -> bytes:
        """The client is gone; or the worker is ending, which one that is there is told: the last bytes of its reply."""
        fault = ending() if (there := x.client.alive) else gone()
        if (t := x.target) is not None and x.upstream_started and x.tries > len(x.attempts):  # else it waited before another
            if x.later and x.committed:  # it is made all the same, and can be asked for
                x.partial = expected(x, t)
            ms = (perf_counter() - x.upstream_started) * 1e3
            x.attempts.append(Attempt(t.provider, t.model, t.key_id, fault.code, 0, round(ms, 3)))
        if not there:
            x.status, x.fault = 499, fault
        return self.refuse(x, fault) if there else b""

    def tick(self, now: float) -> None:
        """Every 250 ms. `now`: perf_counter."""
        self._local.tick()
        heartbeat = self.timing.heartbeat
        for relay in list(self.relays):
            # Of two runners nobody has the client's ear before one of them has something to say.
            relay.tick(now, heartbeat, early=self.timing.early and not isinstance(relay.x.client, Lane))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _unmark(self, x: Exchange, target: Target) -> None:
        """The request as this account may see it: its own seals without our marks, and no others'."""
        x.mark = target.account.mark
        members, x.lost = self._seals.marks.cleared(x.marked.members, x.mark)
        x.peek, x.call, x.filled = replace(x.marked, members=members), None, None

    async def _type(self, x: Exchange, form: Format, spoken: Format) -> None:
        """The typed call, for another shape; with media by value, where that shape takes no addresses."""
        if x.call is None:
            if x.bytes_in > LARGE and isinstance(form, Stepwise):
                x.call = await sliced(form.read_steps(x.peek))
            else:
                x.call = form.read_request(x.peek)
        if self._inlay is None:
            return
        call = x.filled or x.call
        if named := by_value.named(call, spoken.name, follows=spoken.name not in x.target.by_value):
            x.filled = by_value.filled(call, await self._inlay.fetch(x, named))

    async def _enclose(self, x: Exchange, shape: str, inlay: Inlay) -> None:
        """Media by value in the client's own words, where the provider follows no URLs in them."""
        if named := addressed.named(x.peek.members, shape):
            values = await inlay.fetch(x, named)
            x.peek = replace(x.peek, members=addressed.filled(x.peek.members, shape, values))

    def _outgoing(self, x: Exchange, form: Format, spoken: Format, model: str) -> Outgoing:
        if form is not spoken:
            call, forgotten = _said(x)
            outgoing = spoken.write_request(call, model)
            x.dropped = (*x.unheard, *x.lost, *forgotten, *outgoing.dropped)
            return outgoing
        x.dropped = (*x.unheard, *x.lost) if x.unheard else x.lost
        outgoing = form.forward(x.peek, model)
        for name in form.request_headers:
            if name in x.headers:
                outgoing.headers = (*outgoing.headers, (name, x.headers[name]))
                if name == betas.HEADER and (words := x.target.speaker.betas) is not None:
                    x.dropped = (*x.dropped, *betas.unknown(x.headers[name], words))
        return outgoing

    async def _large(self, x: Exchange, form: Format, spoken: Format, target: Target) -> bytes:
        """The whole HTTP request with a large body: written in steps, and in a thread where it is hashed, which needs no lock."""
        if form is not spoken and isinstance(spoken, Stepwise):
            call, forgotten = _said(x)
            outgoing = await sliced(spoken.write_steps(call, target.model))
            x.dropped = (*x.unheard, *x.lost, *forgotten, *outgoing.dropped)
        else:
            outgoing = self._outgoing(x, form, spoken, target.model)
        if target.speaker.static:
            return target.request(outgoing, x.wall)
        return await asyncio.get_running_loop().run_in_executor(None, target.request, outgoing, x.wall)

    def _sealing(self, x: Exchange) -> Callable[[str], str]:
        target, owner = x.target, tenant(x)
        return lambda name: self._seals.seal(owner, Opened(target.provider, target.key_id, name))

    async def _counted(self, x: Exchange, form: Format, target: Target) -> bytes:
        """The provider counts no tokens: we do, where we can."""
        x.target = target
        tokens, exact = await counted(x, form, target.model, self.counter)
        return plain(x, form.write_reply(Count(tokens), None), perf_counter()) if exact else _estimated(x, form, tokens)

    def _passage(self, x: Exchange, form: Format, spoken: Format) -> Passage:
        if form is spoken:
            passage = form.splice(x.peek)
            if x.route.sealed and isinstance(passage, SealedPassage):
                passage.seal = self._sealing(x)
        else:
            passage = Crossing(spoken.stream_reader(), form.stream_writer(x.call, int(x.wall)), (x.id, x.model))
        if x.target.seals and spoken.name in x.target.seals:
            return Marked(passage, x.target.seals[spoken.name], x.target.account.mark)
        return passage

    async def _open(self, x: Exchange, target: Target) -> Connection | EchoConnection:
        condition = target.condition  # so that many at once do not all find room while none is connected yet
        condition.busy += 1
        self.overload.streams += x.stream
        try:
            async with asyncio.timeout(max(x.deadline - perf_counter(), SHORTEST_TIMEOUT)):
                return await self._pool.open(target.bay)
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout") from None
        finally:
            condition.busy -= 1
            self.overload.streams -= x.stream

    def _reply(self, x: Exchange, target: Target, relay: Relay, form: Format, spoken: Format) -> bytes:
        """What the upstream said: the reply's last bytes, or a Fault."""
        headers, status = relay.headers, relay.status
        if status < 400 and (headers.get(ITS_REQUESTS) == b"0" or headers.get(ITS_TOKENS) == b"0" or THEIRS in headers):
            _heed(x, target, headers)
        if relay.streaming:
            return self._ended(x, target, relay)
        try:
            if status >= 400:
                refused = target.speaker.fault(spoken, status, headers, relay.body, x.wall)
                if refused.code == UNCOUNTED and x.route.operation == ESTIMATED:
                    return _estimated(x, form, prompt_tokens(x.body))
                raise refused
            if not 200 <= status < 300:
                raise Fault(Kind.UPSTREAM_BROKEN, f"The upstream answered with status {status}, which has no meaning here.")
            if x.cascade is not None:
                self._judge(x, target, relay, form, spoken)
            if x.stream and (form.stream_type or x.status == 200):  # what passes says itself what it is, while its head is unsaid
                fault = spoken.summarise(relay.body).fault
                raise fault or Fault(Kind.UPSTREAM_BROKEN, "The upstream answered a stream's request with a plain reply.")
            return self._whole(x, target, relay, form, spoken)
        except UnicodeDecodeError:  # in a member that was only looked at now
            raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not valid UTF-8.") from None

    def _judge(self, x: Exchange, target: Target, relay: Relay, form: Format, spoken: Format) -> None:
        """Raises Fault ESCALATED if the reply will not do and there is another to ask; what it cost is added to what that will."""
        reply: Any = spoken.read_reply(relay.body)
        why = x.cascade(target, reply)
        if why:
            x.wasted = reply.usage
            with contextlib.suppress(Fault):  # what the client's shape has no words for is nothing to fall back on
                if form is not spoken:
                    form.write_reply(reply, x.call, int(x.wall))
                x.makeshift = Makeshift(
                    target, relay.status, relay.headers, relay.body, form, spoken, x.upstream_ms, x.upstream_id, x.dropped, x.fallbacks
                )
            raise Fault(Kind.ESCALATED, f"The reply was sent back: {why}.", code=SENT_BACK + why)

    def _ended(self, x: Exchange, target: Target, relay: Relay) -> bytes:
        """A stream is over: the bytes that end it well, or the fault that ended it."""
        passage = relay.passage
        if passage is None or passage.failed is not None:
            raise (passage.failed if passage is not None else None) or Fault(Kind.INTERNAL, "A stream without passage.")
        x.finish = passage.finish
        if not x.route.asked:  # what was kept was billed when it was made
            x.usage = passage.usage
        self._settled(x, target, 200)
        tail = passage.tail(None if x.cost is None else x.cost / 1e9)
        x.bytes_out += len(tail)
        if x.http10:
            return tail
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail) if tail else b"0\r\n\r\n"

    def _whole(self, x: Exchange, target: Target, relay: Relay | Makeshift, form: Format, spoken: Format) -> bytes:
        """A whole reply, as it came or crossed into the client's shape."""
        if target.seals and spoken.name in target.seals:
            relay.body = target.seals[spoken.name].marked(relay.body, target.account.mark)
        if form is spoken:
            summary = form.summarise(relay.body)
            if summary.fault is not None:
                raise summary.fault
            x.usage, x.finish, x.status = summary.usage, summary.finish, relay.status
            self._settled(x, target, relay.status)
            headers, more = relay.headers, b""
            for name in form.reply_headers:  # few; the reply's own are many
                if name in headers:
                    more += b"%b: %b\r\n" % (name, headers[name])
            body = sealing.sealed_reply(relay.body, self._sealing(x)) if x.route.sealed else relay.body
            return whole(x, body, headers.get(b"content-type", b"application/json"), perf_counter(), more)
        completion = spoken.read_reply(relay.body)
        if isinstance(completion, Completion) and not completion.id:
            completion = replace(completion, id=x.id, model=completion.model or x.model)
        try:
            outgoing = form.write_reply(completion, x.call, int(x.wall))
        except Fault:  # the model failed, and was paid for it
            x.wasted = completion.usage
            raise
        x.usage = completion.usage
        x.finish = completion.finish
        x.dropped = (*x.dropped, *outgoing.dropped)
        self._settled(x, target, relay.status)
        return plain(x, outgoing, perf_counter())

    def _settled(self, x: Exchange, target: Target, status: int) -> None:
        """A good attempt: priced, recorded, counted."""
        ms = x.upstream_ms
        if x.usage is None and x.route.operation == VECTORS:  # some APIs never say, and charge all the same
            x.usage = estimate(prompt_tokens(x.body), 0)
        elif x.usage is None and x.finish in LATER and not x.route.asked:  # told to who asks for it, as often as asked: no time to bill
            x.usage = expected(x, target)
        if x.usage is not None:
            x.cost = target.price(x.usage, x.wall)
            if x.absorbed and x.cost is not None:
                x.cost += x.absorbed
        if x.attempts:  # the only attempt is told by the row itself
            x.attempts.append(Attempt(target.provider, target.model, target.key_id, "ok", status, int(ms * 1e3) / 1e3))
        target.meter.latency.observe(ms / 1e3)
        self.vitals.answered(target.provider, ms)
        condition = target.condition
        if condition.troubled:
            condition.good(perf_counter())
        else:
            condition.breaker.good += 1


def _said(x: Exchange) -> tuple[Any, tuple[str, ...]]:
    """The typed call as this target takes it, and what of it is left out."""
    call = x.filled or x.call
    return crossings.unthinking(call) if x.target.forgets else (call, ())


def _heed(x: Exchange, target: Target, headers: Mapping[bytes, bytes]) -> None:
    """A good reply may say that the next call will not have one. It said so when it began, which for a stream is a while ago."""
    now = perf_counter()
    target.condition.cool(now, pause(headers, x.wall) - (now - (x.first_byte or now)), "quota")


def _estimated(x: Exchange, form: Format, tokens: int) -> bytes:
    """A count that says that it is none."""
    return plain(x, form.write_reply(Count(tokens), None), perf_counter(), b"x-gateway-estimated: true\r\n")


def _will_not_do(rule: Escalation, course: Course, target: Target, reply: Completion) -> str:
    """Why a reply is to be sent back; "" if it will do, or if nobody else could be asked."""
    ends: list[str] = [choice.finish for choice in reply.choices]
    parts = [part for choice in reply.choices for part in choice.parts]
    if any(isinstance(part, Refusal) for part in parts):
        ends.append("refusal")
    texts = ["".join(part.text for part in choice.parts if isinstance(part, Text)) for choice in reply.choices]
    why = rule.reason(ends, reply.usage.output if reply.usage is not None else None, texts)
    return why if why and course.more(perf_counter(), target) else ""


def _quit(connection: Connection | EchoConnection, relay: Relay) -> None:
    """Closes the connection if it is still ours: a whole reply gave it back a tick before its waiter woke, and it may
    serve another request by now."""
    if connection.sink is relay:
        connection.close()


def _seconds(value: bytes) -> float:
    """`x-gateway-timeout`: seconds, 0.001 to a day."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not SHORTEST_TIMEOUT <= seconds <= 86400:
        raise Fault(Kind.INVALID, "x-gateway-timeout must be a number of seconds above 0.", param="x-gateway-timeout")
    return seconds
