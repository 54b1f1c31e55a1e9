"""An identity provider on loopback: discovery document and JWK set, which tests change while it runs."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llm_gateway.admin.keysets import DISCOVERY


class IdentityProvider:
    """`keys`: what it signs with now. `status`: what it answers with. `said`: over its discovery document."""

    def __init__(self, *keys: Any) -> None:
        self.keys = [*keys]
        self.status = 200
        self.said: dict[str, Any] = {}
        self.body: bytes | None = None
        self.asked: list[str] = []
        provider = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                found = provider.document if self.path == DISCOVERY else {"keys": [each.public for each in provider.keys]}
                body = provider.body if provider.body is not None else json.dumps(found).encode()
                self.send_response(provider.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def document(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.said}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
