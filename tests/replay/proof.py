"""One recorded interaction through every shape that its operation has: what became of it, each by name.

Law: pure; no sockets, no gateway process. As a reply, what the recording tells (`told`) must be what the SDK of each client's shape
reads; as a request, the same shape must send what was recorded, another must send what its API's schema admits, or refuse it naming
a path of the client's own; an error must be one kind of Fault, told in each shape's own words. Any exception but a Fault is a failure.
"""

from __future__ import annotations

import json
import math
import re
import struct
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from formats.bedrock import events as frames
from llm_gateway.core.embedding import EmbeddingCall
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Conversation
from llm_gateway.formats.contract import Format, Passage, Peek
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.unframed import Unframed
from llm_gateway.providers.contract import Account
from llm_gateway.providers.registry import provider
from llm_gateway.wiring import formats
from replay import schemas, sdks, told
from replay.recordings import Interaction, cut
from replay.served import CLIENTS, UPSTREAMS, Served, served
from replay.told import Told

NOW = 1_764_000_000
CALL = Conversation(model="m", messages=(), stream_usage=True)
EMBEDDING = EmbeddingCall(model="m", inputs=(), encodings=("float",))
MODELS = {
    "openai_chat": ("gpt-4o-mini", "llama-3"),
    "openai_responses": ("gpt-5-mini",),
    "openai_completions": ("gpt-3.5-turbo-instruct",),
    "anthropic_messages": ("claude-sonnet-4-5", "claude-opus-4-7"),
    "gemini": ("gemini-2.5-flash", "gemini-3-pro-preview"),
    "bedrock_converse": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-2-lite-v1:0", "meta.llama3-1-8b-instruct-v1:0"),
    "ollama_chat": ("llama3.2", "gpt-oss:20b"),
    "ollama_generate": ("llama3.2",),
}
# What a shape has no word for in a reply: it says the nearest.
_SAID_AS = {
    "openai_completions": {"pause": "done"},
    "openai_responses": {"pause": "done"},
    "openai_chat": {"pause": "done"},
    "gemini": {"pause": "done"},
    "bedrock_converse": {"pause": "done"},
    "anthropic_messages": {"error": "done"},
    "ollama_chat": {"pause": "done"},
    "ollama_generate": {"pause": "done"},
}
_TEXT_ONLY = frozenset({"openai_completions", "ollama_generate"})
_KINDS = {
    400: {Kind.INVALID, Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER, Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_NO_MODEL},
    401: {Kind.UPSTREAM_AUTH},
    403: {Kind.UPSTREAM_AUTH, Kind.UPSTREAM_NO_MODEL},
    404: {Kind.UPSTREAM_NO_MODEL},
    408: {Kind.TIMEOUT},
    422: {Kind.UNPROCESSABLE, Kind.INVALID},
    429: {Kind.UPSTREAM_RATE_LIMIT, Kind.UPSTREAM_QUOTA},
    500: {Kind.UPSTREAM_ERROR},
    503: {Kind.OVERLOADED},
    529: {Kind.OVERLOADED},
}


class Outcome(NamedTuple):
    """`aspect`: reply, request or error. `shape`: the client's for a reply or an error, the target's for a request. `result`: same,
    crossed, refused, failed. `detail`: of a failure what is wrong, of a refusal its path, of an error its kind."""

    id: str
    provider: str
    api: str
    aspect: str
    shape: str
    result: str
    detail: str = ""


class Wrong(Exception):
    """The proof fails, and why."""


@cache
def shapes() -> dict[str, Format]:
    return dict(formats())


def prove(one: Interaction) -> Iterator[Outcome]:
    """Every outcome of an interaction that is served; nothing for one that is not."""
    place = served(one)
    if isinstance(place, str):
        return
    clients = CLIENTS[place.operation]
    for shape in clients:
        if one.status >= 400:
            yield _outcome(one, "error", shape, lambda shape=shape: _error(one, place, shape))
        else:
            yield _outcome(one, "reply", shape, lambda shape=shape: _replied(one, place, shape))
    if isinstance(one.request, dict):
        for shape in (*clients, *UPSTREAMS.get(place.operation, ())):
            yield _outcome(one, "request", shape, lambda shape=shape: _asked(one, place, shape))


