"""Google's Vertex AI: Gemini in its own shape, Claude in Anthropic's, and Google's OpenAI endpoint for whatever else it hosts.

A model without a publisher is Google's, or Anthropic's or Mistral's by its name; `publisher/model` says it, and
`endpoints/ID` is a tuned or deployed one. An account's root ends in `/projects/P/locations/L`, except with an API key
("express mode"), where Google knows the project by the key.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest, .../partner-models/claude/use-claude (the version
in the body, the model in the path), .../partner-models/mistral, .../migrate/openai/overview, and Anthropic's own SDK (counting).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.formats.gemini import errors
from llm_gateway.providers import betas
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault
from llm_gateway.providers.gemini import delayed

_GEMINI, _MESSAGES, _OPENAI = ("gemini", "gemini_array"), "anthropic_messages", "openai_chat"
_NATIVE, _CLAUDE, _COUNT = "/models/", "/messages", "/messages/count_tokens"
_WHOLE = "generateContentRequest"  # how AI Studio wants a count asked; here its content stands at the top
_VERSION = Raw(b'"vertex-2023-10-16"')
_PREDICTING = ("text-embedding", "text-multilingual-embedding", "textembedding", "gemini-embedding-001")
_MISTRAL = ("mistral", "codestral", "ministral", "pixtral", "magistral")
_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


class Vertex:
    static = False  # Claude's version and a model's full name go into the body
    by_value = frozenset({_MESSAGES, "anthropic_count"})
    betas: Mapping[str, str] | None = betas.VERTEX

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        publisher, name = _published(model)
        match operation, publisher:
            case "chat", "anthropic":
                return (_MESSAGES,)
            case "count", "anthropic":
                return ("anthropic_count",)
            case "chat", "google" if "embedding" not in name:
                return (*_GEMINI, _OPENAI) if name.startswith("gemini") else _GEMINI
            case "chat", "endpoints":
                return _GEMINI
            case "count", "google" | "endpoints":
                return ("gemini_count",)
            case "embeddings", "google" if name.startswith(_PREDICTING):
                return ("vertex_embed",)
            case "embeddings", "google" if name.startswith("gemini-embedding"):
                return ("gemini_embed",)
            case "chat", publisher if publisher not in {"google", "endpoints"}:
                return (_OPENAI,)
            case _:
                return ()

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        path, body = _placed(outgoing, model)
        return Wire(b"POST", f"{account.root}{path}".encode(), (*_betas(outgoing), *_headers(account)), body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        """What Google says before a partner's model is reached comes in Google's shape, whatever shape was asked in."""
        fault = read_fault(form, status, headers, body, now)
        if b'"status"' in body and not form.name.startswith("gemini"):
            theirs = errors.read(status, body)
            fault.kind, fault.message = theirs.kind, theirs.message
            fault.body = fault.content_type = None
        return delayed(fault, body)

    def probe(self, account: Account) -> Wire | None:
        """What costs nothing and needs no project: the list of Google's models."""
        version = account.root.partition("/projects/")[0]
        return Wire(b"GET", f"{version}/publishers/google/models?pageSize=1".encode(), _headers(account), b"")


def _betas(outgoing: Outgoing) -> tuple[tuple[bytes, bytes], ...]:
    """Those that are known here, where the client named any. Counting knows of no search."""
    if not any(name == betas.HEADER for name, _ in outgoing.headers):
        return ()
    named = betas.known(outgoing.headers, betas.VERTEX)
    if outgoing.path == _COUNT:
        named = [each for each in named if not each.startswith("web-search")]
    return ((betas.HEADER, ",".join(named).encode()),)


def _headers(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    key = account.key.encode()
    known = (b"authorization", b"Bearer " + key) if account.token else (b"x-goog-api-key", key)
    return (known, *account.headers)


def _published(model: str) -> tuple[str, str]:
    """(publisher, model's own name)."""
    publisher, slash, name = model.removeprefix("publishers/").replace("/models/", "/").partition("/")
    if slash and publisher.strip("."):  # dots alone would lead out of the path
        return publisher, name
    if model.startswith("claude"):
        return "anthropic", model
    return ("mistralai" if model.startswith(_MISTRAL) else "google"), model


def _resource(model: str) -> str:
    """Where the model stands, as a path. `@`, which begins a version, stays as Google's own SDKs write it."""
    publisher, name = _published(model)
    if publisher == "endpoints":
        return f"/endpoints/{quote(name, safe='')}"
    return f"/publishers/{quote(publisher, safe='')}/models/{quote(name, safe='@')}"


def _placed(outgoing: Outgoing, model: str) -> tuple[str, bytes]:
    """Path below the root, and body."""
    if outgoing.path.startswith(_NATIVE):
        verb = outgoing.path.rpartition(":")[2]
        return f"{_resource(model)}:{verb}", _flat(outgoing.body) if verb == "countTokens" else outgoing.body
    members = _decode(outgoing.body)
    if outgoing.path == _COUNT:
        members["model"] = Raw(_encode(_published(model)[1]))
        return "/publishers/anthropic/models/count-tokens:rawPredict", _versioned(members)
    if outgoing.path == _CLAUDE:
        streams = members.get("stream") == Raw(b"true")
        members.pop("model", None)
        return f"{_resource(model)}:{'streamRawPredict' if streams else 'rawPredict'}", _versioned(members)
    publisher, name = _published(model)
    if publisher == "mistralai":  # not behind the OpenAI endpoint, but of its shape
        streams = members.get("stream") == Raw(b"true")
        members["model"] = Raw(_encode(name.partition("@")[0]))
        return f"{_resource(model)}:{'streamRawPredict' if streams else 'rawPredict'}", _encode(members)
    members["model"] = Raw(_encode(f"{publisher}/{name}"))
    return f"/endpoints/openapi{outgoing.path}", _encode(members)


def _versioned(members: dict[str, Raw]) -> bytes:
    return _encode({"anthropic_version": _VERSION, **members})


def _flat(body: bytes) -> bytes:
    members = _decode(body)
    inner = members.pop(_WHOLE, None)
    if inner is None:
        return body
    return _encode(members | {name: raw for name, raw in _decode(inner).items() if name != "model"})
