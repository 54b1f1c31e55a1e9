"""The upstreams that everything is measured against: nginx with a static reply, and the streaming mock.

Law: on the driver's core, never on the contestants'; their ceiling is measured beside everything else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import trustme
from process import Process, free_port, start, wait_for_port

HERE = Path(__file__).parent

COMPLETION = {
    "id": "chatcmpl-BenchBenchBenchBenchBench",
    "object": "chat.completion",
    "created": 1750000000,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The capital of France is Paris. " * 12, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 25,
        "completion_tokens": 84,
        "total_tokens": 109,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}

STATIC = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; daemon off;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 64m; client_body_buffer_size 2m;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} backlog=8192 reuseport;
    {tls}
    location / {{ default_type application/json; add_header x-request-id req_1; return 200 '{body}'; }}
  }}
}}
"""


@dataclass
class Upstream:
    process: Process
    url: str
    port: int
    ca: Path | None = None


def plain(folder: Path, core: int) -> Upstream:
    """One static chat completion for any request."""
    return _static(folder / "plain", core, "")


def tls(folder: Path, core: int) -> Upstream:
    """The same over TLS 1.3, with a certificate for 127.0.0.1 and localhost; `ca` verifies it."""
    site = folder / "tls"
    site.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    cert = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(site / "ca.pem"))
    cert.private_key_and_cert_chain_pem.write_to_path(str(site / "cert.pem"))
    files = f"ssl_certificate {site}/cert.pem; ssl_certificate_key {site}/cert.pem; ssl_protocols TLSv1.3;"
    upstream = _static(site, core, files, listen=" ssl")
    upstream.url = f"https://localhost:{upstream.port}"
    upstream.ca = site / "ca.pem"
    return upstream


def streaming(folder: Path, core: int) -> Upstream:
    port = free_port()
    process = start("stream-mock", [sys.executable, str(HERE / "mock.py"), str(port)], folder / "stream", core)
    wait_for_port(port, process)
    return Upstream(process, f"http://127.0.0.1:{port}", port)


def _static(site: Path, core: int, tls_lines: str, listen: str = "") -> Upstream:
    site.mkdir(parents=True, exist_ok=True)
    port = free_port()
    text = STATIC.format(folder=site, port=port, tls=tls_lines, body=json.dumps(COMPLETION, separators=(",", ":")))
    (site / "nginx.conf").write_text(text.replace(" reuseport;", f" reuseport{listen};"))
    process = start("mock", ["nginx", "-p", str(site), "-c", str(site / "nginx.conf")], site, core)
    wait_for_port(port, process)
    return Upstream(process, f"http://127.0.0.1:{port}", port)
