"""From a name to its plan: every way to name a model, and what is said where nobody is meant."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Pin, Principal
from llm_gateway.core.types import Usage
from llm_gateway.routing import table as module
from routing.conftest import asked


def places(table, model: str) -> list[str]:
    _, course = table.course(asked(model))
    return [f"{target.provider}/{target.model}" for target in course.targets]


@pytest.mark.parametrize(("name", "provider"), [("gpt-4", "openai"), ("gpt-4-vision", "openai"), ("claude-3-sonnet", "anthropic")])
def test_the_briefs_names_route_out_of_the_box(table, name: str, provider: str) -> None:
    (place,) = places(table(), name)
    assert place.partition("/")[0] == provider


def test_the_briefs_vision_line_goes_to_a_model_that_sees_and_can_be_called(table, catalogue) -> None:
    (place,) = places(table(), "gpt-4-vision")
    provider, _, model = place.partition("/")
    info = catalogue.info(provider, model)
    assert "image" in info.input
    assert not info.deprecated


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gpt-4o", "openai/gpt-4o"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("openai/brand-new", "openai/brand-new"),
        ("openai/ft:gpt-4o:org/x", "openai/ft:gpt-4o:org/x"),
    ],
)
def test_names(table, name: str, place: str) -> None:
    assert places(table(), name) == [place]


ROUTER = """
providers:
  router: {type: openrouter, api_key: sk-r}
  local: {type: openai_compatible, base_url: "http://127.0.0.1:8000", api_key: none}
models:
  gpt-4: local/llama
  fast: {targets: [local/llama, router/meta-llama/llama-3-70b], fallbacks: [gpt-4, router/other]}
default_provider: router
"""


def test_a_models_own_slashes_are_kept(table) -> None:
    assert places(table(ROUTER), "router/meta-llama/llama-3-70b") == ["router/meta-llama/llama-3-70b"]


def test_an_alias_wins_over_the_catalogue(table) -> None:
    assert places(table(ROUTER), "gpt-4") == ["local/llama"]


def test_targets_then_fallbacks_in_order(table) -> None:
    assert places(table(ROUTER), "fast") == ["local/llama", "router/meta-llama/llama-3-70b", "router/other"]


def test_the_default_provider_takes_what_nobody_names(table) -> None:
    assert places(table(ROUTER), "meta-llama/llama-3-8b") == ["router/meta-llama/llama-3-8b"]
    assert places(table(ROUTER), "gpt-4o") == ["router/gpt-4o"], "also where the one it belongs to is not configured"


def test_a_provider_of_another_name_is_found_by_its_type(table) -> None:
    assert places(table("providers: {eu: {type: openai, api_key: sk-e}}"), "gpt-4o") == ["eu/gpt-4o"]


def refusal(table, model: str) -> Fault:
    with pytest.raises(Fault) as caught:
        table.course(asked(model))
    assert (caught.value.kind, caught.value.param) == (Kind.NO_MODEL, "model")
    assert table.tally.active == 0
    return caught.value


def test_an_unknown_model_is_told_what_there_is(table) -> None:
    assert refusal(table(), "nonsense").message == (
        "The model 'nonsense' does not exist or is not available to you. "
        "Known here are, among others: openai/MODEL, anthropic/MODEL. See GET /v1/models."
    )
    assert "gpt-4, fast" in refusal(table(ROUTER.replace("default_provider: router", "")), "x/y").message


def test_a_model_whose_provider_is_missing_says_which(table) -> None:
    message = refusal(table("providers: {openai: {api_key: sk-o}}"), "claude-sonnet-4-5").message
    assert "'anthropic', which is not configured here" in message


@pytest.mark.parametrize("name", ["", "/", "openai/", "/gpt-4o", "x" * 5000, "a\nb\0c", "é/ü"])
def test_odd_names_are_refused_in_one_line(table, name: str) -> None:
    message = refusal(table(), name).message
    assert message.isprintable()
    assert len(message) < 400


KEYS = "providers: {openai: {keys: [{key: sk-1, name: a}, {key: sk-2, name: b}, {key: sk-3, name: c}]}}"


def test_keys_take_turns_and_stand_in_for_each_other(table) -> None:
    made = table(KEYS)
    orders = ["".join(target.key_id for target in made.course(asked("gpt-4o"))[1].targets) for _ in range(6)]
    assert sorted(orders[:3]) == ["abc", "bca", "cab"]
    assert orders[:3] == orders[3:]


def test_a_plan_is_made_once_and_how_many_are_kept_is_bounded(table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PLANS", 10)
    made = table()
    assert made.course(asked("gpt-4o"))[0] is made.course(asked("gpt-4o"))[0]
    for number in range(50):
        made.course(asked(f"openai/model-{number}"))
    assert len(made._plans) <= 10


def test_labels_are_the_catalogues_or_the_configurations_never_the_clients(table, metrics) -> None:
    made = table()
    for number in range(300):
        made.course(asked(f"openai/gpt-4o-{number}"))
        made.course(asked(f"openai/whatever-{number}"))
        made.course(asked(f"openai/GPT-4O-mini-{number}"))
    made.course(asked("gpt-4o-2024-08-06"))
    made.course(asked("claude-sonnet-4-5-20250929"))
    assert {key for key in metrics.targets if key[0] == "openai"} == {
        ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "other"),
    }  # fmt: skip
    assert ("anthropic", "claude-sonnet-4-5") in metrics.targets
    table(ROUTER).course(asked("fast"))
    assert ("local", "llama") in metrics.targets


NAMED = """
providers:
  azure: {base_url: "https://a.openai.azure.com", api_key: k, deployments: {our-own: dep-1}}
  vllm-eu: {type: vllm, base_url: "http://127.0.0.1:8000"}