def _outcome(one: Interaction, aspect: str, shape: str, proof: Callable[[], tuple[str, str]]) -> Outcome:
    try:
        result, detail = proof()
    except Wrong as wrong:
        result, detail = "failed", str(wrong)
    except ValidationError as error:
        first = error.errors()[0]
        result, detail = "failed", f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except Exception as error:  # noqa: BLE001  whatever it is, it is this proof's failure and no other's
        result, detail = "failed", f"{type(error).__name__}: {error}"
    return Outcome(one.id, one.row["provider"], one.row["api"], aspect, shape, result, detail[:300])


# -- replies ----------------------------------------------------------------------------------------------------------


def _replied(one: Interaction, place: Served, client: str) -> tuple[str, str]:
    if place.operation == "chat":
        streams = one.row["streaming"]
        (_streamed if streams else _whole)(one, place.form, client)
    elif place.form == client:
        _passed_on(one, client)
    elif place.operation == "embeddings":
        return _embedded(one, place.form, client)
    else:
        _counted(one, place.form, client)
    return ("same" if place.form == client else "crossed"), ""


def _whole(one: Interaction, form: str, client: str) -> None:
    meant = told.whole(form, json.loads(one.body))
    if form == client:
        summary = shapes()[form].summarise(one.body)
        if meant.failed:
            _must(summary.fault is not None, "an error under status 200 is not seen")
            return
        if summary.fault is not None:
            verbatim = summary.fault.kind is Kind.CONTENT_FILTER and summary.fault.body == one.body
            _must(verbatim, f"taken for a fault: {summary.fault}")
            return
        usage = (summary.usage.input, summary.usage.output) if summary.usage is not None else None
        _must(usage == meant.usage, f"usage {usage}, recorded {meant.usage}")
        _agree(told.whole(client, sdks.reply(client, one.body, own=True)), meant, client)
        return
    try:
        completion = shapes()[form].read_reply(one.body)
    except Fault as fault:
        blocked = fault.kind is Kind.CONTENT_FILTER and meant == Told(end="filter", usage=meant.usage)
        _must(meant.failed or blocked, f"no reply: {fault.message}")
        return
    _must(not meant.failed, "an error under status 200 is not seen")
    written = shapes()[client].write_reply(completion, CALL, NOW)
    _agree(told.whole(client, sdks.reply(client, written.body)), meant, client)


def _streamed(one: Interaction, form: str, client: str) -> None:
    passage: Passage
    if form == client:
        passage = shapes()[form].splice(Peek({}, "m", True, True))
    else:
        passage = Crossing(shapes()[form].stream_reader(), shapes()[client].stream_writer(CALL, NOW), ("id", "m"))
    framed = one.row["api"] == "invoke-stream"
    if framed:
        passage = Unframed(passage)
        events = [json.loads(b64decode(frame["bytes"])) for frame in _chunks(one.body)]
    else:
        events = sdks.cut(form, one.body)
    meant = told.streamed(form, events)
    passed = b"".join(passage.feed(piece) for piece in cut(one.body, "bytes:1000")) + passage.close()
    _must((passage.failed is not None) == meant.failed, f"failed: {passage.failed!r}, recorded failure: {meant.failed}")
    if passage.failed is not None:
        written = passed + passage.fail(passage.failed)
        _must(told.streamed(client, sdks.events(client, written, own=form == client)).failed, "its error is not one to the SDK")
        return
    _must(passage.ended, "not ended")
    written = passed + passage.tail(None)
    if form == client and not framed:
        _must(_bare(one.body).startswith(_bare(written)), "what passed is not what came")
    usage = (passage.usage.input, passage.usage.output) if passage.usage is not None else None
    _must(usage == meant.usage, f"usage {usage}, recorded {meant.usage}")
    _agree(told.streamed(client, sdks.events(client, written, own=form == client)), meant, client)


def _chunks(body: bytes) -> list[dict[str, str]]:
    """What Bedrock wraps Claude's events in."""
    return [payload for name, payload in frames(body) if name == "chunk"]


def _bare(stream: bytes) -> bytes:
    return stream.replace(b"data: [DONE]", b"").strip()


