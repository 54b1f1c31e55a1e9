"""Whom a command asks: the gateway that runs, and only where none does the database."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_gateway.commands.alone import alone
from llm_gateway.commands.calls import every
from llm_gateway.commands.reading import read
from llm_gateway.telemetry import audit


def serve(answers: list[tuple[int, object]]) -> tuple[HTTPServer, list[str]]:
    """A gateway's admin API with these answers."""
    asked: list[str] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers.pop(0)
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, asked


def at(shell: Any, port: int) -> None:
    config = json.loads(shell.file.read_text())
    config["server"]["metrics_port"] = port
    shell.file.write_text(json.dumps(config))


def test_the_running_gateway_is_asked_page_by_page(shell) -> None:
    server, asked = serve([(200, {"data": [{"id": "a"}], "next": "a"}), (200, {"data": [{"id": "b"}], "next": None})])
    config = json.loads(shell.file.read_text())
    config["server"]["metrics_port"] = server.server_address[1]
    shell.file.write_text(json.dumps(config))
    assert every(str(shell.file), "/admin/v1/keys", tenant="acme", name=None) == [{"id": "a"}, {"id": "b"}]
    assert asked == ["/admin/v1/keys?tenant=acme&limit=1000", "/admin/v1/keys?tenant=acme&limit=1000&after=a"]
    assert not (shell.file.parent / "data" / "gateway.db").exists()
    server.shutdown()
    server.server_close()


def test_a_gateway_that_refuses_is_believed(shell) -> None:
    server, _ = serve([(503, {"error": {"message": "Not now.", "code": "database_unavailable", "param": None}})])
    config = json.loads(shell.file.read_text())
    config["server"]["metrics_port"] = server.server_address[1]
    shell.file.write_text(json.dumps(config))
    assert "Not now." in shell("keys", "list", status=1)
    server.shutdown()
    server.server_close()


def test_of_commands_at_once_each_has_its_line_in_the_audit_log(shell) -> None:
    """Where no gateway runs each writes it itself, and one at a time can."""
    shell("tenants", "create", "first")
    folder = shell.file.parent / "data" / "audit"
    other = audit.Chain(folder, b"whatever: it writes nothing")
    threading.Timer(0.3, other.close).start()
    status, _ = asyncio.run(alone(read(str(shell.file)), "POST", "/admin/v1/tenants", b'{"name": "second"}'))
    assert (status, [line["made"]["name"] for line in audit.read(folder)]) == (201, ["first", "second"])


@pytest.mark.parametrize("body", ["404 page not found", "null", "5", '{"error": 5}'])
def test_who_is_no_gateway_is_called_so(shell, body: str) -> None:
    """Port 9090 is Prometheus' too."""
    server, _ = serve([(404, body)])
    config = json.loads(shell.file.read_text())
    config["server"]["metrics_port"] = server.server_address[1]
    shell.file.write_text(json.dumps(config))
    assert "no gateway" in shell("keys", "list", status=1)
    server.shutdown()
    server.server_close()


