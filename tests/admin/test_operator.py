"""The real operator under the real supervisor, with workers that only talk."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from admin.conftest import TOKEN
from postgres import Postgres
from processes import eventually

SECRETIVE = """
providers:
  o: {type: openai, base_url: "http://u:pass-word-3@h:81/v1", api_key: sk-provider-1, headers: {x: header-value-1}, proxy: "http://u:pass-word-2@p"}
"""


def test_metrics_are_the_sum_of_the_workers_and_parse(calm):
    eventually(lambda: calm.metric("llm_gateway_open_connections") == 30)
    text = calm.ask("/metrics")[1]
    names = {family.name for family in prometheus(text)}
    assert {"http_requests", "llm_gateway_config_generation", "llm_gateway_build_info"} <= names
    assert list(openmetrics(calm.ask("/metrics", Accept="application/openmetrics-text")[1]))


def test_what_a_killed_worker_counted_stays_counted(plane):
    running = plane()
    eventually(lambda: running.metric("http_requests_total") > 10)
    (pid,) = running.children("worker 0")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    before = running.metric("http_requests_total")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running.metric("http_requests_total") > before + 3)
    assert running.metric("llm_gateway_worker_restarts_total") == 1


def test_health_is_the_briefs_json(calm):
    eventually(lambda: json.loads(calm.ask("/health")[1])["status"] == "healthy")
    body = json.loads(calm.ask("/health")[1])
    assert list(body) == ["status", "version", "uptime_seconds", "providers", "dependencies"]
    assert body["uptime_seconds"] >= 60
    assert body["providers"] == [{"name": "echo", "healthy": True, "latency_ms": 12}]
    assert body["dependencies"]["disk_space_gb"] > 0
    assert calm.ask("/health/live")[0] == 200


def test_health_degrades_with_redis_and_the_shown_configuration_holds_no_secret(plane):
    running = plane(f"redis: {{url: 'redis://user:pass-word-1@127.0.0.1:1'}}\n{SECRETIVE}")
    body = eventually(lambda: (found := json.loads(running.ask("/health")[1]))["status"] == "degraded" and found)
    assert body["dependencies"]["redis"] is False
    eventually(lambda: running.told("redis")[-1]["redis"] is False)  # for the workers' own /health
    shown = running.ask("/admin/v1/config", TOKEN)[1]
    for secret in ("pass-word", "sk-provider", "header-value", "0123456789abcdef", "sk-12345678", TOKEN):
        assert secret not in shown
    assert json.loads(shown)["generation"] == 1


def test_a_good_file_is_in_force_everywhere_within_seconds(plane):
    running = plane(workers=2)
    running.config.write_text(running.config.read_text() + "journal: {on_error: continue}\n")
    eventually(lambda: len(running.told("load")) == 2)
    assert all(entry["load"] == 2 and entry["journal"] == "continue" for entry in running.told("load"))
    eventually(lambda: running.metric("llm_gateway_config_generation") == 2)
    assert running.notices("configuration reloaded")[0]["cause"] == "file change"


def test_a_bad_file_changes_nothing_says_everything_and_counts(plane):
    running = plane()
    running.config.write_text(running.config.read_text() + "serverr: 1\nworkers: x\n")
    eventually(lambda: running.notices("configuration refused"))
    (notice,) = running.notices("configuration refused")
    assert len(notice["errors"]) == 1
    assert "given twice" in str(notice["errors"])
    status, text = running.ask("/admin/v1/reload", TOKEN, "POST")
    assert status == 422
    assert json.loads(text)["generation"] == 1
    assert running.metric("llm_gateway_config_reload_failures_total") == 2
    assert running.told("load") == []
    time.sleep(1.5)
    assert len(running.notices("configuration refused")) == 2  # once for the file, once for the call


def test_nothing_new_is_nothing_changed(calm):
    outcome = calm.reload()
    assert (outcome["changed"], outcome["generation"], outcome["errors"]) == (False, 1, [])


@pytest.mark.slow
def test_an_emptied_file_takes_nobodys_keys_away(plane):
    running = plane()
    text = running.config.read_text()
    running.config.write_text("")  # what a writer leaves for a moment who truncates first
    eventually(lambda: running.metric("llm_gateway_config_reload_failures_total") == 1)
    assert "is empty" in running.notices("configuration refused")[0]["errors"][0]
    running.config.write_text(text + "journal: {on_error: continue}\n")
    eventually(lambda: running.told("load"))
    assert running.told("load")[0]["journal"] == "continue"


@pytest.mark.slow
def test_a_file_that_is_still_being_written_is_waited_for(plane):
    running = plane()
    text = running.config.read_text()
    end = time.monotonic() + 3
    while time.monotonic() < end:  # a valid file at every moment, another at each
        running.config.write_text(f"{text}# {time.monotonic()}\njournal: {{on_error: continue}}\n")
        time.sleep(0.05)
    assert not running.told("load")
    eventually(lambda: running.told("load"))


@pytest.mark.slow
def test_sighup_reloads(plane):
    running = plane()
    os.kill(running.process.pid, signal.SIGSTOP)  # so that the signal is there before the file watch looks
    running.config.write_text(running.config.read_text() + "journal: {on_error: continue}\n")
    os.kill(running.process.pid, signal.SIGHUP)
    os.kill(running.process.pid, signal.SIGCONT)
    eventually(lambda: running.notices("configuration reloaded"))
    assert running.notices("configuration reloaded")[0]["cause"] in ("SIGHUP", "file change")
    running.config.write_text((running.folder / "common").read_text())
    assert running.reload()["changed"] is True


def test_what_needs_a_restart_is_kept_and_said(plane):
    running = plane()
    running.config.write_text(running.config.read_text() + "server: {port: 1}\njournal: {on_error: continue}\n")
    outcome = running.reload()
    if not outcome["changed"]:  # the watch was quicker
        outcome = running.reload()
    assert "server.host, server.port" in str(outcome["warnings"])
    eventually(lambda: running.told("load"))
    assert running.told("load")[0]["port"] == 8080


@pytest.mark.slow
def test_a_saved_file_that_only_a_restart_can_obey_is_answered_in_the_log(plane):
    running = plane()
    running.config.write_text(running.config.read_text().replace("workers: 1", "workers: 3"))
    (said,) = eventually(lambda: running.notices("restart needed"))
    assert (said["cause"], said["generation"]) == ("file change", 1)
    assert said["warnings"] == ["workers: changed, in force after a restart"]


@pytest.mark.slow
def test_a_worker_restarted_while_the_operator_is_dead_starts_with_the_newest(plane):
    running = plane()
    running.config.write_text(running.config.read_text() + "journal: {on_error: continue}\n")
    eventually(lambda: running.told("load"))
    operator = running.children("operator")[0]
    (worker,) = running.children("worker 0")
    os.kill(operator, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(running.told("start")) == 2)
    assert running.told("start")[1]["start"] == 2
    eventually(lambda: running.metric("llm_gateway_config_generation") == 2)


def test_the_admin_api_wants_the_token(calm):
    for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x"):
        assert calm.ask("/admin/v1/config", token)[0] == 401
        assert calm.ask("/admin/v1/reload", token, "POST")[0] == 401
    assert calm.ask("/admin/v1/config", TOKEN)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/admin/v1/nothing", 404, "not_found"), ("POST", "/nothing", 404, "not_found"),
        ("PUT", "/admin/v1/keys", 405, "method_not_allowed"), ("GET", "/admin/v1/reload", 405, "method_not_allowed"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_as_any_other_error(calm, method, path, status, code):
    """Clients read `error.code` of every answer that is none of success."""
    found, body = calm.ask(path, TOKEN, method)
    error = json.loads(body)["error"]
    assert (found, error["code"], error["param"]) == (status, code, None)
    assert "GET, HEAD, POST" in error["message"] or path != "/admin/v1/keys"


def test_nobody_says_for_himself_where_he_comes_from(calm):
    """What stands in the audit log, and what a key's own networks are compared with, is who really connected."""
    for said in ("203.0.113.9", "forged"):
        assert calm.ask("/admin/v1/config", "wrong", **{"X-Forwarded-For": said, "User-Agent": "forging"})[0] == 401
    lines = [json.loads(line) for path in (calm.folder / "data" / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {line["peer"] for line in lines if line["kind"] == "refused"} == {"127.0.0.1"}


def test_workers_hear_the_mean_of_connections(calm):
    eventually(lambda: calm.told("mean"))
    assert calm.told("mean")[0]["mean"] == 15.0


def test_the_operator_drains_last_and_says_so(plane):
    running = plane()
    (worker,) = running.children("worker 0")
    os.kill(worker, signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    eventually(lambda: running.ask("/health/ready")[0] == 503)
    assert running.ask("/metrics")[0] == 200
    os.kill(worker, signal.SIGCONT)
    assert running.process.wait(8) == 0


@pytest.mark.slow
def test_a_database_that_stands_still_does_not_spoil_its_end(plane, postgres: Postgres):
    """Else it is killed after 5 s, with whatever it had yet to write, and a stop that went well is a failure to whoever asked for it."""
    running = plane(f"database: {{url: '{postgres.database()}'}}\nsecret: '0123456789abcdef'\n")
    eventually(lambda: running.metric("llm_gateway_database_up") == 1)
    eventually(lambda: running.ask("/admin/v1/keys", TOKEN)[0] == 200)
    with postgres.frozen():
        time.sleep(2.5)  # it asks once a second
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(12) == 0


@pytest.mark.slow
def test_it_answers_soon_after_it_was_started(plane):
    running = plane()
    os.kill(running.children("operator")[0], signal.SIGKILL)
    begun = time.monotonic()
    eventually(lambda: running.ask("/health/live")[0] == 200)
    assert time.monotonic() - begun < 3.0  # 1.2 s on an idle core; two are shared here
