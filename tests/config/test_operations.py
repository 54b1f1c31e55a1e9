"""Probes, events and webhooks in the file: what is refused, and what becomes of the rest."""

from __future__ import annotations

import pytest

from llm_gateway.config.problems import ConfigError
from llm_gateway.config.snapshot import Health
from llm_gateway.config.webhooking import signing_key

TEXT = "text of more than twenty-four letters"


def test_a_provider_is_asked_as_its_own_section_says_or_as_all_are(compile_text):
    text = """
providers:
  a: {type: vllm, base_url: "http://a"}
  b: {type: vllm, base_url: "http://b", health: {interval: 500ms, rise: 1, path: /health}}
  c: {type: vllm, base_url: "http://c", health: {enabled: false}}
resilience: {health: {interval: 1m, timeout: 2s, fall: 5}}
"""
    found = {each.name: each.health for each in compile_text(text).snapshot.providers}
    assert found["a"] == Health(interval=60.0, timeout=2.0, fall=5)
    assert found["b"] == Health(path="/health", interval=0.5, timeout=2.0, fall=5, rise=1)
    assert (found["b"].enabled, found["c"].enabled) == (True, False)
    text = text.replace("fall: 5", "enabled: false").replace("health: {enabled: false}}\nres", "health: {enabled: true}}\nres")
    assert {each.name: each.health.enabled for each in compile_text(text).snapshot.providers} == {"a": False, "b": False, "c": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resilience: {health: {interval: 0}}", "resilience.health.interval: expected at least 0.05"),
        ("resilience: {health: {fall: 0}}", "resilience.health.fall: expected at least 1"),
        ("providers: {a: {type: vllm, base_url: 'http://a', health: {path: health}}}", "a.health.path: expected a path: it begins with `/`"),
        ("providers: {a: {type: vllm, base_url: 'http://a', health: {intervall: 1}}}", "did you mean `interval`?"),
        (f"events: {{webhooks: [{{secret: {TEXT}}}]}}", "events.webhooks[0].url: is required"),
        ("events: {webhooks: [{url: 'https://h/x'}]}", "events.webhooks[0].secret: is required"),
        ("events: {webhooks: [{url: 'https://h/x', secret: short}]}", "events.webhooks[0].secret: expected `whsec_` and 24 to 64 bytes"),
        ("events: {webhooks: [{url: 'https://h/x', secret: whsec_c2hvcnQ=}]}", "openssl rand -base64 32"),
        (f"events: {{webhooks: [{{url: 'ftp://h/x', secret: {TEXT}}}]}}", "events.webhooks[0].url: expected an address"),
        (f"events: {{webhooks: [{{url: 'https://u:p@h/', secret: {TEXT}}}]}}", "no user or password"),
        (f"events: {{webhooks: [{{url: 'https://h:99999/', secret: {TEXT}}}]}}", "events.webhooks[0].url: expected an address"),
        (f"events: {{webhooks: [{{url: 'http://10.0.0.1/', secret: {TEXT}}}]}}", "`allow_private: true` allows"),
        (f"events: {{webhooks: [{{url: 'http://169.254.169.254/', secret: {TEXT}, allow_private: true}}]}}", "leads into a network"),
        (f"events: {{webhooks: [{{url: 'https://h/x', secret: {TEXT}, events: [nonsense]}}]}}", "events.webhooks[0].events[0]: expected one of"),
    ],
)
def test_what_is_wrong_is_said(compile_text, text, message):
    with pytest.raises(ConfigError) as caught:
        compile_text(text)
    assert message in str(caught.value)
    assert TEXT not in str(caught.value)


def test_a_webhook_is_for_the_operator_alone(compile_text):
    text = "events: {webhooks: [{url: 'https://h:8443/x?token=1', secret: '${HOOK}', events: [key_disabled], timeout: 500ms}]}"
    compiled = compile_text(text, HOOK=f"{TEXT}!")
    (hook,) = compiled.webhooks
    assert (hook.url, hook.key, hook.events, hook.timeout, hook.private) == (
        "https://h:8443/x?token=1", f"{TEXT}!".encode(), ("key_disabled",), 0.5, False
    )  # fmt: skip
    assert TEXT not in str(compiled.snapshot)


def test_signing_keys():
    assert signing_key("whsec_" + "A" * 32) == bytes(24)
    assert signing_key("whsec_" + "A" * 31) is None
    assert signing_key("whsec_" + "not base64 at all, though it is long") is None
    assert signing_key("whsec_" + "A" * 88) is None
    assert signing_key("x" * 24) == b"x" * 24
    assert signing_key("x" * 23) is None
