"""Who is measured: ours, two plain proxies, and the gateways that pip and npm can install.

Law: each is configured as its own documentation says for production: keys checked, usage and metrics on, access log on
where there is one, one worker, no caches, no retries. Who cannot be installed or started is listed with the reason.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drive import Door
from process import free_port
from upstreams import Upstream

ROOT = Path(__file__).parent.parent
BENCH_BIN = ROOT / ".venv-bench/bin"
PORTKEY = ROOT / "build/npm/node_modules/@portkey-ai/gateway/build/start-server.js"
KEY = "sk-bench-0123456789abcdef0123456789"
MODELS = ("mock-100x10", "mock-1000x5000", "mock-1000000x1")


@dataclass(frozen=True)
class Site:
    """What a contestant is given: a folder of its own, a port, an upstream and the shape that it speaks."""

    folder: Path
    port: int
    upstream: Upstream
    shape: str = "openai"


@dataclass(frozen=True)
class Launch:
    """`announced`: matches the port in its output, for who chooses that itself."""

    argv: list[str]
    door: Door
    env: dict[str, str] = field(default_factory=dict)
    announced: str | None = None


@dataclass(frozen=True)
class Peer:
    """`does`: what can be asked of it: plain, stream, translate (OpenAI client to Anthropic upstream), tls."""

    name: str
    label: str
    launch: Callable[[Site], Launch]
    missing: Callable[[], str | None]
    does: frozenset[str] = frozenset({"plain", "stream"})


def needs(path: Path | str) -> Callable[[], str | None]:
    def missing() -> str | None:
        found = path.exists() if isinstance(path, Path) else shutil.which(path) is not None
        return None if found else f"{path if isinstance(path, str) else path.name} is not installed"

    return missing


def ours(site: Site, more: Mapping[str, Any] | None = None) -> Launch:
    """Auth, usage, metrics, journal and access log on, as by default. more: of the configuration; `keys` of it: of the key."""
    more = dict(more or {})
    provider: dict[str, object] = {"type": "openai_compatible" if site.shape == "openai" else "anthropic"}
    provider |= {"base_url": site.upstream.url, "api_key": "sk-upstream", "max_connections": 10_000}
    if site.upstream.ca is not None:
        provider["tls"] = {"ca": str(site.upstream.ca)}
    config = {
        "server": {"host": "127.0.0.1", "port": site.port, "metrics_port": free_port()},
        "workers": 1,
        "data_dir": str(site.folder / "data"),
        "providers": {"mock": provider},
        "keys": [{"name": "bench", "key": KEY, "tenant": "default", **more.pop("keys", {})}],
        **more,
    }
    (site.folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    gateway = str(Path(sys.executable).parent / "llm-gateway")
    door = Door(site.port, model="mock/mock-100x10", headers={"Authorization": f"Bearer {KEY}"})
    return Launch([gateway, "serve", "--config", str(site.folder / "config.json")], door)


NGINX = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; daemon off;
events {{ worker_connections 16384; }}
http {{
  access_log {folder}/access.log; keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 64m; client_body_buffer_size 2m;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 300s; }}
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{
      proxy_pass {scheme}://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s;
      proxy_buffering {buffering}; {tls}
    }}
  }}
}}
"""


def nginx(site: Site) -> Launch:
    ca = site.upstream.ca
    tls = f"proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;" if ca else ""
    streamed = site.upstream.process.name == "stream-mock"
    text = NGINX.format(
        folder=site.folder,
        port=site.port,
        upstream=site.upstream.port,
        scheme="https" if ca else "http",
        buffering="off" if streamed else "on",
        tls=tls,
    )
    (site.folder / "nginx.conf").write_text(text)
    path = "/v1/chat/completions" if site.shape == "openai" else "/v1/messages"
    argv = ["nginx", "-p", str(site.folder), "-c", str(site.folder / "nginx.conf")]
    return Launch(argv, Door(site.port, path, headers={"Authorization": f"Bearer {KEY}"}))


