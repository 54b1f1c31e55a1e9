"""Files and variables: what is accepted, which wins, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_gateway.config.load import load
from llm_gateway.config.problems import ConfigError

HERE = Path(__file__).parent
BRIEF = (HERE / "brief.yaml").read_text()
UNITS = 'expected seconds, or a number with a unit such as "500ms", "10s", "5m"'
OPEN = (
    "`false` would let anybody use the gateway on 0.0.0.0 "
    "(listen on 127.0.0.1, or set auth.force if something in front authenticates)"
)
MINIMAL = (HERE / "minimal.yaml").read_text()

STRATEGIES = "'priority', 'weighted', 'round_robin', 'least_busy', 'latency', 'throughput', 'cost' or 'adaptive'"


def test_the_briefs_file_loads_as_written(compile_text):
    made = compile_text(BRIEF, OPENAI_API_KEY="sk-o", ANTHROPIC_API_KEY="sk-a")
    snapshot = made.snapshot
    assert (snapshot.server.listeners[0].host, snapshot.server.listeners[0].port) == ("0.0.0.0", 8080)
    assert (snapshot.server.max_connections, snapshot.server.timeout) == (1000, 300.0)
    openai, anthropic = snapshot.providers
    assert (openai.name, openai.base_url, openai.timeout, openai.silence, openai.max_retries) == (
        "openai",
        "https://api.openai.com",
        60.0,
        60.0,
        3,
    )
    assert openai.keys[0].value == "sk-o"
    assert (anthropic.api_version, anthropic.timeout) == ("2023-06-01", 300.0)
    assert (snapshot.logging.level, snapshot.logging.format, snapshot.logging.output) == ("info", "json", "stdout")


def test_the_briefs_cache_is_a_cache(compile_text):
    made = compile_text(BRIEF, OPENAI_API_KEY="a", ANTHROPIC_API_KEY="b")
    assert made.warnings == ()
    assert (made.snapshot.cache.enabled, made.snapshot.cache.ttl, made.snapshot.cache_room) == (True, 3600.0, 1024 << 20)
    assert made.snapshot.cache.ignore == ("user", "metadata", "safety_identifier")


def test_several_workers_have_a_cache_each_and_that_is_said(compile_text):
    made = compile_text("workers: 4\nproviders: {openai: {api_key: a}}\ncache: {enabled: true, max_size_mb: 100}")
    assert (made.snapshot.cache_room, made.snapshot.workers) == (100 << 20, 4)
    assert made.warnings == ("config.yaml:3:1: each of 4 workers has a cache of its own, of 25 MB: a reply is found by the worker that kept it",)


def test_a_cache_in_redis_needs_one_and_is_everybodys(compile_text, problems_of):
    (problem,) = problems_of("cache: {enabled: true, backend: redis}")
    assert "cache.backend: needs a Redis" in problem
    made = compile_text("workers: 4\ncache: {enabled: true, backend: redis}\nredis: {url: 'redis://127.0.0.1:6379/0'}")
    assert made.snapshot.cache_shared
    assert not [warning for warning in made.warnings if "a cache of its own" in warning]
    assert compile_text("workers: 4\nproviders: {openai: {api_key: a}}").warnings == ()


def test_an_alias_differs_from_everybodys_cache_where_it_says_so(compile_text):
    made = compile_text("""
    providers: {openai: {api_key: a}}
    models:
      as-all: openai/x
      never: {targets: [openai/x], cache: false}
      briefly: {targets: [openai/x], cache: {ttl: 30s, ignore: [seed]}}
    cache: {enabled: true, sampling: false}
    """)
    caches = {alias.name: alias.cache for alias in made.snapshot.aliases}
    assert caches["as-all"] is None
    assert not caches["never"].enabled
    briefly = caches["briefly"]
    assert (briefly.enabled, briefly.ttl, briefly.sampling, briefly.ignore) == (True, 30.0, False, ("seed",))


def test_the_minimal_file_loads_as_written(compile_text):
    snapshot = compile_text(MINIMAL, OPENAI_API_KEY="a", ANTHROPIC_API_KEY="b").snapshot
    assert [provider.name for provider in snapshot.providers] == ["openai", "local", "anthropic"]
    (alias,) = snapshot.aliases
    assert [(target.provider, target.model) for target in alias.targets] == [("openai", "gpt-4o"), ("local", "llama")]
    assert [(target.provider, target.model) for target in alias.fallbacks] == [("anthropic", "claude-sonnet-4-5")]
    assert snapshot.keys[0].name == "ci"
    assert snapshot.providers[1].keys == ()  # `api_key: none`


def test_the_minimal_file_loads_without_any_variable(compile_text):
    made = compile_text(MINIMAL)
    assert [provider.name for provider in made.snapshot.providers] == ["local"]
    assert "provider openai is left out: it has no key: OPENAI_API_KEY is not set" in made.warnings


def test_the_environment_alone_starts(compile_text):
    snapshot = compile_text(OPENAI_API_KEY="a", GROQ_API_KEY="b", SERVER_PORT="81", REDIS_URL="redis://r:1").snapshot
    assert [provider.name for provider in snapshot.providers] == ["openai", "groq"]
    assert snapshot.server.listeners[0].port == 81
    assert snapshot.redis.nodes == (("r", 1),)
    assert snapshot.default_provider is None


def test_without_any_provider_key_echo_answers_everything(compile_text):
    made = compile_text()
    assert [provider.type for provider in made.snapshot.providers] == ["echo"]
    assert made.snapshot.default_provider == "echo"
    assert made.warnings == ("no provider has a key: the built-in `echo` provider answers everything",)


def test_services_of_other_variables_join_only_where_the_file_names_none(compile_text):
    text = "providers: {local: {type: openai_compatible, base_url: 'http://h'}}"
    names = [provider.name for provider in compile_text(text, GROQ_API_KEY="b", OPENAI_API_KEY="a").snapshot.providers]
    assert names == ["local", "openai"]


def test_later_layers_win_and_say_so(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("server: {port: 1, host: a}\nlogging: {level: warn}\n")
    environ = {"SERVER_PORT": "2", "LLM_GATEWAY__SERVER__PORT": "3", "RUST_LOG": "debug", "LOG_LEVEL": "error"}
    loaded = load(str(path), environ)
    assert loaded.root.server.port == 3
    assert loaded.root.server.host == "a"
    assert loaded.root.logging.level == "error"
    assert dict(loaded.overrides) == {
        "server.port": "LLM_GATEWAY__SERVER__PORT",
        "logging.level": "LOG_LEVEL",
    }


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("info", "info"),
        ("WARNING", "warn"),
        ("hyper=info,debug", "debug"),
        ("llm_gateway=trace", "trace"),
        ("off", "error"),
    ],
)
def test_rust_log_is_understood(compile_text, said, level):
    assert compile_text(RUST_LOG=said).snapshot.logging.level == level


def test_what_kubernetes_says_of_services_is_not_meant_for_us(compile_text):
    assert compile_text(SERVER_PORT="tcp://10.0.0.1:80").snapshot.server.listeners[0].port == 8080


@pytest.mark.parametrize(
    ("text", "environ", "where", "path"),
    [
        ("server: 5", {"SERVER_PORT": "81"}, "config.yaml:1:1", "server"),
        ("\nresilience: {queue: 5s}", {"LLM_GATEWAY__RESILIENCE__QUEUE__MAX_LENGTH": "7"}, "config.yaml:2:14", "resilience.queue"),
        ("keys: sk-1", {"LLM_GATEWAY__KEYS__0__NAME": "x"}, "config.yaml:1:1", "keys"),
        ("models: {a: echo/x}", {"LLM_GATEWAY__MODELS__A__STRATEGY": "cost"}, "config.yaml:1:10", "models.a"),
    ],
)
def test_a_variable_does_not_silently_replace_what_is_no_section(problems_of, text, environ, where, path):
    found = problems_of(text, **environ)
    assert any(problem.startswith(f"{where}: {path}: ") and f"${next(iter(environ))}" in problem for problem in found), found


def test_a_section_that_says_nothing_takes_variables(compile_text):
    assert compile_text("server:", SERVER_PORT="81").snapshot.server.listeners[0].port == 81


def test_a_section_that_is_only_switched_on_takes_variables_and_stays_on(compile_text):
    text = "providers: {echo: {concurrency: true}}\nmodels: {a: {targets: [echo/x], cache: true}}"
    made = compile_text(text, LLM_GATEWAY__PROVIDERS__ECHO__CONCURRENCY__MIN="2", LLM_GATEWAY__MODELS__A__CACHE__TTL="7").snapshot
    assert made.providers[0].concurrency.min == 2
    assert (made.aliases[0].cache.enabled, made.aliases[0].cache.ttl) == (True, 7.0)


def test_references_work_in_variables_too(tmp_path, compile_text):
    """`LLM_GATEWAY_SECRET=file:/run/secrets/gateway`: the path must not become the secret."""
    (tmp_path / "token").write_text("the-token-0123456789\n")
    (tmp_path / "key").write_text("sk-from-a-file\n")
    environ = {
        "LLM_GATEWAY_SECRET": f"file:{tmp_path}/token", "OPENAI_API_KEY": f"file:{tmp_path}/key", "TENANT": "acme",
        "LLM_GATEWAY__KEYS": f"[{{name: a, key: 'file:{tmp_path}/key', tenant: '${{TENANT}}'}}]",
        "LLM_GATEWAY__TENANTS": "{acme: {}}",
    }  # fmt: skip
    loaded = load(None, environ)
    assert loaded.root.secret is not None
    assert loaded.root.secret.get_secret_value() == "the-token-0123456789"
    made = compile_text(None, **environ).snapshot
    assert (made.keys[0].tenant, made.providers[0].keys[0].value) == ("acme", "sk-from-a-file")
    assert {Path(name).name for name in loaded.files} == {"token", "key"}


@pytest.mark.parametrize("name", ["LLM_GATEWAY_SECRET", "LLM_GATEWAY__ADMIN__TOKEN"])
def test_a_reference_in_a_variable_that_leads_nowhere_is_told(compile_text, name):
    with pytest.raises(ConfigError, match="cannot be read") as raised:
        compile_text(None, **{name: "file:/nowhere/at/all"})
    assert str(raised.value).startswith(f"${name}: ")


def test_any_setting_is_reachable_by_variable(compile_text):
    environ = {
        "LLM_GATEWAY__SERVER__TRUSTED_PROXIES": '[10.0.0.0/8, "::1"]',
        "LLM_GATEWAY__PROVIDERS__MY_LOCAL__BASE_URL": "http://other:1",
        "LLM_GATEWAY__KEYS__0__TENANT": "blue",
        "LLM_GATEWAY__HEARTBEAT__INTERVAL": "3s",
    }
    text = "providers: {my-local: {type: vllm}}\nkeys: [{name: a, key: sk-12345678}]\n"
    snapshot = compile_text(text, **environ).snapshot
    assert snapshot.server.trusted_proxies == ("10.0.0.0/8", "::1")
    assert [(provider.name, provider.base_url) for provider in snapshot.providers] == [("my-local", "http://other:1")]
    assert snapshot.keys[0].tenant == "blue"
    assert snapshot.heartbeat == 3.0


def test_variables_alone_make_a_list(compile_text):
    """In a container there may be no file."""
    environ = {
        "LLM_GATEWAY__KEYS__0__NAME": "a", "LLM_GATEWAY__KEYS__0__KEY": "sk-12345678", "LLM_GATEWAY__KEYS__1__KEY": "sk-23456789",
        "LLM_GATEWAY__KEYS__1__NAME": "b", "LLM_GATEWAY__PROVIDERS__OPENAI__KEYS__0__KEY": "sk-up", "LLM_GATEWAY__MODELS__4": "openai/gpt-4o",
    }  # fmt: skip
    snapshot = compile_text(None, **environ).snapshot
    assert [key.name for key in snapshot.keys] == ["a", "b"]
    assert [key.value for key in snapshot.providers[0].keys] == ["sk-up"]
    assert [alias.name for alias in snapshot.aliases] == ["4"]


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("LLM_GATEWAY__SERVR__PORT", "servr: unknown option (did you mean `server`?)"),
        ("LLM_GATEWAY__PROVIDERS__NEW__BASE_URL", "providers.new: needs a `type`"),
        ("LLM_GATEWAY__KEYS__0__NAME", "keys[0]: expected exactly one of"),
        ("LLM_GATEWAY__KEYS__4000000000__NAME", "keys: expected a list"),
    ],
)
def test_what_a_variable_said_is_not_laid_to_the_file(problems_of, variable, said):
    found = problems_of("server: {port: 1}", **{variable: "http://h"})
    assert any(problem.startswith(f"${variable}: {said}") for problem in found), found


def test_references_are_followed(compile_text, tmp_path):
    (tmp_path / "key").write_text("sk-from-file\n")
    text = """
    server: {port: "${PORT:-8081}", host: "${HOST}", timeout_seconds: "${EMPTY:-5m}"}
    providers:
      one: {type: openai, base_url: "http://h", api_key: "file:key"}
      two: {type: openai, base_url: "http://h", headers: {x: "$${NOT} ${A}-${B}"}}
    """
    snapshot = compile_text(text, HOST="127.0.0.1", EMPTY="", A="1", B="2").snapshot
    assert (snapshot.server.listeners[0].port, snapshot.server.listeners[0].host) == (8081, "127.0.0.1")
    assert snapshot.server.timeout == 300.0
    assert snapshot.providers[0].keys[0].value == "sk-from-file"
    assert snapshot.providers[1].headers == (("x", "${NOT} 1-2"),)


def test_what_surrounds_a_key_is_no_part_of_it(compile_text):
    """`echo $key | base64` put into a secret, and the variable ends in a line break."""
    text = """
    providers:
      one: {type: openai, base_url: "http://h", api_key: "${KEY}", headers: {x: "${KEY}"}}
      two: {type: openai, base_url: "http://h", keys: ["${KEY}", {key: " ${KEY}"}]}
    """
    one, two = compile_text(text, KEY="sk-1\n").snapshot.providers
    assert [key.value for key in (*one.keys, *two.keys)] == ["sk-1"] * 3
    assert one.headers == (("x", "sk-1"),)


def test_what_no_header_can_carry_is_neither_a_key_nor_a_header(problems_of):
    text = r"""
    providers:
      one: {type: openai, base_url: "http://h", api_key: "sk-1\nsk-2"}
      two: {type: openai, base_url: "http://h", keys: [{key: "sk-1\r\nx: y"}, "sk-\u2026"]}
      three: {type: openai, base_url: "http://h", headers: {x: "a\r\nb: c"}}
      four: {type: openai, base_url: "http://h", headers: {"x:": a}}
    """
    found = problems_of(text)
    assert [line.partition(": ")[2].partition(": ")[0] for line in found] == [
        "providers.one.api_key", "providers.two.keys[0].key", "providers.two.keys[1].key", "providers.three.headers", "providers.four.headers",
    ]  # fmt: skip
    assert not any("sk-" in line for line in found)


def test_what_no_header_can_carry_is_no_key_from_a_variable_either(problems_of):
    (said,) = problems_of("providers: {groq: {}}", GROQ_API_KEY="sk-1\nx: y")
    assert "providers.groq: GROQ_API_KEY holds a line break" in said
    assert "sk-" not in said


@pytest.mark.parametrize("keys", ["{key: a, name: x}, {key: b, name: x}", "{key: a, name: '1'}, b"])
def test_two_keys_of_one_name_are_refused(problems_of, keys: str):
    """What one of them is refused, limited and asked again by would be the other's, too."""
    (said,) = problems_of(f"providers: {{one: {{type: openai, base_url: 'http://h', keys: [{keys}]}}}}")
    assert "providers.one.keys: two of them are called" in said


