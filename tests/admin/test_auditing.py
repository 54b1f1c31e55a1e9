"""What a running gateway writes into its audit log, and what it does when it cannot."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import KEY, free_port, running
from e2e.whole import COMMAND, ENVIRON, TOKEN
from llm_gateway.admin.auditing import MOST_REFUSED, Auditing, redacted
from llm_gateway.admin.notices import Notices
from llm_gateway.telemetry import trail
from llm_gateway.telemetry.audit import decoded, read, verify
from processes import eventually

BOSS = "sk-administers-globex"


class Audited:
    def __init__(self, folder: Path, port: int, metrics_port: int) -> None:
        self.folder, self.port, self.metrics_port = folder, port, metrics_port

    def admin(self, method: str, path: str, body: str | None = None, token: str = TOKEN) -> int:
        return self.ask(self.metrics_port, method, path, body, token)

    def ask(self, port: int, method: str, path: str, body: str | None, token: str) -> int:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request(method, path, body, {"Authorization": f"Bearer {token}"})
        reply = client.getresponse()
        reply.read()
        client.close()
        return reply.status

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in read(self.folder / "data" / "audit") if line["kind"] == kind]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    port, metrics_port = free_port(), free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port},
        "data_dir": str(folder / "data"), "providers": {"echo": {"type": "echo"}},
        "keys": [{"name": "e2e", "key": KEY, "tenant": "acme"}, {"name": "boss", "key": BOSS, "tenant": "globex", "scopes": ["admin"]}],
        "admin": {"token": TOKEN}, "audit": {"requests": True},
    }  # fmt: skip
    with running(folder, config):
        yield Audited(folder, port, metrics_port)


def test_a_change_has_its_line_without_secrets(audited: Audited) -> None:
    assert audited.admin("POST", "/admin/v1/cache/purge", json.dumps({"tenant": "acme", "secret": "hidden"})) in (200, 400)
    (line,) = [line for line in audited.lines("change") if "purge" in line["action"]]
    assert line["said"] == {"tenant": "acme", "secret": "[redacted]"}
    assert line["peer"] == "127.0.0.1"


def test_looking_is_no_change(audited: Audited) -> None:
    before = len(audited.lines("change"))
    assert audited.admin("GET", "/admin/v1/config") == 200
    assert audited.admin("POST", "/admin/v1/explain", json.dumps({"request": {"model": "echo/echo", "messages": []}})) in (200, 400)
    assert len(audited.lines("change")) == before


def test_a_refused_administrator_has_a_line_and_not_what_was_sent(audited: Audited) -> None:
    assert audited.admin("POST", "/admin/v1/cache/purge", '{"tenant": "acme"}', token="wrong") == 401
    line = audited.lines("refused")[-1]
    assert (line["action"], line["status"], line.get("said")) == ("POST /admin/v1/cache/purge", 401, None)


def test_a_refused_client_has_a_line_and_a_request_too(audited: Audited) -> None:
    body = json.dumps({"model": "echo/echo", "messages": [{"role": "user", "content": "private words"}]})
    assert audited.ask(audited.port, "POST", "/v1/chat/completions", body, "sk-wrong") == 401
    assert audited.ask(audited.port, "POST", "/v1/chat/completions", body, KEY) == 200
    refused = eventually(lambda: [line for line in audited.lines("refused") if "/v1/chat" in line["action"]], 5.0)
    assert [(line["status"], line["outcome"], line["peer"]) for line in refused] == [(401, "invalid_api_key", "127.0.0.1")]
    (request,) = eventually(lambda: audited.lines("request"), 5.0)
    assert (request["tenant"], request["actor"], request["model"], request["status"]) == ("acme", "e2e", "echo", 200)
    assert "private" not in "".join(path.read_text() for path in (audited.folder / "data" / "audit").glob("*.jsonl"))


def test_the_command_verifies_it(audited: Audited) -> None:
    config = audited.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"heartbeat": {"interval": 7}}))
    audited.admin("POST", "/admin/v1/reload")
    assert eventually(lambda: audited.lines("reload"))
    command = [COMMAND, "audit", "verify", "--config", str(audited.folder / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRON, check=False)
    assert (done.returncode, done.stdout.split()[1:3]) == (0, ["lines", "hold;"])
    copy = audited.folder / "copy"
    (copy / "audit").mkdir(parents=True)
    (file,) = (audited.folder / "data" / "audit").glob("*.jsonl")
    (copy / "audit" / file.name).write_text(file.read_text().replace("purge", "merge"))
    (copy / "secret").write_text((audited.folder / "data" / "secret").read_text())
    done = subprocess.run([*command, "--data-dir", str(copy)], capture_output=True, text=True, env=ENVIRON, check=False)
    assert (done.returncode, "BROKEN at" in done.stdout) == (1, True)


@pytest.mark.parametrize("padding", [" " * 200_000, ', "grant": "' + "x" * 200_000 + '"'])
def test_no_padding_hides_what_was_asked(audited: Audited, padding: str) -> None:
    audited.admin("POST", "/admin/v1/keys", f'{{"name": "quiet", "tenant": "acme", "api_key": "hidden"{padding}}}')
    line = audited.lines("change")[-1]
    assert (line["said"]["name"], line["said"]["tenant"], line["said"]["api_key"]) == ("quiet", "acme", "[redacted]")
    assert len(json.dumps(line)) < 8 << 10


def test_what_a_tenant_tries_at_another_stands_in_nobodys_log_but_its_own(audited: Audited) -> None:
    for method, path, said in (("POST", "/admin/v1/keys", {"name": "k", "tenant": "acme"}), ("PATCH", "/admin/v1/tenants/acme", {"disabled": True})):
        assert audited.admin(method, path, json.dumps(said), token=BOSS) == 404
        line = audited.lines("change")[-1]
        assert (line["actor"], line["status"], line["tenant"]) == ("boss of globex", 404, "globex")


@pytest.mark.parametrize("body", [b'{"name": "\\ud800"}', b'{"name": "\xff"}', b"[" * 5000, b'{"a": ' * 600 + b"1" + b"}" * 600])
def test_what_cannot_be_told_keeps_no_line_from_being_written(audited: Audited, body: bytes) -> None:
    """A lone surrogate waited for ever, and with it every change."""
    client = http.client.HTTPConnection("127.0.0.1", audited.metrics_port, timeout=20)
    client.request("POST", "/admin/v1/cache/purge", body, {"Authorization": f"Bearer {TOKEN}"})
    reply = client.getresponse()
    assert (reply.status, b"invalid_request" in reply.read()) == (400, True)
    client.close()
    before = len(audited.lines("change"))
    assert audited.admin("POST", "/admin/v1/cache/purge", '{"tenant": "acme"}') == 200
    assert len(audited.lines("change")) == before + 1
    assert audited.lines("change")[-1]["said"] == {"tenant": "acme"}


def test_what_nobody_may_do_and_does_not_exist_is_no_change(audited: Audited) -> None:
    """Whoever reaches the port could fill the disk, line by line."""
    before = len(audited.lines("change"))
    for method, path in (("POST", "/admin/v1/nowhere"), ("DELETE", "/admin/v1/keys"), ("POST", "/admin/v1/audit")):
        assert audited.admin(method, path, '{"a": "' + "x" * 10_000 + '"}', token="") in (404, 405)
    assert len(audited.lines("change")) == before


@pytest.fixture
def auditing(tmp_path: Path) -> Iterator[Auditing]:
    alarms: list[bool] = []
    with (tmp_path / "log").open("w") as log:
        made = Auditing(tmp_path, b"secret", "g", Notices(log, "json", "info"), alarms.append)
        made.alarms = alarms  # type: ignore[attr-defined]
        yield made
        made.close()


def row(number: int, tenant: str | None) -> bytes:
    said = {"ts": "2026-11-27T00:00:00.000Z", "id": str(number), "request_id": str(number), "tenant": tenant, "key": tenant}
    said |= {"method": "POST", "route": "/v1", "status": 401}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def test_each_row_is_taken_over_once_also_after_a_crash(auditing: Auditing, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    file = tmp_path / "journal" / "1-0-1-0.jsonl"
    file.write_bytes(b"".join(row(number, "t" if number % 2 else None) for number in range(10)) + row(10, None)[:20])
    auditing.look()
    auditing.look()
    assert [line["request_id"] for line in read(tmp_path / "audit")] == ["0", "2", "4", "6", "8"]
    auditing.close()
    with file.open("r+b") as rest:
        rest.seek(0, 2)
        rest.write(row(10, None)[20:])
    with (tmp_path / "log").open("a") as log:
        again = Auditing(tmp_path, b"secret", "g", Notices(log, "json", "info"), lambda _well: None)
        again.look()
        again.close()
    assert [line["request_id"] for line in read(tmp_path / "audit")][-2:] == ["8", "10"]
    assert verify(tmp_path / "audit", b"secret").broken == ""


@pytest.mark.parametrize("harm", [b"no line\n", b"5\n", b'{"seq": 1}\n', b'{"at": 5}\n', b"\xff\n", b"[" * 5000 + b"\n"])
def test_a_line_that_is_none_ends_nothing(auditing: Auditing, tmp_path: Path, harm: bytes) -> None:
    """In the log, where somebody put it, or in a journal. The operator's clock takes lines over, once a second."""
    auditing.change({"action": "first"})
    auditing.close()
    (file,) = (tmp_path / "audit").glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(harm + whole)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1-0-1-0.jsonl").write_bytes(row(1, None) + harm + harm.replace(b"\n", b'"tenant":null\n') + row(2, None))
    auditing.requests = True
    auditing.look()
    assert [line["request_id"] for line in read(tmp_path / "audit") if line["kind"] == "refused"] == ["1", "2"]
    assert verify(tmp_path / "audit", b"secret").broken
    auditing.close()
    file.write_bytes(whole + harm)  # nobody knows what the next one would follow
    auditing.look()
    assert not auditing.writable
    assert "audit_unwritable" in (tmp_path / "log").read_text()
    file.write_bytes(whole)
    assert auditing.writable