prices: {vllm-eu/qwen3-8b: {input: 0.02, output: 0.06}}
"""


@pytest.mark.parametrize(
    ("model", "label"),
    [("azure/gpt-4o", "gpt-4o"), ("azure/our-own", "our-own"), ("azure/nobodys", "other"),
     ("vllm-eu/qwen3-8b", "qwen3-8b"), ("vllm-eu/llama", "other")],
)  # fmt: skip
def test_labels_know_resold_models_deployments_and_own_prices(table, metrics, model: str, label: str) -> None:
    table(NAMED).course(asked(model))
    assert list(metrics.targets) == [(model.partition("/")[0], label)]


def test_counters_survive_a_reload(table, metrics) -> None:
    _, course = table().course(asked("gpt-4o"))
    course.target.meter.requests += 3
    _, again = table().course(asked("gpt-4o"))
    assert again.target.meter is course.target.meter
    assert metrics.targets["openai", "gpt-4o"].requests == 3


PRICED = """
providers: {local: {type: openai_compatible, base_url: "http://127.0.0.1:8000", api_key: none}, openai: {api_key: sk-o}}
models: {fast: local/llama}
prices: {local/llama: {input: 1, output: 2}, gpt-4o: {output: 1000}}
"""


def test_own_prices_lie_over_the_catalogues(table) -> None:
    made = table(PRICED)
    cost = {
        name: made.course(asked(name))[1].target.price(Usage(input=1_000_000, output=1_000_000), 1_764_000_000)
        for name in ("fast", "local/other", "gpt-4o", "gpt-4o-mini")
    }
    assert cost["fast"] == 3_000_000_000
    assert cost["local/other"] is None, "unknown is unpriced, never free"
    assert cost["gpt-4o"] > 1_000_000_000_000
    assert 0 < cost["gpt-4o-mini"] < 10_000_000_000


def test_an_alias_has_limits_of_its_own(table) -> None:
    text = ROUTER.replace("fast: {", "fast: {timeout: {total: 120, first_chunk: 5, silence: 3, attempt: 4}, ")
    plan, course = table(text).course(asked("fast"))
    limits = course.target.limits
    assert (plan.timeout, limits.first_chunk, limits.silence, limits.attempt) == (120, 5, 3, 4)


def test_an_alias_has_prices_of_its_own(table) -> None:
    made = table(PRICED.replace("prices: {", "prices: {fast: {output: 7}, "))
    usage = Usage(input=1_000_000, output=1_000_000)
    assert made.course(asked("fast"))[1].target.price(usage, 1_764_000_000) == 3_000_000_000, "its one target has a price of its own"
    renamed = table(PRICED.replace("prices: {local/llama: ", "prices: {fast: "))
    assert renamed.course(asked("fast"))[1].target.price(usage, 1_764_000_000) == 3_000_000_000
    assert renamed.course(asked("local/llama"))[1].target.price(usage, 1_764_000_000) is None


@pytest.mark.parametrize("more", ["tenants: [acme]", "rules: [{when: {tags: [night]}, use: other}]", "residency: [us]"])
def test_what_a_provider_keeps_is_found_whatever_an_alias_of_its_name_says(table, more: str) -> None:
    made = table(f"""
providers:
  openai: {{api_key: sk-o, region: eu-west-1}}
  local: {{type: openai_compatible, base_url: "http://127.0.0.1:8000", api_key: none}}
models:
  openai: {{targets: [openai/gpt-4o], {more}}}
  other: {{targets: [local/m]}}
""")
    pin = Pin("openai", made.plan("openai/gpt-4o").targets(0)[0].key_id, "response_id")
    kept = asked("openai", "response", pin=pin, principal=Principal("k", "other"), headers={b"x-gateway-tags": b"night"})
    assert made.course(kept)[1].target.provider == "openai"
