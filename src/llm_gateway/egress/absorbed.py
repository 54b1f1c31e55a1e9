"""What an attempt cost that did not become the reply: it is paid for all the same, and stands in the row beside the attempt.

Law: told where the provider said it, else estimated, and only where it is plain that the provider went on working: a reply that was sent
back, a prompt that was read and not answered, an attempt given up after a timeout, a hedge that lost. `x.absorbed` is the sum, which the
request's cost contains.
"""

from __future__ import annotations

from llm_gateway.accounting.estimate import estimate, prompt_tokens
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Attempt, Exchange
from llm_gateway.core.types import Usage
from llm_gateway.routing.ask import output
from llm_gateway.routing.target import Target

CHAT = "chat"  # what can be estimated from text
LATER = frozenset({"queued", "in_progress"})  # how replies stand that are still to be made, in the background


def absorbed(x: Exchange, target: Target, code: str, status: int, ms: float) -> Attempt:
    """The attempt, with its cost if it had one."""
    usage, x.wasted = x.wasted, None
    if usage is None:
        return Attempt(target.provider, target.model, target.key_id, code, status, ms)
    cost = target.price(usage, x.wall) or 0
    x.absorbed += cost
    return Attempt(target.provider, target.model, target.key_id, code, status, ms, usage.input, usage.output, cost, usage.estimated)


def given_up(x: Exchange, fault: Fault) -> bool:
    """Whether we stopped waiting for an upstream that may well have been at work; nothing of its reply went to the client."""
    return fault.kind is Kind.TIMEOUT and fault.status is None and not x.committed and x.route.operation == CHAT


def unheard(x: Exchange) -> Usage | None:
    """What an upstream must have used that nobody listened to any longer; None where text says nothing of it."""
    if x.route.operation != CHAT:
        return None
    return estimate(x.prompt_estimate or prompt_tokens(x.body), x.characters, x.partial)


def expected(x: Exchange, target: Target) -> Usage:
    """What a reply will have used that is made when nobody listens."""
    prompt = x.prompt_estimate or prompt_tokens(x.body)
    return Usage(input=prompt, output=output(x, target.condition.meter.output.value), estimated=True)
