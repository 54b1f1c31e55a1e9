"""A compiled configuration in words: the banner of `serve`, the report of `check`.

Law: text out; no secret but the development key, which is made to be shown.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from llm_gateway.config import clouds
from llm_gateway.config.load import Loaded
from llm_gateway.config.material import Material
from llm_gateway.config.snapshot import Alias, Provider, Snapshot, Target
from llm_gateway.models.catalogue import Catalogue

FIRST_MODELS = ("gpt-4", "claude-3-sonnet")  # the brief's own examples
ANY_ADDRESS = ("0.0.0.0", "::", "")


def banner(snapshot: Snapshot, material: Material, catalogue: Catalogue) -> str:
    """Ports stand as `{port}` and `{metrics_port}` until they are bound."""
    listener = snapshot.server.listeners[0]
    api = f"{'https' if listener.tls else 'http'}://{_host(listener.host)}:{{port}}"
    lines = [
        f"LLM Inference Gateway {snapshot.version}",
        f"  API      {api}/v1",
        f"  Metrics  http://{_host(listener.host)}:{{metrics_port}}/metrics",
        f"  Serving  {', '.join(provider.name for provider in snapshot.providers)}",
    ]
    key = "YOUR_API_KEY"
    if material.development_key is not None:
        key = material.development_key
        lines.append(f"  Key      {key}  (for development, kept in {snapshot.data_dir})")
    authorization = f" -H 'Authorization: Bearer {key}'" if snapshot.auth_required else ""
    body = f'{{"model": "{_example(snapshot, catalogue)}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    curl = f"curl {api}/v1/chat/completions -H 'Content-Type: application/json'{authorization} -d '{body}'"
    return "\n".join([*lines, "  Try", f"    {curl}", ""]) + "\n"


def interpreter() -> str:
    """What is to be said of the Python that runs this; "" for nothing."""
    if not plainly_built(sysconfig.get_config_var("CONFIG_ARGS"), sys.base_prefix):
        return ""
    return (
        f"{sys.base_prefix} has a Python compiled without optimizations (--enable-optimizations): a request costs it a fourth more CPU than"
        " your distribution's"
    )


def plainly_built(configure: str | None, prefix: str) -> bool:
    """Whether a Python was compiled without profile-guided optimization, as pyenv does unless it is told. configure: its arguments;
    prefix: where it is installed. Distributions optimize in ways of their own, which show in no argument; so do conda's builds."""
    return bool(configure) and "--enable-optimizations" not in str(configure) and prefix != "/usr" and not Path(prefix, "conda-meta").is_dir()


def _host(host: str) -> str:
    if host in ANY_ADDRESS:
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _example(snapshot: Snapshot, catalogue: Catalogue) -> str:
    """A model that somebody here serves."""
    if snapshot.aliases:
        return snapshot.aliases[0].name
    if snapshot.default_provider is not None:
        return FIRST_MODELS[0]
    served = {kind for provider in snapshot.providers for kind in (provider.name, provider.type)}
    for model in FIRST_MODELS:
        known = catalogue.resolve(model)
        if known is not None and known[0] in served:
            return model
    provider = snapshot.providers[0]
    listed = catalogue.models(provider.type)
    return f"{provider.name}/{listed[0].id if listed else 'MODEL'}"


def report(name: str, loaded: Loaded, snapshot: Snapshot, warnings: tuple[str, ...]) -> str:
    """What `check` prints."""
    blocks = [
        [f"{name}: valid"],
        ["", "Providers", *(_provider(provider) for provider in snapshot.providers)],
        ["", "Models", *(line for alias in snapshot.aliases for line in _alias(alias))] if snapshot.aliases else [],
        ["", _rest(snapshot)],
        ["", "Set by environment", *(f"  {option} by {variable}" for option, variable in loaded.overrides)]
        if loaded.overrides
        else [],
        ["", "Warnings", *(f"  {warning}" for warning in warnings)] if warnings else [],
    ]
    return "\n".join(line for block in blocks for line in block)


def _provider(provider: Provider) -> str:
    keys = f"{len(provider.keys)} key{'s' if len(provider.keys) != 1 else ''}" if provider.cloud is None else clouds.named(provider.cloud)
    kind = "" if provider.type == provider.name else f" ({provider.type})"
    return f"  {provider.name}{kind}  {_anonymous(provider.base_url)}  {keys}"


def _anonymous(url: str) -> str:
    """Without a name and password in it."""
    login = "".join(urlsplit(url).netloc.rpartition("@")[:2])
    return url.replace(login, "", 1) if login else url


def _alias(alias: Alias) -> Iterator[str]:
    yield f"  {alias.name} -> {_chain(alias.targets)}"
    if alias.fallbacks:
        yield f"    then {_chain(alias.fallbacks)}"


def _chain(targets: tuple[Target, ...]) -> str:
    return ", ".join(f"{target.provider}/{target.model}" for target in targets)


def _rest(snapshot: Snapshot) -> str:
    if snapshot.default_provider is not None:
        return f"Any other model goes to {snapshot.default_provider}."
    return "Any other model: `provider/model`, or a well-known name whose provider is listed above."
