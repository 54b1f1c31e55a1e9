"""An upstream's error reply as seen from our side, and Retry-After in whatever way it is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.anthropic_messages import AnthropicMessages
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.openai_chat import OpenAIChat
from llm_gateway.policies.retry import LONGEST_RETRY_AFTER
from llm_gateway.providers.faults import FROM_UPSTREAM, read_fault, retry_after
from llm_gateway.providers.registry import provider

NOW = 1_764_000_000.0
OPENAI, ANTHROPIC, GEMINI = OpenAIChat(), AnthropicMessages(), Gemini()


def openai(status: int, message: str = "no", code: str | None = None, kind: str = "x", **headers: str):
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return read_fault(OPENAI, status, sent | {b"content-type": b"application/json"}, body, NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.INVALID), (401, Kind.UPSTREAM_AUTH), (402, Kind.UPSTREAM_QUOTA), (403, Kind.UPSTREAM_AUTH),
        (404, Kind.UPSTREAM_NO_MODEL), (405, Kind.INVALID), (408, Kind.TIMEOUT), (409, Kind.UPSTREAM_CONFLICT),
        (413, Kind.TOO_LARGE), (422, Kind.UNPROCESSABLE), (429, Kind.UPSTREAM_RATE_LIMIT), (500, Kind.UPSTREAM_ERROR),
        (502, Kind.UPSTREAM_ERROR), (503, Kind.OVERLOADED), (504, Kind.TIMEOUT), (529, Kind.OVERLOADED),
    ],
)  # fmt: skip
def test_a_status_without_words(status: int, kind: Kind) -> None:
    fault = openai(status)
    assert (fault.kind, fault.status) == (kind, status)


def test_no_fault_from_upstream_is_worded_as_if_the_caller_had_no_key() -> None:
    blamed = {Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.PAYMENT, Kind.NOT_FOUND, Kind.NO_MODEL, Kind.RATE_LIMIT, Kind.METHOD}
    assert blamed <= FROM_UPSTREAM.keys()
    assert not blamed & set(FROM_UPSTREAM.values())


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_whatever_a_shape_reads_it_is_told_from_our_side(kind: Kind) -> None:
    class Shape:
        def read_error(self, status: int, body: bytes) -> Fault:
            return Fault(kind, "no")

    told = read_fault(Shape(), 400, {}, b"", NOW).kind  # type: ignore[arg-type]
    assert told is FROM_UPSTREAM.get(kind, kind)
    assert told.status not in (401, 402, 403, 405)


@pytest.mark.parametrize("status", [401, 403])
def test_our_credentials_are_never_quoted(status: int) -> None:
    fault = openai(status, "Incorrect API key provided: sk-proj-abcd1234.", code="invalid_api_key")
    assert fault.kind is Kind.UPSTREAM_AUTH
    assert "sk-proj" not in fault.message
    assert fault.body is None


def test_a_rate_limit_tells_nothing_of_our_account() -> None:
    words = "Rate limit reached for gpt-4o in organization org-Secret on tokens per min (TPM): Limit 30000, Used 29500."
    fault = openai(429, words, code="rate_limit_exceeded", retry_after="7")
    assert fault.retry_after == 7
    assert fault.body is None
    assert "org-Secret" not in fault.message
    assert "29500" not in fault.message


def test_a_quota_is_ours_to_fix_and_not_to_wait_for() -> None:
    assert openai(429, "You exceeded your current quota", code="insufficient_quota").kind is Kind.UPSTREAM_QUOTA
    body = b'{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}'
    assert read_fault(ANTHROPIC, 400, {}, body, NOW).kind is Kind.UPSTREAM_QUOTA


@pytest.mark.parametrize("quoted", ["invalid api key", "no auth", "Incorrect API key provided", "your credit balance is low", "insufficient funds"])
@pytest.mark.parametrize("message", ["Invalid value: '%s'. Supported values are: 'low' and 'high'.", "messages.0.content: Input should be a string, not %s"])
def test_what_a_client_wrote_is_not_taken_for_word_of_our_account(message: str, quoted: str) -> None:
    for shape in (OPENAI, ANTHROPIC):
        body = json.dumps({"error": {"type": "invalid_request_error", "message": message % quoted}}).encode()
        assert read_fault(shape, 400, {}, body, NOW).kind is Kind.INVALID


@pytest.mark.parametrize("quoted", ["api key expired", "the caller does not have permission", "API_KEY_INVALID"])
def test_nor_is_it_in_googles_words(quoted: str) -> None:
    said = {"code": 400, "message": f"Invalid value at 'contents[0].role' (TYPE_STRING), \"{quoted}\"", "status": "INVALID_ARGUMENT"}
    assert read_fault(GEMINI, 400, {}, json.dumps({"error": said}).encode(), NOW).kind is Kind.INVALID
    known = {**said, "message": f"{quoted}. Please renew it."}
    assert read_fault(GEMINI, 400, {}, json.dumps({"error": known}).encode(), NOW).kind is Kind.UPSTREAM_AUTH


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Incorrect API key provided: in***ey. You can obtain one.", Kind.UPSTREAM_AUTH), ("API key not valid. Please pass one.", Kind.UPSTREAM_AUTH),
        ("Your credit balance is too low to access the API.", Kind.UPSTREAM_QUOTA), ("Insufficient Balance", Kind.UPSTREAM_QUOTA),
        ("You exceeded your current quota, please check your plan.", Kind.UPSTREAM_QUOTA),
    ],
)  # fmt: skip
def test_word_of_our_account_is_known_by_its_beginning(message: str, kind: Kind) -> None:
    assert read_fault(OPENAI, 400, {}, json.dumps({"error": {"message": message}}).encode(), NOW).kind is kind


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_callers_fault_keeps_the_upstreams_body_for_clients_of_its_shape(status: int) -> None:
    fault = openai(status, "'messages[0].content' is too odd")
    assert fault.kind.blame == "caller"
    assert fault.body is not None
    assert json.loads(fault.body)["error"]["message"] == fault.message
    assert fault.content_type == b"application/json"


@pytest.mark.parametrize(
    "body", [b"<html><title>400 Bad Request</title></html>", b"", b'{"error": {"message": "cut o', b"\xff\xfe", b"{" * 70_000]
)
def test_what_is_no_error_of_any_shape_is_not_handed_on_as_one(body: bytes) -> None:
    fault = read_fault(OPENAI, 400, {b"content-type": b"text/html"}, body, NOW)
    assert fault.body is None
    assert fault.message
    assert fault.message.isprintable() or "�" in fault.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"retry-after": b"7"}, 7.0),
        ({b"retry-after": b" 1.5 "}, 1.5),
        ({b"retry-after": b"0"}, 0.0),
        ({b"retry-after": b"-3"}, None),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"inf"}, None),
        ({b"retry-after": b"1e99"}, LONGEST_RETRY_AFTER),
        ({b"retry-after": b"99999999999999999999"}, LONGEST_RETRY_AFTER),
        ({b"retry-after": b"soon"}, None),
        ({b"retry-after": b""}, None),
        ({b"retry-after": b"\xff"}, None),
        ({b"retry-after-ms": b"1500"}, 1.5),
        ({b"retry-after-ms": b"250", b"retry-after": b"1"}, 0.25),
        ({b"retry-after-ms": b"NaN", b"retry-after": b"3"}, 3.0),
        ({b"retry-after-ms": b"often", b"retry-after": b"3"}, 3.0),
        ({b"retry-after-ms": b"-1"}, None),
        ({b"retry-after": b"Mon, 24 Nov 2025 16:00:30 GMT"}, 30.0),
        ({b"retry-after": b"Mon, 24 Nov 2025 16:00:30 -0000"}, 30.0),
        ({b"retry-after": b"Mon, 24 Nov 2025 17:00:30 +0100"}, 30.0),
        ({b"retry-after": b"Sun, 01 Jan 2023 00:00:00 GMT"}, 0.0),
        ({b"retry-after": b"Fri, 01 Jan 9999 00:00:00 GMT"}, LONGEST_RETRY_AFTER),
        ({b"retry-after": b"Xyz, 99 Foo 2025 16:00:30 GMT"}, None),
        ({b"retry-after": b"Jan , 2020"}, None),
    ],
)
def test_retry_after(headers: dict[bytes, bytes], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == pytest.approx(seconds)


def test_dates_do_not_depend_on_the_machines_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after({b"retry-after": b"Mon, 24 Nov 2025 16:00:30 -0000"}, NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.binary(max_size=60), st.binary(max_size=60))
@example(b"Mon, 24 Nov 2025", b"")
@example(b"Jan", b"1_0")
@example(b"A, 1 Jan 99999999999 00:00:00 GMT", b"")
def test_no_header_breaks_us(plain: bytes, milliseconds: bytes) -> None:
    for headers in ({b"retry-after": plain}, {b"retry-after": plain, b"retry-after-ms": milliseconds}):
        seconds = retry_after(headers, NOW)
        assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


@given(st.datetimes(datetime(2025, 11, 24), datetime(2025, 11, 26)))  # noqa: DTZ001
def test_dates_count_from_now(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    expected = min(max(0.0, moment.timestamp() - NOW), LONGEST_RETRY_AFTER)
    assert retry_after({b"retry-after": format_datetime(moment, usegmt=True).encode()}, NOW) == pytest.approx(expected)


@given(st.integers(400, 599), st.binary(max_size=300))
def test_any_body_makes_a_fault(status: int, body: bytes) -> None:
    for form in (OPENAI, ANTHROPIC, GEMINI):
        fault = read_fault(form, status, {}, body, NOW)
        assert fault.kind not in FROM_UPSTREAM


def test_google_says_in_the_body_when_to_come_again() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48.9s"}]
    said = {"code": 429, "message": "You exceeded your current quota.", "status": "RESOURCE_EXHAUSTED", "details": details}
    body = json.dumps({"error": said}).encode()
    speaker = provider("gemini")
    fault = speaker.fault(GEMINI, 429, {}, body, NOW)
    assert (fault.kind, fault.retry_after) == (Kind.UPSTREAM_RATE_LIMIT, 48.9)
    assert fault.body is None  # it names our project and its quota
    assert speaker.fault(GEMINI, 429, {b"retry-after": b"5"}, body, NOW).retry_after == 5.0
    assert speaker.fault(GEMINI, 400, {}, b'{"error":{"status":"INVALID_ARGUMENT"}}', NOW).retry_after is None


def test_xais_refusal_of_a_prompt_is_the_callers_and_does_not_tell_of_our_account():
    """It comes with 403, as that of a key; three of them would take the model from everybody."""
    told = "Content violates usage guidelines. Team: 1f2e, API key ID: 77aa, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"
    body = json.dumps({"code": "The caller does not have permission to execute the specified operation", "error": told}).encode()
    fault = provider("xai").fault(OPENAI, 403, {}, body, 0.0)
    assert fault.kind is Kind.CONTENT_FILTER
    said = OPENAI.write_error(fault, "r")
    assert (said.status, json.loads(said.body)["error"]["code"]) == (400, "content_filter")
    assert b"violates usage guidelines" in said.body
    assert b"1f2e" not in said.body
    assert b"77aa" not in said.body
    assert provider("xai").fault(OPENAI, 403, {}, b'{"error":"Incorrect API key"}', 0.0).kind is Kind.UPSTREAM_AUTH


def test_openrouters_moderation_is_the_callers():
    """It comes with 403, as that of a key; three of them would take the model from everybody."""
    metadata = {"reasons": ["violence"], "flagged_input": "how to", "provider_name": "OpenAI", "model_slug": "openai/gpt-5"}
    told = "Your chosen model requires moderation and your input was flagged"
    body = json.dumps({"error": {"code": 403, "message": told, "metadata": metadata}}).encode()
    assert provider("openrouter").fault(OPENAI, 403, {}, body, 0.0).kind is Kind.CONTENT_FILTER


def test_a_callers_mcp_server_that_does_not_answer_is_not_the_providers_failure():
    """A few of them would open the breaker and take the model from everybody; another attempt would ask the same server."""
    told = "Error retrieving tool list from MCP server: 'crm'. Http status code: 424 (Failed Dependency)"
    error = {"message": told, "type": "external_connector_error", "param": "tools", "code": "http_error"}
    fault = provider("openai").fault(OPENAI, 424, {}, json.dumps({"error": error}).encode(), 0.0)
    assert (fault.kind, fault.kind.blame) == (Kind.INVALID, "caller")
    said = OPENAI.write_error(fault, "r")
    assert said.status == 424
    assert json.loads(said.body)["error"]["message"] == told
    assert provider("openai").fault(OPENAI, 424, {}, b"{}", 0.0).kind is Kind.UPSTREAM_ERROR