def test_a_gateway_that_breaks_off_is_said(shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = json.loads(shell.file.read_text())
        config["server"]["metrics_port"] = listening.getsockname()[1]
        shell.file.write_text(json.dumps(config))

        def hang_up() -> None:
            listening.accept()[0].close()

        threading.Thread(target=hang_up).start()
        assert "did not answer" in shell("keys", "list", status=1)


@pytest.mark.parametrize("words", [("keys", "delete"), ("tenants", "delete"), ("keys", "show"), ("tenants", "list"), ("tenants", "secret")])
def test_of_nobody_nothing_is_asked(shell, words: tuple[str, ...]) -> None:
    """`keys delete "$ID"` of a script where ID is not set: nothing is deleted, and that is said."""
    assert "no name" in shell(*words, "", status=2)


def test_a_name_stays_one_step_of_a_path(shell) -> None:
    server, asked = serve([(404, {"error": {"message": "There is no such record."}})] * 4)
    at(shell, server.server_address[1])
    for words in (("tenants", "show", "zoë"), ("tenants", "show", "acme", "--user", "a/b?c#d"), ("keys", "show", "a b"), ("keys", "show", "..%2f")):
        assert "no such record" in shell(*words, status=1)
    assert asked == [f"/admin/v1/{path}" for path in ("tenants/zo%C3%AB", "tenants/acme/users/a%2Fb%3Fc%23d", "keys/a%20b", "keys/..%252f")]
    server.shutdown()
    server.server_close()


def test_a_name_is_one_step_of_a_path_where_no_gateway_runs_too(shell) -> None:
    config = json.loads(shell.file.read_text()) | {"providers": {"my llm": {"type": "vllm", "base_url": "http://127.0.0.1:1"}}}
    shell.file.write_text(json.dumps(config))
    shell("tenants", "secret", "written", "my llm", typed="sk-own\n")
    assert [row["provider"] for row in shell.read("tenants", "secret", "written")] == ["my llm"]


@pytest.mark.parametrize("answer", [(200, "<html>hello</html>"), (404, "404 page not found"), (200, "5"), (404, '{"error": "what?"}')])
def test_who_is_no_gateway_has_read_no_configuration(shell, answer: tuple[int, str]) -> None:
    """Development servers answer everything with 200."""
    server, _ = serve([answer] * 2)
    at(shell, server.server_address[1])
    assert shell.run("reload").exit_code == 1
    assert "no gateway is running: by the configuration alone" in shell.run("explain", "echo/x").stderr
    server.shutdown()
    server.server_close()


def test_who_does_not_even_speak_http_is_no_gateway(shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        at(shell, listening.getsockname()[1])

        def chat() -> None:
            for _ in range(2):
                with listening.accept()[0] as sock:
                    sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")

        threading.Thread(target=chat).start()
        assert "no gateway answers" in shell("reload", status=1)
        assert "by the configuration alone" in shell.run("explain", "echo/x").stderr


def test_no_key_has_no_digest(shell) -> None:
    assert "no key" in shell("keys", "hash", status=2, typed="\n")


def test_where_there_is_no_journal_nothing_is_added_up(shell, tmp_path: Path) -> None:
    """A bill of nothing, from a path that is wrong, looks like a bill."""
    assert "no journal in" in shell("journal", "--summary", "--data-dir", str(tmp_path / "elsewhere"), status=2)


@pytest.mark.parametrize("text", [None, "{", "[1]", "\xff"])
def test_a_request_that_cannot_be_read_is_said(shell, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "request.json"
    if text is not None:
        path.write_text(text, "latin-1")
    assert "request.json" in shell("explain", "echo/x", "--request", str(path), status=2)


def test_a_database_that_is_none_is_said(shell) -> None:
    folder = shell.file.parent / "data"
    folder.mkdir()
    (folder / "gateway.db").write_bytes(b"something else" * 1000)
    for words in (("keys", "list"), ("usage",), ("usage", "export")):
        assert "file is not a database" in shell(*words, status=1)


@pytest.mark.parametrize("words", [("reload",), ("explain", "echo/x"), ("usage", "export"), ("cache", "purge"), ("db", "status"), ("version", ">/dev/full")])
def test_what_the_system_refuses_is_a_line_and_no_traceback(words: tuple[str, ...], tmp_path: Path) -> None:
    command = f"{Path(sys.executable).with_name('llm-gateway')} {' '.join(words)}"
    environ = os.environ | {"LLM_GATEWAY__DATA_DIR": "/proc/nowhere", "METRICS_PORT": "1"}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "/proc/nowhere" in done.stderr or "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_wrong_is_said(shell) -> None:
    shell.file.write_text('{"sevrer": {}}')
    assert "did you mean `server`?" in shell("keys", "list", status=2)


def test_serving_pays_for_no_database() -> None:
    """Nor for what other commands need: half a second to import, for which whoever starts a gateway waits."""
    others = "('sqlalchemy', 'starlette', 'llm_gateway.commands.others', 'llm_gateway.explaining', 'llm_gateway.wiring', 'asyncio')"
    program = f"import llm_gateway.cli, sys; sys.exit(' '.join(name for name in {others} if name in sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