def test_every_error_comes_at_once_with_place_path_and_hint(problems_of):
    text = """\
server:
  prot: 1
  max_connections: many
  port: 70000
  tls: {cert: /nowhere.pem, key: /nowhere.key}
providers:
  openai: {timeout_seconds: 5x, base_url: "api.openai.com", max_retries: -1}
  opnai: {api_key: a}
  azure: {api_key: a}
  a/b: {type: vllm}
models:
  one: {targets: [opena/x], strategy: random}
  two: {targets: [openai/x], fallbacks: [tow]}
  three: []
keys:
  - {name: x, key: short}
  - {key: sk-long-enough}
  - {name: y, key: "${UNSET}"}
guards: {}
auth: {required: false}
port: 1
default_provider: nobody
"""
    lines = problems_of(text, LLM_GATEWAY__SERVER__METRICS_PORT="x")
    assert lines == [
        "$LLM_GATEWAY__SERVER__METRICS_PORT: server.metrics_port: expected a whole number",
        "config.yaml:2:3: server.prot: unknown option (did you mean `port`?)",
        "config.yaml:3:3: server.max_connections: expected a whole number",
        "config.yaml:4:3: server.port: expected at most 65535",
        "config.yaml:5:9: server.tls.cert: there is no file /nowhere.pem",
        "config.yaml:5:29: server.tls.key: there is no file /nowhere.key",
        f"config.yaml:7:12: providers.openai.timeout_seconds: {UNITS}",
        "config.yaml:7:33: providers.openai.base_url: expected a URL: http:// or https://, host, and no query",
        "config.yaml:7:61: providers.openai.max_retries: expected at least 0",
        "config.yaml:8:3: providers.opnai: needs a `type`, since its name is no known service (did you mean `openai`?)",
        "config.yaml:9:3: providers.azure.base_url: is required (or set AZURE_OPENAI_ENDPOINT)",
        "config.yaml:10:3: providers.a/b: a provider's name must not be empty or hold `/`",
        "config.yaml:12:19: models.one.targets[0]: there is no provider `opena` (did you mean `openai`?)",
        f"config.yaml:12:29: models.one.strategy: expected one of {STRATEGIES}",
        "config.yaml:13:42: models.two.fallbacks[0]: `tow` is no alias and no known model (did you mean `two`?)",
        "config.yaml:14:3: models.three.targets: expected at least one entry",
        "config.yaml:16:5: keys[0]: expected a key of at least 8 characters",
        "config.yaml:17:5: keys[1].name: is required",
        "config.yaml:18:5: keys[2]: expected a key of at least 8 characters",
        "config.yaml:18:15: keys[2].key: the variable UNSET is not set (${UNSET:-default} allows that)",
        "config.yaml:19:1: guards: not supported by this version (remove it: nothing here would enforce it)",
        f"config.yaml:20:8: auth.required: {OPEN}",
        "config.yaml:21:1: port: unknown option (did you mean `server.port`?)",
        "config.yaml:22:1: default_provider: there is no provider `nobody`",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "guards: {}",
        "batches: []",
        "strict_params: true",
        "models: {a: {targets: [openai/x], params: {}}}",
    ],
)
def test_what_a_later_version_will_do_is_refused_not_ignored(problems_of, text):
    assert any("not supported by this version" in line for line in problems_of(text))


