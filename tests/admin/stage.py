"""A provider, or a receiver of webhooks, that the tests of the operator can turn off, on, and make answer as they like."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from msgspec import Struct


class Asked(Struct):
    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Stage:
    """`statuses`: answered one after another, the last one for ever. `at_once`: the most requests there were at a time."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = [*statuses] or [200]
        self.asked: list[Asked] = []
        self.port = 0
        self.pause = 0.0
        self.at_once = self._open = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        stage = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stage._open += 1
                stage.at_once = max(stage.at_once, stage._open)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stage.asked.append(Asked(time.monotonic(), self.command, self.path, headers, body))
                time.sleep(stage.pause)
                status = stage.statuses.pop(0) if len(stage.statuses) > 1 else stage.statuses[0]
                stage._open -= 1
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", f"{stage.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: Any) -> None:
                return

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Answering)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
