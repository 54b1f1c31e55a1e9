"""What a request says that choosing a target listens to, beside its model: headers and sizes, read when somebody asks.

Law: reads the exchange, never the clock; refuses what is malformed with the header's name.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from llm_gateway.accounting.estimate import CHARACTERS_PER_TOKEN, LARGE, prompt_tokens
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.core.types import Usage
from llm_gateway.formats._multipart import Form

MOST_TAGS = 32
PREFIX_BYTES = 1024  # of the conversation's beginning, which decides whose prompt cache has it
BEGINNINGS = ("system", "instructions", "systemInstruction", "messages", "input", "contents")
STRETCH = 1024  # bytes
PICTURE = 7_000  # tokens of one that is sent to be edited, at the most: https://platform.openai.com/docs/guides/images-vision#calculating-costs
BYTES_PER_HEARD_TOKEN = 400  # of compressed speech
USUAL_OUTPUT = 256  # tokens of a reply, before any was seen
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/=-]{0,63}")
_PRIORITIES = {"low": -1, "normal": 0, "high": 1}


def tags(x: Exchange) -> frozenset[str]:
    """`x-gateway-tags`: words separated by commas."""
    header = x.headers.get(b"x-gateway-tags")
    if header is None:
        return frozenset()
    words = [word.strip() for word in header.decode("latin-1").split(",") if word.strip()]
    if len(words) > MOST_TAGS or not all(map(_TAG.fullmatch, words)):
        raise Fault(
            Kind.INVALID,
            f"x-gateway-tags must be at most {MOST_TAGS} words of letters, digits and _.:/=- separated by commas.",
            param="x-gateway-tags",
        )
    return frozenset(words)


def session(x: Exchange, *, prefix: bool) -> bytes:
    """What the request should stay with one target for: its session, else (prefix) how its conversation begins."""
    header = x.headers.get(b"x-gateway-session")
    if header:
        return header[:64]
    if not prefix or x.peek is None:
        return b""
    members = x.peek.members
    if "prompt_cache_key" in members:
        return bytes(members["prompt_cache_key"])[:64]
    begun = b""
    for name in BEGINNINGS:
        if len(begun) < PREFIX_BYTES and name in members:
            begun += memoryview(members[name])[: PREFIX_BYTES - len(begun)]
    return blake2b(begun, digest_size=16).digest()


def priority(x: Exchange) -> int:
    """`x-gateway-priority`: low, normal, high, or a number from -10 to 10; higher is served earlier."""
    header = x.headers.get(b"x-gateway-priority")
    if header is None:
        return 0
    word = header.decode("latin-1").strip().lower()
    if word in _PRIORITIES:
        return _PRIORITIES[word]
    if re.fullmatch(r"-?\d{1,2}", word) and -10 <= int(word) <= 10:
        return int(word)
    raise Fault(Kind.INVALID, "x-gateway-priority must be low, normal, high or a number from -10 to 10.", param="x-gateway-priority")


def prompt(x: Exchange) -> int:
    """Tokens of the prompt, estimated once."""
    if not x.prompt_estimate:
        form = x.peek.form if x.peek is not None else None
        x.prompt_estimate = _in_form(form, x.route.operation) if isinstance(form, Form) else prompt_tokens(x.body)
    return x.prompt_estimate


def size(x: Exchange) -> int:
    """Tokens of the prompt at the most, at once: its length, where there is no data in it that would count otherwise. Text has spaces; a
    stretch without any is looked at properly."""
    body = x.body
    length = len(body)
    if x.prompt_estimate or length > LARGE:
        return prompt(x)
    for at in range(0, length - STRETCH, STRETCH):
        if b" " not in body[at : at + STRETCH]:
            return prompt(x)
    return length // CHARACTERS_PER_TOKEN + 1


def _in_form(form: Form, operation: str) -> int:
    """A file's bytes are no text: of compressed speech there are so many to a token, and a picture has no more than it can have."""
    files = [len(part.body) for part in form.parts if b"filename" in part.head.lower()]
    texts = sum(len(part.body) for part in form.parts) - sum(files)
    heard = sum(PICTURE if operation == "images" else size // BYTES_PER_HEARD_TOKEN + 1 for size in files)
    return texts // CHARACTERS_PER_TOKEN + 1 + heard


def output(x: Exchange, usual: float) -> int:
    """Tokens the reply will have: the usual of late, never more than what was asked for; none where it is there already."""
    if x.route.asked:
        return 0
    expected = int(usual) or USUAL_OUTPUT
    most = x.peek.max_tokens if x.peek is not None else None
    return min(expected, most) if most else expected


def expected(x: Exchange, usual: float, hit: float) -> Usage:
    """hit: the share of the caller's prompts that caches had, of late."""
    tokens = prompt(x)
    return Usage(input=tokens, output=output(x, usual), cache_read=int(tokens * hit))
