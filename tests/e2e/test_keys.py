"""Keys and tenants made while the gateway runs, as people and the official SDK meet them: by API and by command line, in every worker."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from e2e.conftest import Gateway, free_port, running
from processes import eventually

COMMAND = os.environ.get("LLM_GATEWAY", str(Path(sys.executable).parent / "llm-gateway"))
TOKEN = "admin-token-of-the-tests"
ASK: Any = [{"role": "user", "content": "hi"}]
WORKERS = 2


class Keyed:
    def __init__(self, gateway: Gateway, metrics_port: int) -> None:
        self.gateway, self.metrics_port = gateway, metrics_port
        self.port = int(gateway.url.rpartition(":")[2])

    def admin(self, method: str, path: str, body: object = None, token: str = TOKEN) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        connection.request(method, f"/admin/v1/{path}", json.dumps(body) if body is not None else None, {"authorization": f"Bearer {token}"})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text) if text else None

    def made(self, **said: object) -> Any:
        status, key = self.admin("POST", "keys", {"name": "k", **said})
        assert status == 201, key
        return key

    def command(self, *words: str, status: int = 0) -> str:
        """What `llm-gateway` prints."""
        where = ("--config", str(self.gateway.log.with_name("config.json")))
        done = subprocess.run([COMMAND, *words, *where], capture_output=True, text=True, check=False, cwd=self.gateway.log.parent)
        assert done.returncode == status, done.stderr
        return done.stdout or done.stderr

    def client(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=key, max_retries=0, timeout=20)

    def statuses(self, key: str) -> set[int]:
        """From connections enough to have met every worker; each asks on a connection of its own."""
        return {self.ask(key)[0] for _ in range(16)}

    def ask(self, key: str, path: str = "/v1/models", **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", path, headers={"authorization": f"Bearer {key}", **headers})
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, text

    def code(self, key: str, **headers: str) -> str:
        return str(json.loads(self.ask(key, **headers)[1])["error"]["code"])


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    place = tmp_path_factory.mktemp("keyed")
    metrics_port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port, "trusted_proxies": ["127.0.0.1"]},
        "workers": WORKERS, "state": "per_worker", "data_dir": str(place / "data"), "providers": {"echo": {}},
        "keys": [{"name": "cfg", "key": "sk-config-0123456"}], "admin": {"token": TOKEN}, "logging": {"access": False},
    }  # fmt: skip
    with running(place, config) as gateway:
        made = Keyed(gateway, metrics_port)
        eventually(lambda: made.admin("GET", "keys")[0] == 200, 20)
        yield made


def test_a_key_made_by_the_api_serves_at_once_and_a_revoked_one_is_refused_by_every_worker_within_two_seconds(keyed: Keyed) -> None:
    key = keyed.made()
    assert keyed.statuses(key["key"]) == {200}
    answer = keyed.client(key["key"]).chat.completions.create(model="echo/x", messages=ASK)
    assert "hi" in (answer.choices[0].message.content or "")
    with keyed.client(key["key"]) as held:  # a connection that was open, and good, before
        held.models.list()
        assert keyed.admin("POST", f"keys/{key['id']}/revoke")[0] == 200
        revoked = time.monotonic()
        eventually(lambda: keyed.statuses(key["key"]) == {401}, 2)
        assert time.monotonic() - revoked < 2
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            held.models.list()
    assert keyed.admin("DELETE", f"keys/{key['id']}")[0] == 204
    eventually(lambda: keyed.code(key["key"]) == "invalid_api_key", 2)


def test_the_admin_api_believes_the_proxies_that_the_file_names(keyed: Keyed) -> None:
    key = keyed.made(scopes=["read"], ips=["203.0.113.0/24"])

    def code(**forwarded: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", keyed.metrics_port, timeout=20)
        connection.request("GET", "/admin/v1/keys", headers={"authorization": f"Bearer {key['key']}"} | forwarded)
        status = connection.getresponse().status
        connection.close()
        return status

    told = [{}, {"x-forwarded-for": "203.0.113.9"}, {"x-forwarded-for": "203.0.113.9, 198.51.100.1"}]
    assert [code(**each) for each in told] == [403, 200, 403]


@pytest.mark.slow
def test_no_request_is_refused_while_keys_come_and_go(keyed: Keyed) -> None:
    """Every worker's memory of keys is thrown away thirty times, under load."""
    key, stop, statuses = keyed.made()["key"], threading.Event(), set[int]()

    def load() -> None:
        while not stop.is_set():
            statuses.add(keyed.ask(key)[0])

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        other = keyed.made()
        keyed.admin("DELETE", f"keys/{other['id']}")
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == {200}


