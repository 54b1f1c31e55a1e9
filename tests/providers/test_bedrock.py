"""Bedrock: what is sent, signed as botocore would, and what its errors mean."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError

from formats.bedrock import CLAUDE, CONVERSE, NOVA, recorded, request
from formats.shapes import CALL, SHAPES, asked
from llm_gateway.core import sigv4
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Choice, Completion, Text, Usage
from llm_gateway.formats.contract import Outgoing
from llm_gateway.providers.bedrock import Bedrock, credentials
from llm_gateway.providers.contract import Account

ANTHROPIC = SHAPES["messages"]
BEDROCK = Bedrock()
NOW = 1_767_225_599.0
KEY, SECRET, SESSION = "AKIAEXAMPLEEXAMPLE00", "wJalr/XUtn+FEMI", "FwoGZXIvYXdz//+="
ARN = "arn:aws:bedrock:eu-west-1:000000000000:application-inference-profile/abc"


def account(key: str = f"{KEY}:{SECRET}", root: str = "", **more) -> Account:
    return Account(provider="aws", type="bedrock", root=root, key=key, **more)


def sent(model: str = CLAUDE, *, stream: bool = False) -> Outgoing:
    return CONVERSE.forward(CONVERSE.peek(request(), model, stream=stream), model)


def messages(**more) -> Outgoing:
    body = {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **more}
    return ANTHROPIC.forward(ANTHROPIC.peek(json.dumps(body).encode()), "x")


def test_claude_takes_both_shapes_and_others_one():
    assert BEDROCK.formats("chat", CLAUDE) == ("bedrock_converse", "anthropic_messages")
    assert BEDROCK.formats("chat", NOVA) == ("bedrock_converse",)
    assert BEDROCK.formats("embeddings", NOVA) == ()
    assert BEDROCK.static is False
    assert BEDROCK.probe(account()) is None


@pytest.mark.parametrize("session", ["", SESSION])
@pytest.mark.parametrize("model", [CLAUDE, ARN])
def test_a_request_is_signed_as_botocore_signs_it(model, session):
    key = f"{KEY}:{SECRET}:{session}" if session else f"{KEY}:{SECRET}"
    wire = BEDROCK.address(sent(model), account(key, region="eu-west-1"), model, NOW)
    host = "bedrock-runtime.eu-west-1.amazonaws.com"
    theirs = AWSRequest("POST", f"https://{host}{wire.path.decode()}", headers={"host": host}, data=wire.body)
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(NOW, UTC))
        SigV4Auth(Credentials(KEY, SECRET, session or None), "bedrock", "eu-west-1").add_auth(theirs)
    headers = dict(wire.headers)
    assert headers[b"authorization"] == theirs.headers["Authorization"].encode()
    assert headers.get(b"x-amz-security-token") == (session.encode() or None)


def test_the_signature_covers_where_it_goes():
    near = account(authority="127.0.0.1:8443", root="/aws", region="us-west-2")
    wire = BEDROCK.address(sent(), near, CLAUDE, NOW)
    assert wire.path.startswith(b"/aws/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse")
    headers = dict(wire.headers) | {b"host": b"127.0.0.1:8443", b"user-agent": b"any"}
    checked = sigv4.Request("POST", wire.path.decode(), "", headers, sigv4.body_hash(wire.body))
    assert sigv4.verify(checked, SECRET, NOW) is None
    assert b"/us-west-2/bedrock/aws4_request" in headers[b"authorization"]


@pytest.mark.parametrize(
    ("authority", "region"),
    [("bedrock-runtime.ap-south-1.amazonaws.com", b"/ap-south-1/"), ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", b"/us-gov-west-1/"),
     ("vpce-1.example.com", b"/us-east-1/"), ("", b"/us-east-1/")],
)  # fmt: skip
def test_the_region_is_the_endpoints(authority, region):
    wire = BEDROCK.address(sent(), account(authority=authority), CLAUDE, NOW)
    assert region in dict(wire.headers)[b"authorization"]


def test_an_api_key_is_a_bearer():
    wire = BEDROCK.address(
        sent(stream=True), account("ABSKQmVkcm9ja0FQSUtleQ==", headers=((b"x-own", b"1"),)), CLAUDE, NOW
    )
    assert wire.headers == ((b"authorization", b"Bearer ABSKQmVkcm9ja0FQSUtleQ=="), (b"x-own", b"1"))
    assert wire.path.endswith(b"/converse-stream")


def test_keys_are_told_apart():
    assert credentials(f"{KEY}:{SECRET}") == sigv4.Credentials(KEY, SECRET)
    assert credentials(f"{KEY}:{SECRET}:{SESSION}") == sigv4.Credentials(KEY, SECRET, SESSION)
    for other in ("", "ABSK==", ":x", "x:", "a:b:c:d", "a b:c"):
        assert credentials(other) is None


# -- Claude's own shape -----------------------------------------------------------------------------------------------


def test_a_messages_request_is_wrapped():
    outgoing = messages(stream=False, unknown=[1])
    outgoing.headers = ((b"anthropic-beta", b"effort-2025-11-24, a-1, context-1m-2025-08-07"), (b"anthropic-version", b"2023-06-01"))
    wire = BEDROCK.address(outgoing, account(), CLAUDE, NOW)
    assert wire.path == b"/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    assert json.loads(wire.body) == {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
        "unknown": [1],
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["effort-2025-11-24", "context-1m-2025-08-07"],
    }
    streamed = BEDROCK.address(messages(stream=True), account(), CLAUDE, NOW)
    assert streamed.path.endswith(b"/invoke-with-response-stream")
    assert "stream" not in json.loads(streamed.body)
    own = BEDROCK.address(messages(anthropic_version="other"), account(), CLAUDE, NOW)
    assert json.loads(own.body)["anthropic_version"] == "other"


@pytest.mark.parametrize(
    "interaction",
    [one for one in recorded("invoke", "invoke-stream") if "max_tokens" in (one.request or {}) and "messages" in (one.request or {})
     and "anthropic" in one.row["model"]],
    ids=lambda one: one.id,
)  # fmt: skip
def test_a_recorded_request_is_what_we_send(interaction):
    recorded_body = dict(interaction.request)
    stream = "stream" in interaction.row["api"]
    asked_for = {name: value for name, value in recorded_body.items() if name != "anthropic_version"}
    body = json.dumps({**asked_for, "model": "m", "stream": stream}).encode()
    wire = BEDROCK.address(ANTHROPIC.forward(ANTHROPIC.peek(body), "m"), account(), interaction.row["model"], NOW)
    assert json.loads(wire.body) == {"anthropic_version": "bedrock-2023-05-31", **recorded_body}
    assert wire.path.decode().replace("%3A", ":") == interaction.url_path.replace("%3A", ":")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "message", "kind"),
    [
        ("ThrottlingException", 429, "Too many tokens, please wait", Kind.UPSTREAM_RATE_LIMIT),
        ("ServiceQuotaExceededException", 400, "quota", Kind.UPSTREAM_QUOTA),
        ("ModelTimeoutException", 408, "x", Kind.TIMEOUT),
        ("ModelNotReadyException", 429, "x", Kind.OVERLOADED),
        ("ModelErrorException", 424, "x", Kind.UPSTREAM_ERROR),
        ("ServiceUnavailableException", 503, "x", Kind.OVERLOADED),
        ("InternalServerException", 500, "x", Kind.UPSTREAM_ERROR),
        ("AccessDeniedException", 403, "User: arn:aws:iam::1:user/x is not authorized", Kind.UPSTREAM_AUTH),
        (
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid.",
            Kind.UPSTREAM_AUTH,
        ),
        ("ExpiredTokenException", 403, "expired", Kind.UPSTREAM_AUTH),
        ("InvalidSignatureException", 403, "x", Kind.UPSTREAM_AUTH),
        ("ResourceNotFoundException", 404, "x", Kind.UPSTREAM_NO_MODEL),
        ("ValidationException", 400, "The provided model identifier is invalid.", Kind.UPSTREAM_NO_MODEL),
        ("ValidationException", 400, "Input is too long for requested model.", Kind.CONTEXT_LENGTH),
        ("ValidationException", 400, "Malformed input request", Kind.INVALID),
    ],
)
@pytest.mark.parametrize("form", [CONVERSE, ANTHROPIC], ids=lambda form: form.name)
def test_an_exceptions_name_says_what_it_is(form, name, status, message, kind):
    headers = {b"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/".encode()}
    fault = BEDROCK.fault(form, status, headers, json.dumps({"message": message}).encode(), NOW)
    assert (fault.kind, fault.status) == (kind, status)
    assert "arn:" not in fault.message
    if kind is Kind.INVALID:
        assert fault.message == message
        told = form.write_error(fault, "req_1")
        assert told.status == 400
        assert message in told.body.decode()
    elif kind.blame != "caller":
        assert fault.body is None


REFUSED = [one for one in recorded("converse", "invoke", "invoke-stream") if one.status >= 400]


@pytest.mark.parametrize("interaction", REFUSED, ids=lambda one: one.id)
def test_a_recorded_error_never_blames_the_caller_for_our_account(interaction):
    headers = {name.lower().encode(): value.encode() for name, value in interaction.headers}
    fault = BEDROCK.fault(CONVERSE, interaction.status, headers, interaction.body, NOW)
    assert (fault.kind is Kind.UPSTREAM_AUTH) is (interaction.status == 403)


def test_a_rate_limit_says_when_again_and_nothing_of_the_account():
    headers = {b"x-amzn-errortype": b"ThrottlingException", b"retry-after": b"3"}
    fault = BEDROCK.fault(CONVERSE, 429, headers, b'{"message":"Too many requests for account 1234"}', NOW)
    assert fault.retry_after == 3
    assert "1234" not in fault.message


# -- boto3 against what we write, over a socket ------------------------------------------------------------------------


@contextmanager
def serving(answer: Outgoing, kind: str) -> Iterator[tuple[str, list[sigv4.Request]]]:
    """A server on loopback that answers every POST alike, and what it was asked."""
    heard: list[sigv4.Request] = []

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower().encode(): value.encode() for name, value in self.headers.items()}
            path, _, query = self.path.partition("?")
            heard.append(sigv4.Request("POST", path, query, headers, sigv4.body_hash(body)))
            self.send_response(answer.status)
            named = {name.decode(): value.decode() for name, value in answer.headers} | {"content-type": kind}
            for name, value in {**named, "content-length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client(url: str):
    return boto3.client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


ASKED = {"modelId": ARN, "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
JSON, FRAMES = "application/json", "application/vnd.amazon.eventstream"


def test_boto3_reads_our_reply_and_we_its_signature():
    reply = Completion(id="i", model="m", choices=(Choice((Text("hello"),), "stop"),), usage=Usage(input=3, output=2))
    with serving(CONVERSE.write_reply(reply, CALL), JSON) as (url, heard):
        told = client(url).converse(**ASKED)
    assert told["output"]["message"]["content"] == [{"text": "hello"}]
    assert told["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    (asked_for,) = heard
    now = datetime.strptime(asked_for.headers[b"x-amz-date"].decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    assert sigv4.access_key(asked_for.headers) == KEY
    assert sigv4.verify(asked_for, SECRET, now) is None
    assert sigv4.verify(asked_for, SECRET + "x", now) is not None


def test_boto3_reads_our_stream_and_how_it_failed():
    passage = CONVERSE.splice(asked())
    recorded_stream = next((one for one in recorded("converse-stream") if one.row["streaming"]), None)
    if recorded_stream is None:
        pytest.skip("no recorded traffic")
    body = passage.feed(recorded_stream.body)
    with serving(Outgoing(body + passage.tail(None)), FRAMES) as (url, _):
        events = list(client(url).converse_stream(**ASKED)["stream"])
    assert "messageStart" in events[0]
    assert "metadata" in events[-1]
    failed = body + passage.fail(Fault(Kind.UPSTREAM_RATE_LIMIT, "slow down"))
    with serving(Outgoing(failed), FRAMES) as (url, _), pytest.raises(EventStreamError, match="slow down") as caught:
        list(client(url).converse_stream(**ASKED)["stream"])
    assert caught.value.response["Error"]["Code"] == "throttlingException"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Kind.INVALID, "ValidationException"), (Kind.UNAUTHENTICATED, "UnrecognizedClientException"), (Kind.FORBIDDEN, "AccessDeniedException"),
     (Kind.NO_MODEL, "ResourceNotFoundException"), (Kind.RATE_LIMIT, "ThrottlingException"), (Kind.UNAVAILABLE, "ServiceUnavailableException"),
     (Kind.TIMEOUT, "ModelTimeoutException"), (Kind.UPSTREAM_CUT, "ModelErrorException"), (Kind.INTERNAL, "InternalServerException")],
)  # fmt: skip
def test_boto3_raises_our_errors_by_name(kind, name):
    with serving(CONVERSE.write_error(Fault(kind, "What happened."), "req_1"), JSON) as (url, _):
        runtime = client(url)
        with pytest.raises(getattr(runtime.exceptions, name, ClientError), match=r"What happened\.") as caught:
            runtime.converse(**ASKED)
    assert caught.value.response["Error"]["Code"] == name


@pytest.mark.parametrize(
    "message",
    [
        "User: arn:aws:sts::123456789012:assumed-role/gw/s is not authorized to perform: bedrock:ApplyGuardrail on resource: x",
        "User: arn:aws:sts::123456789012:assumed-role/gw/s is not authorized to perform: s3:GetObject on resource: x",
    ],
)
def test_what_a_caller_names_and_we_may_not_use_is_not_our_keys_trouble(message):
    """A guardrail, an object in S3: three of them would take the model from everybody."""
    fault = BEDROCK.fault(CONVERSE, 403, {b"x-amzn-errortype": b"AccessDeniedException"}, json.dumps({"message": message}).encode(), NOW)
    assert (fault.kind, fault.code) == (Kind.UPSTREAM_NO_MODEL, "resource_unavailable")
    assert "123456789012" not in fault.message
    told = CONVERSE.write_error(fault, "r")
    assert (told.status, b"123456789012" in told.body) == (404, False)
    model = b'{"message":"User: x is not authorized to perform: bedrock:InvokeModel on resource: y"}'
    assert BEDROCK.fault(CONVERSE, 403, {b"x-amzn-errortype": b"AccessDeniedException"}, model, NOW).kind is Kind.UPSTREAM_AUTH