def _agree(heard: Told, meant: Told, client: str) -> None:
    _must(heard.text == meant.text, f"text {heard.text[:80]!r}, recorded {meant.text[:80]!r}")
    calls = () if client in _TEXT_ONLY else meant.calls
    _must(_plain(heard.calls, calls) == _plain(calls, calls), f"calls {str(heard.calls)[:120]}, recorded {str(calls)[:120]}")
    end = _SAID_AS.get(client, {}).get(meant.end, meant.end)
    _must(heard.end == end or not end, f"finish {heard.end!r}, recorded {end!r}")
    _must(heard.usage == meant.usage or meant.usage is None, f"usage {heard.usage}, recorded {meant.usage}")


def _plain(calls: tuple[tuple[str, Any], ...], meant: tuple[tuple[str, Any], ...]) -> str:
    """Comparable. Free-form input, or arguments that the limit cut off, are told as the one member of an object where a shape takes
    nothing else."""
    kept = []
    for at, (name, given) in enumerate(calls):
        free = at < len(meant) and isinstance(meant[at][1], str)
        wrapped = free and isinstance(given, dict) and given.keys() in ({"input"}, {"invalid_json"})
        kept.append((name, next(iter(given.values())) if wrapped else given))
    return json.dumps(kept, sort_keys=True)


def _passed_on(one: Interaction, shape: str) -> None:
    _must(shapes()[shape].summarise(one.body).fault is None, "taken for a fault")
    sdks.reply(shape, one.body, own=True)


def _counted(one: Interaction, form: str, client: str) -> None:
    count = shapes()[form].read_reply(one.body)
    tree = sdks.reply(client, shapes()[client].write_reply(count, CALL, NOW).body)
    recorded = json.loads(one.body)
    number, told = (next(each[name] for name in ("input_tokens", "totalTokens", "inputTokens") if name in each) for each in (recorded, tree))
    _must(told == number, f"{tree}, recorded {number}")


def _embedded(one: Interaction, form: str, client: str) -> tuple[str, str]:
    recorded = _vectors(json.loads(one.body))
    if client in {"gemini_embed", "ollama_embeddings"} and len(recorded) != 1:
        return "refused", "several"  # a client of this shape asks for one vector only
    reply = shapes()[form].read_reply(one.body)
    heard = _vectors(sdks.reply(client, shapes()[client].write_reply(reply, EMBEDDING, NOW).body))
    alike = len(heard) == len(recorded) and all(
        len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-7) for x, y in zip(a, b, strict=True))
        for a, b in zip(heard, recorded, strict=True)
    )
    _must(alike, f"{len(heard)} vectors, recorded {len(recorded)}, not the same numbers")
    return "crossed", ""


def _vectors(tree: dict[str, Any]) -> list[list[float]]:
    if "data" in tree:
        return [_numbers(each["embedding"]) for each in tree["data"]]
    if "predictions" in tree:
        return [each["embeddings"]["values"] for each in tree["predictions"]]
    if isinstance(found := tree.get("embeddings"), dict):
        return [_numbers(each) for each in found["float"]]
    if found is not None:
        return [each["values"] if isinstance(each, dict) else each for each in found]
    single = tree["embedding"]
    return [single["values"] if isinstance(single, dict) else single]


def _numbers(vector: list[float] | str) -> list[float]:
    if isinstance(vector, str):
        raw = b64decode(vector)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return vector


# -- requests ---------------------------------------------------------------------------------------------------------


def _asked(one: Interaction, place: Served, target: str) -> tuple[str, str]:
    body, form = _client_body(one, place), shapes()[place.form]
    try:
        peek = form.peek(json.dumps(body).encode(), _in_path(one, place), stream=one.row["streaming"])
        if target == place.form:
            _same(one, place, peek)
            return "same", ""
        call = form.read_request(peek)
        for model in MODELS.get(target, ("m",)):
            sent = shapes()[target].write_request(call, model)
            wrong = schemas.complaint(target, sent.body, model)
            _must(not wrong, f"{model}: {wrong}")
    except Fault as fault:
        _must(fault.kind is Kind.INVALID, f"refused as {fault.kind.name}: {fault.message}")
        _must(exists(body, fault.param or "", fault.message), f"refused for {fault.param!r}, which the request has not: {fault.message}")
        return "refused", fault.param or ""
    return "crossed", ""


