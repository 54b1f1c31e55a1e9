"""The token services of three clouds, on loopback, as their own libraries speak to them.

Law: each answer is numbered, so that a test sees which one travelled on; `validity` says how long it holds, `broken` that
nobody gets one. Whatever was asked is in `asked`. Azure's login insists on https under its own name: it is reached through
a proxy (`CONNECT`) that answers for it, with a certificate of a CA made for the test.
"""

from __future__ import annotations

import http.server
import itertools
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROLE = "arn:aws:iam::000000000000:role/gateway"
LOGIN = "login.microsoftonline.com"
ASSUMED = """<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><AssumedRoleUser>
<Arn>arn:aws:sts::000000000000:assumed-role/gateway/s</Arn><AssumedRoleId>AROA:s</AssumedRoleId></AssumedRoleUser><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>
<Expiration>{expires}</Expiration></Credentials></{action}Result></{action}Response>"""
IMDS, GCE = "/latest/meta-data/iam/security-credentials/", "/computeMetadata/v1/"


@dataclass
class Clouds:
    validity: float = 3600.0
    broken: bool = False
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def environ(self) -> dict[str, str]:
        """As a container on each of the clouds would find it."""
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/container",
            "AWS_ENDPOINT_URL_STS": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "IDENTITY_ENDPOINT": f"{self.url}/identity",
            "IDENTITY_HEADER": "a-header-secret",
            "NO_PROXY": "127.0.0.1",
        }

    def service_account(self) -> str:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return json.dumps(
            {
                "type": "service_account", "project_id": "a-project", "private_key_id": "1", "private_key": pem.decode(),
                "client_email": "gateway@a-project.iam.gserviceaccount.com", "token_uri": f"{self.url}/google",
            }
        )  # fmt: skip

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, str]:
        self.asked.append((path, asked))
        if self.broken:
            return 403, '{"error": "access_denied", "error_description": "broken on purpose"}'
        number = next(self.numbers)
        stamp = datetime.fromtimestamp(time.time_ns() / 1e9 + self.validity, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = {"key": f"ASIAFAKE{number:08}", "secret": f"secret-{number}", "token": f"session-{number}", "expires": stamp}
        if path in {"/container", f"{IMDS}a-role"}:
            told = {"AccessKeyId": parts["key"], "SecretAccessKey": parts["secret"], "Token": parts["token"], "Expiration": stamp}
            return 200, json.dumps({**told, "Code": "Success"})
        if path in {IMDS, "/latest/api/token"}:
            return 200, "a-role" if path == IMDS else "a-session-of-the-metadata-service"
        if path.startswith(GCE) and not path.endswith("/token"):
            return 200, json.dumps({"email": "gke@p", "scopes": ["x"], "aliases": ["default"]}) if "service-accounts" in path else "a-project"
        if path == "/google" or path.startswith(GCE):
            return 200, json.dumps({"access_token": f"google-{number}", "expires_in": int(self.validity), "token_type": "Bearer"})
        if path == "/identity":
            ends = str(int(time.time_ns() / 1e9 + self.validity))
            return 200, json.dumps({"access_token": f"entra-{number}", "expires_on": ends, "resource": "x", "token_type": "Bearer"})
        if path.endswith("/openid-configuration"):
            base = f"https://{LOGIN}/a-tenant"
            return 200, json.dumps(
                {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/oauth2/v2.0/token", "issuer": f"{base}/v2.0"}
            )
        if path.endswith("/oauth2/v2.0/token"):
            return 200, json.dumps({"access_token": f"login-{number}", "expires_in": int(self.validity), "token_type": "Bearer"})
        return 200, ASSUMED.format(action=asked.get("Action", "AssumeRole"), **parts)


@contextmanager
def running(folder: Path | None = None) -> Iterator[Clouds]:
    """folder: where to leave `ca.pem`, for a test that needs Azure's login."""
    clouds = Clouds()
    if folder is not None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        clouds.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOGIN).configure_cert(clouds.tls)

    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked = {**{name: values[0] for name, values in parse_qs(url.query).items()}, "headers": dict(self.headers)}
            self.reply(*clouds.answer(url.path, asked))

        def do_PUT(self) -> None:
            self.reply(*clouds.answer(self.path, {"headers": dict(self.headers)}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            asked = {**{name: values[0] for name, values in parse_qs(body).items()}, "headers": dict(self.headers)}
            self.reply(*clouds.answer(urlsplit(self.path).path, asked))

        def do_CONNECT(self) -> None:
            assert clouds.tls is not None
            clouds.asked.append(("CONNECT", {"to": self.path}))
            self.wfile.write(b"HTTP/1.1 200 ok\r\n\r\n")
            inner = clouds.tls.wrap_socket(self.connection, server_side=True)
            Answers(inner, self.client_address, self.server)
            self.close_connection = True

        def reply(self, status: int, text: str) -> None:
            kind = "text/xml" if text.startswith("<") else "application/json" if text.startswith("{") else "text/plain"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("metadata-flavor", "Google")
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    clouds.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield clouds
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