def envoy(site: Site) -> Launch:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": site.upstream.port}}
    log = {
        "name": "file",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": f"{site.folder}/access.log"},
    }
    router = {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "mock", "timeout": "0s"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "access_log": [log],
        "http_filters": [router],
        "stream_idle_timeout": "600s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    limits = {"max_connections": 16384, "max_pending_requests": 16384, "max_requests": 16384}
    cluster: dict[str, object] = {
        "name": "mock",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "mock", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    }
    if site.upstream.ca is not None:
        context = {"validation_context": {"trusted_ca": {"filename": str(site.upstream.ca)}}}
        modern = {"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        cluster["transport_socket"] = {"name": "tls", "typed_config": {"@type": kind, "sni": "localhost", "common_tls_context": context | modern}}
    filters = [{"name": "http", "typed_config": manager}]
    listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": site.port}}, "filter_chains": [{"filters": filters}]}
    (site.folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    argv = [str(BENCH_BIN / "envoy"), "-c", str(site.folder / "envoy.json"), "--concurrency", "1", "-l", "warn", "--disable-hot-restart"]
    path = "/v1/chat/completions" if site.shape == "openai" else "/v1/messages"
    return Launch(argv, Door(site.port, path, headers={"Authorization": f"Bearer {KEY}"}))


def tensorzero(site: Site) -> Launch:
    """Its gateway as the wheel carries it. Without a database it stores nothing, which is the least it can do."""
    kind, base = ("openai", "api_base") if site.shape == "openai" else ("anthropic", "api_base")
    lines = ["[gateway]\nobservability.enabled = false\n"]
    suffix = "/v1/" if site.shape == "openai" else "/v1/messages"
    for model in MODELS:
        lines.append(f'[models."{model}"]\nrouting = ["mock"]\n[models."{model}".providers.mock]\ntype = "{kind}"\nmodel_name = "{model}"')
        lines.append(f'{base} = "{site.upstream.url}{suffix}"\napi_key_location = "env::UPSTREAM_KEY"\n')
    (site.folder / "tensorzero.toml").write_text("\n".join(lines))
    script = (
        "import sys, threading; from tensorzero.tensorzero import _start_http_gateway as start\n"
        "gateway = start(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)\n"
        "print(gateway.base_url, flush=True); threading.Event().wait()"
    )
    argv = [str(BENCH_BIN / "python"), "-c", script, str(site.folder / "tensorzero.toml")]
    door = Door(site.port, "/openai/v1/chat/completions", "tensorzero::model_name::mock-100x10", {"Authorization": f"Bearer {KEY}"})
    return Launch(argv, door, {"UPSTREAM_KEY": "sk-upstream"}, announced=r"http://127\.0\.0\.1:(\d+)/openai")


def ferro(site: Site) -> Launch:
    kind = "openai" if site.shape == "openai" else "anthropic"
    (site.folder / "config.json").write_text(json.dumps({"strategy": {"mode": "single"}, "targets": [{"virtual_key": kind}]}))
    env = {
        "GATEWAY_CONFIG": str(site.folder / "config.json"),
        "PORT": str(site.port),
        "MASTER_KEY": KEY,
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        f"{kind.upper()}_API_KEY": "sk-upstream",
        f"{kind.upper()}_BASE_URL": site.upstream.url,
    }
    model = "gpt-4o" if kind == "openai" else "claude-sonnet-4-5"  # it refuses names outside its catalogue
    return Launch([str(BENCH_BIN / "ferrogw"), "serve"], Door(site.port, model=model, headers={"Authorization": f"Bearer {KEY}"}), env)


def portkey(site: Site) -> Launch:
    headers = {"Authorization": "Bearer sk-upstream", "x-portkey-provider": site.shape, "x-portkey-custom-host": f"{site.upstream.url}/v1"}
    argv = ["node", str(PORTKEY), f"--port={site.port}", "--headless"]
    return Launch(argv, Door(site.port, headers=headers), {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"})


def litellm(site: Site) -> Launch:
    models = []
    for model in MODELS:
        base = f"{site.upstream.url}/v1" if site.shape == "openai" else site.upstream.url
        params = {"model": f"{site.shape}/{model}", "api_base": base, "api_key": "sk-upstream"}
        models.append({"model_name": model, "litellm_params": params})
    config = {"model_list": models, "general_settings": {"master_key": KEY}, "litellm_settings": {"telemetry": False}}
    (site.folder / "config.yaml").write_text(json.dumps(config))
    argv = [str(BENCH_BIN / "litellm"), "--config", str(site.folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(site.port)]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "DISABLE_SCHEMA_UPDATE": "true"}
    return Launch([*argv, "--num_workers", "1"], Door(site.port, headers={"Authorization": f"Bearer {KEY}"}), env)


EVERYTHING = frozenset({"plain", "stream", "translate", "tls"})

PEERS: tuple[Peer, ...] = (
    Peer("ours", "LLM Inference Gateway", ours, needs(Path(sys.executable).parent / "llm-gateway"), EVERYTHING),
    Peer("nginx", "nginx (plain proxy)", nginx, needs("nginx"), frozenset({"plain", "stream", "tls"})),
    Peer("envoy", "Envoy (plain proxy)", envoy, needs(BENCH_BIN / "envoy"), frozenset({"plain", "stream", "tls"})),
    Peer("tensorzero", "TensorZero", tensorzero, needs(BENCH_BIN.parent / "lib"), frozenset({"plain", "stream", "translate"})),
    Peer("ferro", "Ferro", ferro, needs(BENCH_BIN / "ferrogw"), frozenset({"plain", "stream", "translate"})),
    Peer("portkey", "Portkey", portkey, needs(PORTKEY), frozenset({"plain", "stream", "translate"})),
    Peer("litellm", "LiteLLM", litellm, needs(BENCH_BIN / "litellm"), frozenset({"plain", "stream", "translate"})),
)
