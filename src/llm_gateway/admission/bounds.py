"""The most that a request can cost before it is sent: its prompt's estimate, the longest reply, the dearest target.

Law: an upper bound, as far as there is one: estimates of the prompt get a tenth more, and where caches may be written, sound comes back or a
dearer service tier is asked for, the dearer rates hold. Base64 is never counted by its bytes. Money in nano-USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from llm_gateway.accounting.estimate import LARGE
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
MOST_COPIES = 1 << 20
OPENING = 64  # bytes of an array that are looked at
_COPIES = ("n", "best_of")
_CONFIGS = ("generationConfig", "generation_config")
_CANDIDATES = ("candidateCount", "candidate_count")
_TIERS, _DEAR = ("service_tier", "serviceTier", "speed"), ("priority", "fast")
_CACHES = (b'"cache_control"', b'"cachePoint"')
_SOUND = b'"audio"'
CHAT = "chat"


def cost(x: Exchange, targets: Sequence[Target], most: int | None) -> int | None:
    """nano-USD at the dearest of the targets; None if none has a price. most: tokens of the reply at most, None: as `output` has it."""
    return max((price for price in costs(x, targets, most) if price is not None), default=None)


def costs(x: Exchange, targets: Sequence[Target], most: int | None) -> list[int | None]:
    """nano-USD at each of the targets, None where it has no price."""
    if x.route.operation != CHAT:
        return [_price(x, target, most) for target in targets]
    found: list[int | None] = []
    dear = _tier(x.peek.members) is not None
    asked, copies, wanted, wall = int(ask.size(x) * MARGIN) + 1, _copies(x.peek.members), x.peek.max_tokens or ENDLESS, x.wall
    if most is not None:
        wanted = min(wanted, most)
    for target in targets:
        rates = target.flat(wall) if not dear else None
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
    if (tier := _tier(x.peek.members)) is not None:
        usages += [replace(usage, tier=tier) for usage in usages]
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
            prompt, made = _prompt(x), IMAGE_TOKENS * copies
            usage = Usage(input=prompt, output=made, image_output=made)
            return [usage, replace(usage, image_input=prompt)]  # of what is to be edited most are pictures
        case "speech":
            spoken = SPEECH_TOKENS * len(x.body)
            return [Usage(input=_prompt(x), output=spoken, audio_output=spoken)]
        case "transcription":
            heard = len(x.body) // ask.BYTES_PER_HEARD_TOKEN + 1
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
    """Replies in one: for each prompt so many as are asked for."""
    if "n" not in members and "best_of" not in members and "prompt" not in members and not any(name in members for name in _CONFIGS):
        return 1
    said = [_read(members[name], MOST_COPIES) for name in _COPIES if name in members]
    for config in [_read(members[name]) for name in _CONFIGS if name in members]:
        said += [config[name] for name in _CANDIDATES if name in config] if isinstance(config, dict) else []
    most = max((each for each in said if isinstance(each, int | float)), default=1)
    return _prompts(members) * ceil(min(max(most, 1), MOST_COPIES))


def _prompts(members: Mapping[str, Raw]) -> int:
    """Of a completion: a text, the numbers of its tokens, or several of either; of what is large no fewer than there are."""
    if "prompt" not in members:
        return 1
    raw = members["prompt"]
    opening = bytes(memoryview(raw)[:OPENING]).removeprefix(b"[").lstrip()[:1]
    if bytes(memoryview(raw)[:1]) != b"[" or opening not in (b'"', b"["):
        return 1
    if len(memoryview(raw)) > LARGE:
        written = bytes(raw)
        return written.count(b'"') // 2 if opening == b'"' else written.count(b"[") - 1
    return len(_read(raw) or (None,))


def _tier(members: Mapping[str, Raw]) -> str | None:
    """The dearer service tier that is asked for, if one is."""
    said = [bytes(members[name]) for name in _TIERS if name in members]
    return next((tier for tier in _DEAR if any(b'"%b"' % tier.encode() in each for each in said)), None)


def _read(raw: Raw, otherwise: Any = None) -> Any:
    """otherwise: of what nobody can read, such as a number of thousands of digits."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return otherwise
