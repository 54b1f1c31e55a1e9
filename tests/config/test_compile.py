"""What two sections decide together: aliases, keys, reach, digests."""

from __future__ import annotations

import hmac
import re
from pathlib import Path

import msgspec
import pytest

from llm_gateway.config import operations, schema, schema_resilience, schema_routing, values
from llm_gateway.config.problems import PATTERNS
from llm_gateway.config.snapshot import Media, Snapshot
from llm_gateway.models.catalogue import Facts

LOCAL = "providers: {a: {type: vllm}, b: {type: vllm, base_url: 'http://b:1/v1/'}}\n"


def test_fallbacks_are_followed_to_the_end_without_repeats(compile_text):
    text = (
        LOCAL
        + """
models:
  one: {targets: [a/1], fallbacks: [two, b/9]}
  two: {targets: [b/2, a/1], fallbacks: [three]}
  three: [b/3, b/9]
"""
    )
    one = compile_text(text).snapshot.aliases[0]
    assert [f"{target.provider}/{target.model}" for target in one.fallbacks] == ["b/2", "b/3", "b/9"]


@pytest.mark.parametrize("models", ["x: {targets: [a/1], fallbacks: [y]}, y: {targets: [a/1], fallbacks: [x]}"])
def test_a_circle_of_fallbacks_is_refused(problems_of, models):
    lines = problems_of(LOCAL + f"models: {{{models}}}")
    assert any("go in a circle: x -> y -> x" in line for line in lines), lines


def test_an_alias_that_falls_back_to_itself_is_refused(problems_of):
    (line,) = problems_of(LOCAL + "models: {x: {targets: [a/1], fallbacks: [x]}}")
    assert "models.x.fallbacks[0]: goes in a circle: x -> x" in line


def test_short_forms_of_an_alias(compile_text):
    one, two, three = compile_text(
        LOCAL + "models: {x: a/1, y: [a/1, b/org/m], z: {targets: [a/1], timeout: 5}}"
    ).snapshot.aliases
    assert [target.model for target in one.targets] == ["1"]
    assert [target.model for target in two.targets] == ["1", "org/m"]
    assert three.timeout == 5.0


def test_targets_of_a_provider_that_cannot_be_called_are_dropped_and_said(compile_text):
    text = "providers: {openai: {enabled: false}, b: {type: vllm}}\nmodels: {x: [openai/m, b/m], y: openai/m}"
    made = compile_text(text)
    assert [alias.name for alias in made.snapshot.aliases] == ["x"]
    assert made.warnings == (
        "config.yaml:2:14: `openai/m` is dropped: provider openai is not enabled",
        "config.yaml:2:13: `openai/m` is dropped: provider openai is not enabled",
        "model y is left out: none of its targets can be called",
    ) or all("openai" in warning or "model y" in warning for warning in made.warnings)


def test_keys_are_kept_as_keyed_hashes_only(compile_text):
    snapshot = compile_text(LOCAL + "keys: [{name: ci, key: sk-local-0123456789, models: [x]}]").snapshot
    (key,) = snapshot.keys
    assert key.digest == hmac.digest(snapshot.secret, b"sk-local-0123456789", "sha256")
    assert b"sk-local-0123456789" not in msgspec.msgpack.encode(snapshot)


def test_a_digest_stands_for_its_key(compile_text):
    (key,) = compile_text(LOCAL + f"keys: [{{name: ci, digest: {'ab' * 32}}}]").snapshot.keys
    assert key.digest == bytes.fromhex("ab" * 32)


def test_keys_and_names_are_given_once(problems_of):
    lines = problems_of(LOCAL + "keys: [{name: a, key: sk-12345678}, {name: a, key: sk-12345678}]")
    assert len(lines) == 2


def test_a_development_key_only_where_the_file_has_none(compile_text):
    assert [key.name for key in compile_text(LOCAL).snapshot.keys] == ["development"]
    assert compile_text(LOCAL + "keys: [{name: a, key: sk-12345678}]").snapshot.keys[0].name == "a"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_open_on_loopback(compile_text, host):
    assert compile_text(f"auth: {{required: false}}\nserver: {{host: '{host}'}}").snapshot.auth_required is False


def test_open_elsewhere_only_by_force(compile_text):
    assert compile_text("auth: {required: false, force: true}").snapshot.auth_required is False


def test_several_keys_of_one_provider(compile_text):
    text = "providers: {openai: {keys: [sk-1, {key: '${GONE}'}, {key: sk-2, name: spare}]}}"
    keys = compile_text(text, OPENAI_API_KEY="sk-env").snapshot.providers[0].keys
    assert [key.value for key in keys] == ["sk-1", "sk-2"]
    assert keys[1].id == "spare"


def test_sizes_and_durations_take_units(compile_text):
    text = "server: {max_body_bytes: 10MiB, header_timeout_seconds: 500ms, timeout_seconds: 2m}\ndrain: {lame_duck: 0}"
    server = compile_text(text).snapshot.server
    assert (server.max_body, server.header_timeout, server.timeout, server.lame_duck) == (10 << 20, 0.5, 120.0, 0.0)


def test_the_digest_tells_configurations_apart_and_nothing_else(compile_text):
    one, again = compile_text(LOCAL).snapshot, compile_text("# other words\n" + LOCAL).snapshot
    assert one.digest == again.digest
    assert compile_text(LOCAL + "journal: {on_error: continue}").snapshot.digest != one.digest


def test_a_snapshot_survives_its_travel(compile_text):
    snapshot = compile_text(LOCAL + "prices: {a/1: {input: 2.5}}\nmodels: {x: a/1}").snapshot
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot


def test_paths_are_absolute(compile_text, tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    text = "data_dir: d\nlogging: {output: log/a}\nserver: {unix_socket: s}\nproviders: {a: {type: vllm, tls: {ca: ca.pem}}}"
    snapshot = compile_text(text).snapshot
    here = str(tmp_path)
    assert snapshot.data_dir == f"{here}/d"
    assert snapshot.logging.output == f"{here}/log/a"
    assert snapshot.server.listeners[1].path == f"{here}/s"
    assert snapshot.providers[0].tls.ca == f"{here}/ca.pem"


def test_media_by_url_are_fetched_unless_said_otherwise(compile_text, problems_of):
    assert compile_text("").snapshot.media == Media()
    text = "media: {fetch: false, max_bytes: 8MiB, timeout_seconds: 500ms, allow_hosts: ['*.a.example'], allow_ports: [8443], allow_private: true}"
    assert compile_text(text).snapshot.media == Media(False, 8 << 20, 0.5, ("*.a.example",), (8443,), private=True)
    for wrong in ("max_bytes: 2GiB", "timeout_seconds: 0", "allow_hosts: ['A.example']", "allow_hosts: ['http://a']", "allow_ports: [0]", "redirects: 3"):
        (line,) = problems_of(f"media: {{{wrong}}}")
        assert f"media.{wrong.partition(':')[0]}" in line


def test_every_pattern_of_the_schema_has_words_for_who_breaks_it():
    files = (schema, values, operations, schema_resilience, schema_routing)
    patterns = [found for file in files for found in re.findall(r"pattern=(r?)\"(.+?)\"", Path(file.__file__).read_text())]
    assert len(patterns) >= 8
    assert {text for _, text in patterns} <= PATTERNS.keys()


OWN = """
prices:
  a/1: {input: 2.5, cache_write_1h: 4, search: 0.01, image_output: 30}
catalogue:
  a/1: {context: 8192, max_output: 2048, input: [text, image], output: [text], tools: true, structured_output: false, retires: 2027-03-31}
  big: {deprecated: true, regions: [eu]}
"""


def test_own_prices_and_facts_reach_the_workers(compile_text):
    compiled = compile_text(LOCAL + OWN)
    snapshot = compiled.snapshot
    assert snapshot.prices == {"a/1": {"input": 2.5, "cache_write_1h": 4.0, "search": 0.01, "image_output": 30.0}}
    assert snapshot.facts["a/1"] == Facts(
        context=8192, max_output=2048, input=("text", "image"), output=("text",), tools=True, schema=False, retires="2027-03-31"
    )
    assert snapshot.facts["big"] == Facts(deprecated=True, regions=("eu",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=Snapshot) == snapshot
    assert not compiled.warnings


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("prices: {a/1: {input: -1}}", "prices.a/1.input", "0"),
        ("prices: {a/1: {input: .nan}}", "prices.a/1.input", "finite"),
        ("prices: {a/1: {inptu: 1}}", "prices.a/1.inptu", "input"),
        ("catalogue: {a/1: {input: [text, smell]}}", "catalogue.a/1.input", "video"),
        ("catalogue: {a/1: {context: 0}}", "catalogue.a/1.context", "1"),
        ("catalogue: {a/1: {retires: soon}}", "catalogue.a/1.retires", "date"),
        ("catalogue: {a/1: {max_tokens: 5}}", "catalogue.a/1.max_tokens", ""),
    ],
)
def test_wrong_prices_and_facts_name_their_place(problems_of, text, path, words):
    (line,) = problems_of(LOCAL + text)
    assert path in line
    assert words in line


def test_prices_of_nobody_here_are_pointed_out(compile_text):
    text = LOCAL + "models: {x: a/meta/llama}\nprices: {aa/1: {input: 1}, meta/llama: {input: 1}, x: {input: 1}, bare: {input: 1}}"
    (warning,) = compile_text(text).warnings
    assert "no provider is called `aa`" in warning
    assert "models named `aa/1`" in warning


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("providers: {o: {type: openai, api_key: k, base_url: 'https://llm.example:4430x/v1'}}", "providers.o.base_url"),
        ("providers: {o: {type: openai, api_key: k, base_url: 'https://llm.example:99999'}}", "providers.o.base_url"),
        ("providers: {openai: {base_url: 'https://[::1'}}", "providers.openai.base_url"),
        ("providers: {o: {type: openai, api_key: k, proxy: 'http://proxy:80a'}}", "providers.o.proxy"),
        ("providers: {o: {type: openai, api_key: k, proxy: '10.0.0.1:3128'}}", "providers.o.proxy"),
        ("providers: {o: {type: openai, api_key: k, proxy: 'https://proxy'}}", "providers.o.proxy"),
        ("providers: {o: {type: openai, api_key: k, proxy: 'socks5://proxy:1080'}}", "providers.o.proxy"),
        ("secret: '0123456789abcdef'\ndatabase: {url: 'postgresql://gateway:pa/ss@db/gateway'}", "database.url"),
        ("providers: {ollama: {}}", "providers.ollama.base_url"),
        ("providers: [openai]", "providers"),
        ("providers: 5", "providers"),
    ],
)
@pytest.mark.parametrize("key", [{}, {"OPENAI_API_KEY": "sk-1"}])
def test_what_nobody_could_connect_by_is_refused_and_not_found_out_by_workers(problems_of, text, option, key):
    """A worker that is told such an address ends, and so do its successors."""
    lines = problems_of(text, OLLAMA_HOST="localhost:11434x", **key)
    assert any(f"{option}: expected " in line or f"{option}: OLLAMA_HOST: expected " in line for line in lines), lines
    assert not any("pa/ss" in line for line in lines)
