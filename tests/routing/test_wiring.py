"""Configuration -> stages: nothing is lost on the way, and what outlives a reload is handed in."""

from __future__ import annotations

from llm_gateway import wiring
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.exchange import Principal
from llm_gateway.routing.target import Limits
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.pool import Pool
from routing.conftest import asked

FULL = """
providers:
  openai:
    base_url: "https://proxy.example:8443/team/v1"
    keys: [{key: sk-1, name: a}, {key: sk-2}]
    headers: {X-Team: blue}
    timeout_seconds: 30
    first_chunk_timeout_seconds: 7
    max_retries: 4
    connect_timeout_seconds: 2
    idle_timeout_seconds: 9
    max_connections: 5
    proxy: "http://127.0.0.1:3128"
    tls: {server_name: inner.example}
  local: {type: vllm, base_url: "http://127.0.0.1:8000"}
keys:
  - {name: ci, key: sk-local-0123456789, tenant: blue, models: [gpt-4]}
resilience: {retry: {max_attempts: 3, base_seconds: 0.1, cap_seconds: 1, wait_retry_after_seconds: 0.5, budget: 0.5, budget_min: 9}}
"""


def test_everything_configured_arrives(snapshot, catalogue) -> None:
    made: Snapshot = snapshot(FULL)
    pool = Pool(memoryview(bytearray(1024)))
    table = wiring.table(made, catalogue, Metrics(), pool)
    seat = table.seats["openai"]
    assert [(each.root, each.key, each.key_id, each.headers) for each in seat.accounts] == [
        ("/team/v1", "sk-1", "a", ((b"x-team", b"blue"),)),
        ("/team/v1", "sk-2", "1", ((b"x-team", b"blue"),)),
    ]
    assert seat.limits == Limits(attempt=30, silence=30, first_chunk=7, retries=4)
    origin = seat.bay.origin
    assert (origin.scheme, origin.host, origin.port, origin.proxy) == ("https", "proxy.example", 8443, "http://127.0.0.1:3128")
    assert (origin.connect_timeout, origin.idle_timeout, origin.max_connections) == (2, 9, 5)
    assert origin.tls.server_name == "inner.example"
    assert origin.tls.verify
    assert wiring.origins(made) == {each.bay.origin for each in table.seats.values()}
    _, course = table.course(asked("openai/gpt-4o"))
    policy = course.policy
    assert (policy.max_attempts, policy.base, policy.cap, policy.wait_retry_after) == (3, 0.1, 1, 0.5)
    assert (policy.budget, policy.budget_min) == (0.5, 9)


def test_a_provider_without_keys_has_one_account_without(snapshot, catalogue) -> None:
    table = wiring.table(snapshot(FULL), catalogue, Metrics(), Pool(memoryview(bytearray(1024))))
    (account,) = table.seats["local"].accounts
    assert (account.key, account.key_id) == ("", "")


def test_keys_open_for_their_principal(snapshot) -> None:
    keys = wiring.keys(snapshot(FULL))
    assert keys.principal({b"x-api-key": b"sk-local-0123456789"}) == Principal("ci", "blue", frozenset({"gpt-4"}), id="ci")


def test_connections_outlive_a_reload(snapshot, catalogue) -> None:
    pool = Pool(memoryview(bytearray(1024)))
    first = wiring.table(snapshot(FULL), catalogue, Metrics(), pool).seats["openai"].bay
    second = wiring.table(snapshot(FULL), catalogue, Metrics(), pool).seats["openai"].bay
    assert first is second


def test_formats_go_by_their_own_names() -> None:
    assert all(name == form.name for name, form in wiring.formats().items())


CLOUDS = """
providers:
  aws: {type: bedrock, region: eu-west-1}
  azure: {base_url: "https://x.example", entra: true}
  plain: {type: vllm}
"""


def test_a_provider_of_a_cloud_waits_for_its_credentials(snapshot, catalogue) -> None:
    made: Snapshot = snapshot(CLOUDS)
    pool = Pool(memoryview(bytearray(1024)))
    table = wiring.table(made, catalogue, Metrics(), pool)
    assert wiring.waiting(table) == {"aws", "azure"}
    table = wiring.table(made, catalogue, Metrics(), pool, {"aws": "A:B:C"})
    assert wiring.waiting(table) == {"azure"}
    (account,) = table.seats["aws"].accounts
    assert (account.key, account.key_id, account.token, account.region) == ("A:B:C", "cloud", True, "eu-west-1")
    assert [each.token for each in table.seats["plain"].accounts] == [False]


def test_credentials_outlive_a_reload_only_for_who_stays_the_same(snapshot) -> None:
    before: Snapshot = snapshot(CLOUDS)
    fetched = {"aws": "1", "azure": "2"}
    assert wiring.still_good(fetched, before, before) == fetched
    for changed in ("region: eu-west-1, profile: blue", "region: eu-west-2", "region: eu-west-1, base_url: 'https://elsewhere.example'"):
        after = snapshot(CLOUDS.replace("region: eu-west-1", changed))
        assert wiring.still_good(fetched, before, after) == {"azure": "2"}, changed
    assert wiring.still_good(fetched, before, snapshot("providers: {plain: {type: vllm}}")) == {}
