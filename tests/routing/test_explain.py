"""Why a request would go where: in words, and without taking anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.routing.explain import explain, lines
from routing.conftest import asked

TEXT = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k, region: us-east-1, rate_limit: {requests_per_minute: 1}}
  b: {type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k, region: eu-west-1}
  c: {type: openai_compatible, base_url: "http://127.0.0.1:3", api_key: k}
models:
  m: {targets: [a/x, b/y], fallbacks: [c/z], context_fallbacks: [c/large], rules: [{when: {tags: [night]}, use: slow}]}
  slow: {targets: [c/slow]}
prices: {"b/y": {input: 1, output: 2}}
catalogue: {"c/z": {tools: false}, "b/y": {tools: true}}
"""


def test_it_says_who_would_answer_who_follows_and_who_cannot(table):
    told = explain(table(TEXT), asked("m", body={"tools": [{"type": "function"}], "max_tokens": 1000}))
    assert lines(told) == [
        "m: by m, priority",
        "  1. a/x key 0: answer, us-east-1, unpriced",
        "  2. b/y key 0: follow, eu-west-1, $0.000517",
        "  -  c/z: has no tools",
        "  >  on context_length_exceeded: c/large",
    ]
    assert told["refusal"] is None


def test_it_says_what_is_down_and_what_is_full(table):
    made = table(TEXT)
    made.course(asked("m"))
    for target in made.plan("m").targets(0):
        if target.provider == "b":
            target.condition.bad(perf_counter(), Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=30.0))
    rows = explain(made, asked("m"))["order"]
    assert [(row["target"], row["would"], row["state"].split(" for ")[0]) for row in rows] == [
        ("a/x", "be passed over", "no room"), ("b/y", "be passed over", "cooling"), ("c/z", "answer", ""),
    ]  # fmt: skip


def test_it_takes_nothing(table):
    made = table(TEXT)
    for _ in range(5):
        assert explain(made, asked("m"))["order"][0]["would"] == "answer"
    assert made.course(asked("m"))[1].target.provider == "a"
    assert made.course(asked("m"))[1].target.provider == "b", "the one request of this minute went to a"


def test_it_says_by_which_rule(table):
    told = explain(table(TEXT), asked("m", headers={b"x-gateway-tags": b"night"}))
    assert (told["rule"], told["plan"], lines(told)[0]) == ("slow", "slow", "m: by rule of m, to slow, priority")


def test_it_says_what_a_client_would_be_told(table):
    told = explain(table(TEXT), asked("nobody"))
    assert (told["refusal"]["status"], told["refusal"]["code"], told["order"]) == (404, "model_not_found", [])
    assert lines(told)[0].startswith("refused with 404 model_not_found")


def test_callers_wishes_are_explained_too(table):
    told = explain(table(TEXT), asked("m", body={"provider": {"ignore": ["a"], "zdr": True}}))
    assert [row["target"] for row in told["order"]] == ["b/y", "c/z"]
    assert told["excluded"] == [{"target": "a/x", "why": "is in provider.ignore"}]
    assert told["unheard"] == ["provider.zdr"]


def test_the_command_explains_a_configuration_without_a_gateway(tmp_path):
    (tmp_path / "config.yaml").write_text(TEXT)
    command = [Path(sys.executable).with_name("llm-gateway"), "explain", "m", "--offline", "--json", "--header", "x-gateway-tags: night"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["plan"] == "slow"
    assert not (tmp_path / "data").exists(), "nothing is written"
    refused = subprocess.run([*command[:2], "nobody", "--offline"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout.startswith("refused with 404")) == (1, True)
