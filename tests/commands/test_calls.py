"""Whom a command asks: the gateway that runs, and only where none does the database."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llm_gateway.commands.alone import alone
from llm_gateway.commands.calls import every
from llm_gateway.commands.reading import read
from llm_gateway.telemetry import audit


def serve(answers: list[tuple[int, object]]) -> tuple[HTTPServer, list[str]]:
    """A gateway's admin API with these answers."""
    asked: list[str] = []

    class Answering(BaseHTTPRequestHandler):
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


def test_a_gateway_that_breaks_off_and_a_name_that_no_path_can_be_are_said(shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = json.loads(shell.file.read_text())
        config["server"]["metrics_port"] = listening.getsockname()[1]
        shell.file.write_text(json.dumps(config))

        def hang_up() -> None:
            listening.accept()[0].close()

        threading.Thread(target=hang_up).start()
        assert "did not answer" in shell("keys", "list", status=1)
        assert "did not answer" in shell("keys", "show", "a b", status=1)


def test_a_configuration_that_is_wrong_is_said(shell) -> None:
    shell.file.write_text('{"sevrer": {}}')
    assert "did you mean `server`?" in shell("keys", "list", status=2)


def test_serving_pays_for_no_database() -> None:
    """Nor for what other commands need: half a second to import, for which whoever starts a gateway waits."""
    others = "('sqlalchemy', 'starlette', 'llm_gateway.commands.others', 'llm_gateway.explaining', 'llm_gateway.wiring', 'asyncio')"
    program = f"import llm_gateway.cli, sys; sys.exit(' '.join(name for name in {others} if name in sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