def test_no_value_stands_in_any_message(problems_of):
    secret = "sk-live-do-not-print"
    text = f"""
    secret: [{secret}]
    server: {{port: {secret}, timeout_seconds: {secret}, max_body_bytes: {secret}}}
    providers:
      openai: {{api_key: {{x: {secret}}}, base_url: "{secret}", enabled: {secret}, max_retries: {secret}}}
    keys: [{{name: a, key: {secret}, digest: {secret}}}, {{name: b, key: {secret}, tenant: [{secret}]}}, {secret}]
    redis: {{url: "{secret}"}}
    admin: {{token: [{secret}]}}
    logging: {{level: {secret}, format: {secret}}}
    """
    lines = problems_of(text)
    assert len(lines) >= 14
    assert not [line for line in lines if secret in line]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "config.yaml:2:1: not YAML"),
        ("- 1", "config.yaml:1:1: expected a mapping"),
        ("server: {port: 1}\nserver: {port: 2}", "config.yaml:2:1: server: given twice; first at config.yaml:1:1"),
        ("a: &x {b: *x}", "config.yaml:1:"),
        ("server: !secret 1", "config.yaml:1:9: not YAML"),
        ("server: \x00", "not YAML"),
    ],
)
def test_what_is_no_configuration_at_all_is_said_with_its_place(problems_of, text, said):
    assert any(said in line for line in problems_of(text)), problems_of(text)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.yaml"), {})