def test_a_start_reads_no_more_of_the_log_than_came_since(auditing: Auditing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that tries a wrong key again and again makes millions of lines; reading them took minutes, in which the operator answered nothing."""
    file = tmp_path / "journal" / "1-0-1-0.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"".join(row(number, None) for number in range(3000)))
    for _ in range(3):
        auditing.look()
    auditing.close()
    for end in (3001, 3002, 3003):
        with file.open("ab") as more:
            more.write(row(end, None))
        if end == 3002:
            (tmp_path / "audit" / "taken").write_bytes(b"")  # as after a power cut: all is read
        asked: list[bytes] = []
        monkeypatch.setattr(trail, "decoded", lambda line, asked=asked: asked.append(line) or decoded(line))
        with (tmp_path / "log").open("a") as log:
            again = Auditing(tmp_path, b"secret", "g", Notices(log, "json", "info"), lambda _well: None)
            again.look()
            if end == 3001:
                again.close()
            else:
                os.close(again._chain._lock)  # killed
        assert len(asked) > 3000 if end == 3002 else len(asked) < 10
    assert [line["request_id"] for line in read(tmp_path / "audit")] == [str(number) for number in (*range(3000), 3001, 3002, 3003)]


def test_what_was_found_before_a_journal_that_cannot_be_read_has_its_line(auditing: Auditing, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "1-0-1-0.jsonl").write_bytes(row(1, None))
    (tmp_path / "journal" / "2-0-1-0.jsonl").symlink_to(tmp_path / "gone")  # as one that is taken away between two steps
    (tmp_path / "journal" / "3-0-1-0.jsonl").write_bytes(row(3, None))
    auditing.look()
    auditing.look()
    assert [line["request_id"] for line in read(tmp_path / "audit")] == ["1", "3"]


def test_a_flood_of_refusals_is_told_by_number(auditing: Auditing, tmp_path: Path) -> None:
    for _ in range(MOST_REFUSED * 3):
        auditing.refused({"action": "GET /admin/v1/config", "status": 401})
    time.sleep(1.05)
    auditing.refused({"action": "GET /admin/v1/config", "status": 401})
    lines = list(read(tmp_path / "audit"))
    assert len(lines) + sum(line.get("more", 0) for line in lines) == MOST_REFUSED * 3 + 1
    assert len(lines) <= 2 * MOST_REFUSED + 1


@pytest.mark.row(32)
def test_what_cannot_be_written_waits_and_stops_changes(auditing: Auditing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auditing.change({"action": "first"})
    monkeypatch.setattr(os, "write", lambda _fd, _data: 0)
    auditing.change({"action": "second"})
    assert not auditing.writable
    monkeypatch.undo()
    assert auditing.writable
    assert [line["action"] for line in read(tmp_path / "audit")] == ["first", "second"]
    assert auditing.alarms == [False, True]  # type: ignore[attr-defined]


def test_what_may_be_a_secret_is_not_shown() -> None:
    said = {"name": "ci", "api_key": "sk-1", "nested": {"client_secret": "x", "key_id": "k"}, "list": [{"token": "t"}], "budget": 5}
    assert redacted(said) == {
        "name": "ci", "api_key": "[redacted]", "nested": {"client_secret": "[redacted]", "key_id": "k"}, "list": [{"token": "[redacted]"}], "budget": 5,
    }  # fmt: skip


def test_no_question_costs_a_worker_its_line_to_the_operator(audited: Audited) -> None:
    """Over it keys are revoked and configurations arrive; it is made once."""
    for path in ("/api/show", "/api/chat", "/nowhere"):
        said = json.dumps({"path": path, "request": {"model": "echo/echo", "messages": [{"role": "user", "content": "Hello"}]}})
        assert audited.admin("POST", "/admin/v1/explain", said) == 200, path
    assert audited.admin("POST", "/admin/v1/explain", json.dumps({"request": {"model": "echo/echo", "messages": []}})) == 200
