"""Amazon Bedrock: Converse for every model, and for Claude the Messages API in Bedrock's wrapping too.

An account's `key` is a Bedrock API key (sent as a bearer token; the variable AWS_BEARER_TOKEN_BEDROCK), or AWS credentials
written as `ACCESS_KEY_ID:SECRET` or `ACCESS_KEY_ID:SECRET:SESSION_TOKEN`, with which each request is signed; those that the
operator process fetches come in this form too. The region is the account's, else the one that the endpoint's name says, else
us-east-1.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/welcome.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html
There is no probe: all that the runtime's endpoint does is run models, for money; what lists them is another host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Raw

from llm_gateway.core import sigv4
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.sigv4 import Credentials, Request, Scope
from llm_gateway.formats.bedrock_converse import errors
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers import betas
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import RATE_LIMITED, UNCOUNTED, read_fault

_CONVERSE, _MESSAGES, _COUNT = "bedrock_converse", "anthropic_messages", "bedrock_count"
# Vectors come from InvokeModel, in the shape of who made the model.
_EMBEDDINGS = (("titan-embed-text", ("bedrock_titan_embed",)), ("cohere.embed", ("bedrock_cohere_embed",)))
_UNCOUNTED = b"support counting tokens"
_NATIVE = "/model/"  # what every path of Converse begins with
_VERSION = Raw(b'"bedrock-2023-05-31"')
_REGION = "us-east-1"
_OF_THE_PATH = frozenset({"model", "stream"})
_ACCESS_KEY = re.compile(r"([^:\s]+):([^:\s]+)(?::([^:\s]+))?")
_ENDPOINT = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]{1,64})\.")
_decode = msgspec.json.Decoder(dict[str, Raw]).decode


class Bedrock:
    static = False  # a signature covers the time and the body
    by_value = frozenset({_MESSAGES})
    betas: Mapping[str, str] | None = betas.BEDROCK

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        if operation == "embeddings":
            return next((shapes for part, shapes in _EMBEDDINGS if part in model), ())
        if operation == "count" and "anthropic.claude" in model and not model.startswith("arn:"):
            return (_COUNT,)
        if operation != "chat":
            return ()
        return (_CONVERSE, _MESSAGES) if "claude" in model else (_CONVERSE,)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        if outgoing.path.startswith(_NATIVE):
            path, body = outgoing.path, outgoing.body
        else:
            path, body = _invoking(outgoing, model)
        path = f"{account.root}{path}"
        unsaid = ((betas.HEADER, b""),) if any(name == betas.HEADER for name, _ in outgoing.headers) else ()  # the body says it
        return Wire(b"POST", path.encode(), (*_auth(path, body, account, now), *unsaid, *account.headers), body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        """The exception's name stands in a header; where it decides, the shape's reading of the body gives way."""
        fault = read_fault(form, status, headers, body, now)
        name = str(headers.get(b"x-amzn-errortype", b""), "latin-1")
        told = errors.read(status, body, name)
        if told.kind is not fault.kind:
            fault.kind, fault.code, fault.message = told.kind, told.code, told.message
            fault.body, fault.content_type = told.body, told.content_type
        if fault.kind is Kind.UPSTREAM_RATE_LIMIT:
            fault.message = RATE_LIMITED
        elif _UNCOUNTED in body:  # older models, and regions that do not count yet
            fault.code = UNCOUNTED
        return fault

    def probe(self, account: Account) -> Wire | None:
        return None


def credentials(key: str) -> Credentials | None:
    """AWS credentials out of an account's key; None for a Bedrock API key."""
    found = _ACCESS_KEY.fullmatch(key)
    return Credentials(found[1], found[2], found[3] or "") if found is not None else None


def _auth(path: str, body: bytes, account: Account, now: float) -> tuple[tuple[bytes, bytes], ...]:
    known = credentials(account.key)
    if known is None:
        return ((b"authorization", b"Bearer " + account.key.encode()),)
    region = _region(account)
    host = account.authority or f"bedrock-runtime.{region}.amazonaws.com"
    request = Request("POST", path, "", {b"host": host.encode()}, sigv4.body_hash(body))
    return sigv4.sign(request, known, Scope(region), now)


def _region(account: Account) -> str:
    if account.region:
        return account.region
    found = _ENDPOINT.match(account.authority)
    return found[1] if found is not None else _REGION


def _invoking(outgoing: Outgoing, model: str) -> tuple[str, bytes]:
    """A messages request as Bedrock takes it: the model and whether to stream in the path, the version and the betas, which
    elsewhere are headers, in the body."""
    members = _decode(outgoing.body)
    streams = members.get("stream") == Raw(b"true")
    kept = {name: raw for name, raw in members.items() if name not in _OF_THE_PATH}
    kept.setdefault("anthropic_version", _VERSION)
    named = betas.known(outgoing.headers, betas.BEDROCK)
    if named and "anthropic_beta" not in kept:
        kept["anthropic_beta"] = Raw(msgspec.json.encode(named))
    verb = "invoke-with-response-stream" if streams else "invoke"
    return f"{_NATIVE}{quote(model, safe='')}/{verb}", msgspec.json.encode(kept)