def test_a_rotated_keys_two_secrets_work_until_the_overlap_ends(keyed: Keyed) -> None:
    first = keyed.made()
    _, second = keyed.admin("POST", f"keys/{first['id']}/rotate", {"overlap_seconds": 1.5})
    assert keyed.statuses(first["key"]) == keyed.statuses(second["key"]) == {200}
    eventually(lambda: keyed.statuses(first["key"]) == {401}, 4)
    assert keyed.code(first["key"]) == "expired_api_key"
    assert keyed.statuses(second["key"]) == {200}


def test_a_key_ends_when_it_was_said_to(keyed: Keyed) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time_ns() // 10**9 + 2))
    key = keyed.made(expires=soon)["key"]
    assert keyed.ask(key)[0] == 200
    eventually(lambda: keyed.statuses(key) == {401}, 5)


def test_a_key_is_refused_from_elsewhere(keyed: Keyed) -> None:
    key = keyed.made(ips=["10.0.0.0/8"])["key"]
    assert keyed.code(key) == "address_not_allowed"
    assert keyed.ask(key, **{"x-forwarded-for": "10.1.2.3"})[0] == 200
    assert keyed.code(key, **{"x-forwarded-for": "10.1.2.3, 11.1.1.1"}) == "address_not_allowed"


def test_scopes(keyed: Keyed) -> None:
    reads, administers = keyed.made(scopes=["read"])["key"], keyed.made(scopes=["admin"])["key"]
    for key in (reads, administers):
        assert keyed.ask(key)[0] == 200
        with pytest.raises(openai.PermissionDeniedError, match="inference"):
            keyed.client(key).chat.completions.create(model="echo/x", messages=ASK)
    assert keyed.admin("POST", "keys", {"name": "n"}, reads)[0] == 403
    assert keyed.admin("POST", "keys", {"name": "n"}, administers)[0] == 201
    for path in ("config", "events"):
        assert keyed.admin("GET", path, token=administers)[0] in (401, 403)


def test_what_a_tenant_may_use_changes_while_it_is_used(keyed: Keyed) -> None:
    keyed.admin("POST", "tenants", {"name": "acme"})
    key = keyed.made(tenant="acme")["key"]
    client = keyed.client(key)
    client.chat.completions.create(model="echo/x", messages=ASK)
    keyed.admin("PATCH", "tenants/acme", {"models": ["echo/y"]})

    def refused() -> bool:
        try:
            client.chat.completions.create(model="echo/x", messages=ASK)
        except openai.NotFoundError:
            return True
        return False

    eventually(refused, 2)
    client.chat.completions.create(model="echo/y", messages=ASK)
    keyed.admin("PATCH", "tenants/acme", {"models": None, "limits": {"requests_per_minute": WORKERS}})  # one for each worker


    def limited() -> bool:
        try:
            client.chat.completions.create(model="echo/x", messages=ASK)
        except openai.RateLimitError as error:
            return "of this tenant" in str(error)
        return False

    eventually(limited, 5)
    keyed.admin("PATCH", "tenants/acme", {"enabled": False})
    eventually(lambda: keyed.statuses(key) == {403}, 2)
    assert keyed.code(key) == "tenant_disabled"


def test_the_command_line_asks_the_gateway_that_runs(keyed: Keyed) -> None:
    made = json.loads(keyed.command("keys", "create", "by-hand", "--limit", "concurrent=5", "--json"))
    assert (made["limits"], keyed.statuses(made["key"])) == ({"concurrent": 5}, {200})
    again = keyed.command("keys", "rotate", made["id"], "--overlap", "1h")
    assert keyed.statuses(again.partition("KEY=")[2].split()[0]) == keyed.statuses(made["key"]) == {200}
    keyed.command("keys", "revoke", made["id"])
    assert keyed.statuses(made["key"]) == {401}


