"""The most that a request can cost before it is sent: its prompt's estimate, the longest reply, the dearest target.

Law: an upper bound, as far as there is one: estimates of the prompt get a tenth more, and where caches may be written or sound comes back,
the dearer rates hold. Base64 is never counted by its bytes. Money in nano-USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from llm_gateway.core.exchange import Exchange
from llm_gateway.core.types import Usage
from llm_gateway.models.prices import FEMTO_PER_NANO
from llm_gateway.routing import ask
from llm_gateway.routing.target import Target

MARGIN = 1.1
ENDLESS = 1 << 62
UNKNOWN_LONGEST = 32_768  # tokens of a reply where the model's own limit is not known; such a request gets it as its limit
IMAGE_TOKENS = 8_192  # of one generated image, at the most
SPEECH_TOKENS = 2  # of sound per character that is spoken
BYTES_PER_HEARD_TOKEN = 400  # of compressed speech
_COPIES = ("n", "best_of")
_CACHES = (b'"cache_control"', b'"cachePoint"')
_SOUND = b'"audio"'
MOST_DIGITS = 18  # of a number that a client wrote: Python reads none of 5,000
CHAT = "chat"


def cost(x: Exchange, targets: Sequence[Target], most: int | None) -> int | None:
    """nano-USD at the dearest of the targets; None if none has a price. most: tokens of the reply at most, None: as `output` has it."""
    return max((price for price in costs(x, targets, most) if price is not None), default=None)


def costs(x: Exchange, targets: Sequence[Target], most: int | None) -> list[int | None]:
    """nano-USD at each of the targets, None where it has no price."""
    if x.route.operation != CHAT:
        return [_price(x, target, most) for target in targets]
    found: list[int | None] = []
    asked, copies, wanted, wall = int(ask.size(x) * MARGIN) + 1, _copies(x.peek.members), x.peek.max_tokens or ENDLESS, x.wall
    if most is not None:
        wanted = min(wanted, most)
    for target in targets:
        rates = target.flat(wall)
        if rates is None:  # what is in the body makes a difference
            found.append(_price(x, target, most))
        else:
            written = copies * min(wanted, target.longest or UNKNOWN_LONGEST)
            found.append(-(-(asked * rates[0] + written * rates[1] + rates[2]) // FEMTO_PER_NANO))
    return found


def output(x: Exchange, targets: Sequence[Target]) -> int:
    """Tokens of one reply that all of them can keep to: what was asked for, else the longest that any can write."""
    return max(_longest(x, target) for target in targets)


def affordable(x: Exchange, targets: Sequence[Target], granted: int) -> int:
    """The tokens that a reply may have for `granted` at whichever target it is."""
    return max(1, min(_affordable(x, target, granted) for target in targets))


def _affordable(x: Exchange, target: Target, granted: int) -> int:
    longest = _longest(x, target)
    none, all_of_it = _price(x, target, 0) or 0, _price(x, target, longest) or 0
    if all_of_it <= granted:
        return longest
    return max(0, longest * (granted - none) // max(1, all_of_it - none))


def _price(x: Exchange, target: Target, most: int | None) -> int | None:
    usages = _usages(x, _reply(x, target, most))
    prices = [target.price(usage, x.wall) for usage in usages]
    known = [each for each in prices if each is not None]
    return max(known) if len(known) == len(prices) else None


def _longest(x: Exchange, target: Target) -> int:
    longest = target.longest or UNKNOWN_LONGEST
    return min(x.peek.max_tokens, longest) if x.peek.max_tokens else longest


def _reply(x: Exchange, target: Target, most: int | None) -> int:
    longest = _longest(x, target)
    return longest if most is None else min(longest, most)


def _usages(x: Exchange, reply: int) -> list[Usage]:
    """What it may turn out to be."""
    members: Mapping[str, Raw] = x.peek.members
    copies = _copies(members)
    match x.route.operation:
        case "images":
            return [Usage(input=_prompt(x), output=IMAGE_TOKENS * copies, image_output=IMAGE_TOKENS * copies)]
        case "speech":
            spoken = SPEECH_TOKENS * len(x.body)
            return [Usage(input=_prompt(x), output=spoken, audio_output=spoken)]
        case "transcription":
            heard = len(x.body) // BYTES_PER_HEARD_TOKEN + 1
            return [Usage(input=heard, audio_input=heard, output=heard)]
        case "chat":
            return _conversations(x, reply * copies)
        case _:
            return [Usage(input=_prompt(x))]


def _conversations(x: Exchange, written: int) -> list[Usage]:
    prompt = _prompt(x)
    found = [Usage(input=prompt, output=written)]
    if any(mark in x.body for mark in _CACHES):
        found.append(Usage(input=prompt, output=written, cache_write_1h=prompt))
    if _SOUND in x.body:
        found.append(Usage(input=prompt, output=written, audio_input=prompt, audio_output=written))
    return found


def _prompt(x: Exchange) -> int:
    return int(ask.size(x) * MARGIN) + 1


def _copies(members: Mapping[str, Raw]) -> int:
    if "n" not in members and "best_of" not in members and "generationConfig" not in members:
        return 1
    said = [bytes(members[name]) for name in _COPIES if name in members]
    if "generationConfig" in members:
        after = bytes(members["generationConfig"]).partition(b'"candidateCount":')[2].strip()
        said.append(after[:1])
    return max((int(each[:MOST_DIGITS]) for each in said if each.isdigit()), default=1) or 1