def test_merged_mappings_are_no_duplicates(compile_text):
    text = """
    providers:
      one: &base {type: vllm, base_url: "http://a", max_retries: 1}
      two: {<<: *base, base_url: "http://b"}
    """
    one, two = compile_text(text).snapshot.providers
    assert (one.base_url, two.base_url, two.max_retries) == ("http://a", "http://b", 1)


def test_a_key_of_the_environment_never_goes_to_a_host_with_a_key_of_its_own(compile_text):
    text = "providers: {openai: {base_url: 'http://127.0.0.1:9', api_key: local}}"
    assert compile_text(text, OPENAI_API_KEY="sk-real").snapshot.providers[0].keys[0].value == "local"
    own = "providers: {openai: {base_url: 'https://api.openai.com/v1', api_key: old}}"
    assert compile_text(own, OPENAI_API_KEY="sk-real").snapshot.providers[0].keys[0].value == "sk-real"


def test_a_shell_set_up_for_this_gateway_does_not_make_it_call_itself(compile_text):
    made = compile_text(OPENAI_API_KEY="a", OPENAI_BASE_URL="http://localhost:8080/v1")
    assert made.snapshot.providers[0].base_url == "https://api.openai.com/v1"
    assert any("own address" in warning for warning in made.warnings)


def test_limits_that_several_workers_would_each_count_alone_are_refused_or_divided(compile_text, problems_of):
    text = """
workers: 4
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", keys: [{key: k, rate_limit: {tokens_per_minute: 8000}}],
      rate_limit: {requests_per_minute: 100, tokens_per_minute: 3}, model_limits: {m: {requests_per_minute: 40}}}
"""
    assert [line.split(": is counted")[0].split(": ")[1] for line in problems_of(text)] == [
        "providers.a.keys[0].rate_limit", "providers.a.rate_limit", "providers.a.model_limits.m",
    ]  # fmt: skip
    (provider,) = compile_text(text + "state: per_worker\n").snapshot.providers
    assert (provider.rate_limit.requests, provider.rate_limit.tokens) == (25, 1), "a share, but never nothing"
    assert provider.keys[0].rate_limit.tokens == 2000
    assert provider.model_limits["m"].requests == 10
    (whole,) = compile_text(text + "redis: {url: 'redis://127.0.0.1:6379/0'}\n").snapshot.providers
    assert (whole.rate_limit.requests, whole.keys[0].rate_limit.tokens, whole.model_limits["m"].requests) == (100, 8000, 40), "counted together"
    replicas = text.replace("workers: 4", "workers: 1\nreplicas: 4")
    assert len(problems_of(replicas)) == 3
    assert compile_text(replicas + "state: per_worker\n").snapshot.providers == (provider,)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("limits: {each_key: {concurrent: 1}}", "limits.each_key"), ("budgets: {each_user: [{usd: 5}]}", "budgets.each_user"),
        ("tenants: {a: {limits: {concurrent: 1}}}", "tenants.a.limits"),
    ],
)  # fmt: skip
def test_what_workers_cannot_share_is_named_as_the_file_does(problems_of, text, path):
    (problem,) = problems_of(f"workers: 2\n{text}\n")
    assert f": {path}: would be counted by each worker alone" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {tls: {cert: 5, key: /x}}", ["server.tls.cert: expected text; put it in quotes"]),
        ("models: {a: {targets: []}}", ["models.a.targets: expected at least one entry"]),
        ("models: {a: {targets: [{target: x}]}}", ["models.a.targets[0].target: expected `provider/model`"]),
        ("budgets: {each_key: [{usd: lots}]}", ["budgets.each_key[0].usd: expected a number"]),
    ],
)
def test_what_is_there_and_wrong_is_not_said_to_be_missing(problems_of, text, said):
    assert [problem.partition(": ")[2] for problem in problems_of(text)] == said