def asked_about(keyed: Keyed, key: str, **more: object) -> tuple[int, Any]:
    return keyed.admin("POST", "explain", {"request": {"model": "echo/x", "messages": ASK}, "key": key, **more})


def test_where_a_key_s_request_would_go_is_told_of_keys_made_at_run_time_too(keyed: Keyed) -> None:
    made, closed = keyed.made(name="explained", models=["echo/y"]), keyed.made(name="closed")
    for called in ("explained", made["id"]):
        told = asked_about(keyed, called)[1]
        assert (told["refusal"]["status"], told["order"]) == (404, [])  # it may not use that model
        told = asked_about(keyed, called, request={"model": "echo/y", "messages": ASK})[1]
        assert (told["refusal"], told["order"][0]["target"]) == (None, "echo/y")
    keyed.admin("POST", f"keys/{closed['id']}/revoke")
    eventually(lambda: asked_about(keyed, "closed")[1]["refusal"]["code"] == "revoked_api_key", 3)
    assert asked_about(keyed, "nobody's")[1]["refusal"]["message"] == "There is no client key named \"nobody's\"."
    assert asked_about(keyed, "cfg")[1]["refusal"] is None
    again = keyed.made(name="explained")
    status, refused = asked_about(keyed, "explained")
    assert (status, refused["error"]["code"], refused["error"]["param"]) == (409, "ambiguous", "key")
    assert made["id"] in refused["error"]["message"]
    assert again["id"] in refused["error"]["message"]
    assert "1. echo/y" in keyed.command("explain", "echo/y", "--key", made["id"])
    assert "not available to you" in keyed.command("explain", "echo/x", "--key", made["id"], status=1)


def test_a_worker_that_takes_anothers_place_refuses_nobody(keyed: Keyed) -> None:
    key = keyed.made()["key"]
    log = keyed.gateway.log
    stop, statuses = threading.Event(), list[int]()

    def load() -> None:
        while not stop.is_set():
            try:
                statuses.append(keyed.ask(key)[0])
            except OSError:
                statuses.append(0)  # it died with this request in its hands

    thread = threading.Thread(target=load)
    thread.start()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    victim = [line["child_pid"] for line in lines if line["event"] == "started" and line["child"] == "worker 0"][-1]
    os.kill(victim, 9)
    time.sleep(2)
    stop.set()
    thread.join()
    assert statuses[-1] == 200, "and it serves"
    assert set(statuses) <= {200, 0, 503}  # 503 `starting`: a machine so busy that the operator's word takes over a quarter of a second
    assert statuses.count(0) <= 1


@pytest.mark.slow
def test_keys_outlive_the_gateway_and_changes_made_meanwhile_count(tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port}, "data_dir": str(tmp_path / "data"),
        "providers": {"echo": {}}, "keys": [{"name": "cfg", "key": "sk-config-0123456"}], "admin": {"token": TOKEN},
    }  # fmt: skip
    with running(tmp_path, config) as gateway:
        first = Keyed(gateway, metrics_port)
        eventually(lambda: first.admin("GET", "keys")[0] == 200, 20)
        kept, gone = first.made(), first.made()
        assert first.ask(gone["key"])[0] == 200
    first.command("keys", "revoke", gone["id"])
    offline = json.loads(first.command("keys", "create", "offline", "--json"))
    with running(tmp_path, config) as gateway:
        again = Keyed(gateway, metrics_port)
        assert again.ask("sk-config-0123456")[0] == 200  # at once, whatever the operator is at
        assert again.ask(gone["key"])[0] in (401, 503)  # never good, not even before the operator is up
        eventually(lambda: again.ask(kept["key"])[0] == 200, 20)
        assert (again.ask(gone["key"])[0], again.ask(offline["key"])[0]) == (401, 200)