def _client_body(one: Interaction, place: Served) -> dict[str, Any]:
    """The recorded body as a client of that shape sends it to us."""
    body: dict[str, Any] = {name: value for name, value in one.request.items() if name != "modelId"}
    if place.wrapped:
        return {**({"stream": True} if one.row["streaming"] else {}), **body, "model": "m"}
    if not place.form.startswith(("gemini", "bedrock")) and one.row["model"]:
        body.setdefault("model", one.row["model"])  # Vertex and Azure have it in the path
    return body


def _in_path(one: Interaction, place: Served) -> str | None:
    return str(one.row["model"] or "m") if place.form.startswith(("gemini", "bedrock")) else None


def _same(one: Interaction, place: Served, peek: Peek) -> None:
    sent = shapes()[place.form].forward(peek, "m2")
    body = sent.body
    if place.wrapped:
        account = Account(provider="p", type=place.kind, root="", key="k", authority="bedrock-runtime.us-east-1.amazonaws.com")
        body = provider(place.kind).address(sent, account, str(one.row["model"]), NOW).body
    went = json.loads(body)
    recorded = {name: value for name, value in one.request.items() if name != "modelId"}
    if "model" in recorded:
        _must(place.form.startswith("gemini") or went.get("model") == "m2", "the model is not replaced")
    if recorded.get("stream_options") is None:
        went.pop("stream_options", None)  # our own wish, which the client does not hear of
    else:
        recorded["stream_options"] = {**recorded["stream_options"], "include_usage": True}
    went, recorded = _unnamed(went), _unnamed(recorded)
    odd = sorted(name for name in went.keys() | recorded.keys() if went.get(name, "-") != recorded.get(name, "-"))
    _must(not odd, f"sent otherwise than recorded: {', '.join(odd)}")


def _unnamed(body: dict[str, Any]) -> dict[str, Any]:
    """Without the model, which Gemini's shape has inside, too."""
    bare = {name: value for name, value in body.items() if name != "model"}
    if isinstance(inner := bare.get("generateContentRequest"), dict):
        bare["generateContentRequest"] = _unnamed(inner)
    if isinstance(inner := bare.get("requests"), list):
        bare["requests"] = [_unnamed(each) for each in inner]
    return bare


def exists(tree: Any, path: str, message: str = "") -> bool:
    """Whether a client that reads `path` finds it in its request; what is said to be missing, where it belongs."""
    steps = re.findall(r"[^.\[\]]+", path)
    if not steps:
        return False
    for step in steps[:-1]:
        if isinstance(tree, list) and step.isdigit() and int(step) < len(tree):
            tree = tree[int(step)]
        elif isinstance(tree, dict) and step in tree:
            tree = tree[step]
        else:
            return False
    if isinstance(tree, list):
        return steps[-1].isdigit() and int(steps[-1]) < len(tree)
    absent = "required" in message or "must have" in message
    return isinstance(tree, dict) and (steps[-1] in tree or absent)


# -- errors -----------------------------------------------------------------------------------------------------------


def _error(one: Interaction, place: Served, client: str) -> tuple[str, str]:
    headers = {name.lower().encode(): value.encode("latin-1", "replace") for name, value in one.headers}
    fault = provider(place.kind).fault(shapes()[place.form], one.status, headers, one.body, NOW)
    _must(fault.kind in _KINDS[one.status], f"status {one.status} became {fault.kind.name}")
    _must(bool(fault.message), "no message")
    outgoing = shapes()[client].write_error(fault, "req_1")
    told_headers = {str(name, "latin-1").lower(): str(value, "latin-1") for name, value in outgoing.headers}
    verbatim = fault.body is not None and outgoing.body == fault.body
    wrong = "" if verbatim else sdks.error(client, outgoing.status, told_headers, outgoing.body)
    _must(not wrong, f"{fault.kind.name} is told as {wrong}")
    return ("same" if place.form == client else "crossed"), fault.kind.name


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)
