"""Every row of the table, knocked at: URL and headers, golden; with base URLs as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from llm_gateway.config.load import load
from llm_gateway.config.upstreams import resolve
from llm_gateway.formats.contract import Outgoing
from llm_gateway.providers.contract import Account
from llm_gateway.providers.registry import provider
from llm_gateway.providers.table import SERVICES, sells

GOLDEN = json.loads(Path(__file__).with_name("addresses.json").read_text())
CHAT = Outgoing(b'{"model":"m","messages":[]}', "/chat/completions")
MESSAGES = Outgoing(b'{"model":"m"}', "/messages")
CONTENT = Outgoing(b'{"contents":[]}', "/models/m:generateContent")
EMBEDDINGS = Outgoing(b'{"model":"m","input":"x"}', "/embeddings")
CONVERSE = Outgoing(b'{"messages":[]}', "/model/m/converse")
LINES = Outgoing(b'{"model":"m"}', "/api/chat")
OUTGOING = {
    "openai_embeddings": EMBEDDINGS, "bedrock_converse": CONVERSE, "ollama_chat": LINES,
    "openai_chat": CHAT, "anthropic_messages": MESSAGES, "gemini": CONTENT,
}  # fmt: skip
UNPROBED = {"bedrock"}  # its host does nothing but run models, for money
AZURE = "https://example.openai.azure.com"


def account(kind: str, base_url: str = "", **more: object) -> Account:
    root = SERVICES[kind].root(base_url or SERVICES[kind].base_url)
    return Account(**{"provider": kind, "type": kind, "root": root, "key": "sk-x", "key_id": "0"} | more)  # type: ignore[arg-type]


def knock(kind: str, base_url: str = "", model: str = "m", form: str = "", **more: object) -> dict[str, object]:
    """form: as which the client speaks, where that is not the provider's first."""
    speaker = provider(kind)
    form = form or (*speaker.formats("chat", model), *speaker.formats("embeddings", model))[0]
    outgoing = OUTGOING[form]
    wire = speaker.address(outgoing, account(kind, base_url, **more), model, 0.0)
    url = urlsplit(base_url or SERVICES[kind].base_url)
    return {
        "format": form,
        "url": f"{wire.method.decode()} {url.scheme}://{url.netloc}{wire.path.decode()}",
        "headers": {name.decode(): value.decode() for name, value in wire.headers},
    }


@pytest.mark.parametrize("kind", SERVICES)
def test_each_service_is_reached_where_its_documentation_says(kind: str) -> None:
    base_url = AZURE if kind == "azure" else ""
    assert knock(kind, base_url) == GOLDEN[kind]


def test_no_golden_address_is_left_over() -> None:
    assert sorted(GOLDEN) == sorted(SERVICES)


@pytest.mark.parametrize(
    ("kind", "base_url", "path"),
    [
        ("openai", "https://api.openai.com", "/v1/chat/completions"),
        ("openai", "https://api.openai.com/", "/v1/chat/completions"),
        ("openai", "https://api.openai.com/v1", "/v1/chat/completions"),
        ("openai", "https://api.openai.com/v1/", "/v1/chat/completions"),
        ("openai", "https://proxy.example/team/v1", "/team/v1/chat/completions"),
        ("openai_compatible", "http://127.0.0.1:8000/v1", "/v1/chat/completions"),
        ("openai_compatible", "http://127.0.0.1:8000", "/v1/chat/completions"),
        ("vllm", "http://10.0.0.7:8000", "/v1/chat/completions"),
        ("anthropic", "https://api.anthropic.com", "/v1/messages"),
        ("anthropic", "https://api.anthropic.com/v1", "/v1/messages"),
        ("anthropic", "https://proxy.example/anthropic", "/anthropic/v1/messages"),
        ("groq", "https://api.groq.com", "/openai/v1/chat/completions"),
        ("deepseek", "https://api.deepseek.com", "/chat/completions"),
        ("deepseek", "https://api.deepseek.com/v1", "/v1/chat/completions"),
        ("google", "https://generativelanguage.googleapis.com", "/v1beta/models/m:generateContent"),
        ("google", "https://generativelanguage.googleapis.com/v1beta/openai", "/v1beta/models/m:generateContent"),
        ("gemini", "https://proxy.example/google/v1", "/google/v1/models/m:generateContent"),
        ("azure", AZURE, "/openai/v1/chat/completions"),
        ("azure", f"{AZURE}/openai", "/openai/v1/chat/completions"),
        ("azure", f"{AZURE}/openai/v1/", "/openai/v1/chat/completions"),
        ("azure", f"{AZURE}/behind/apim", "/behind/apim/openai/v1/chat/completions"),
    ],
)
def test_a_base_url_is_taken_with_and_without_its_path(kind: str, base_url: str, path: str) -> None:
    assert urlsplit(str(knock(kind, base_url)["url"]).partition(" ")[2]).path == path


def test_azure_by_deployment_and_version() -> None:
    said = knock("azure", AZURE, "gpt-4o", api_version="2024-10-21", deployments={"gpt-4o": "my deployment/eu"})
    assert said["url"] == f"POST {AZURE}/openai/deployments/my%20deployment%2Feu/chat/completions?api-version=2024-10-21"
    assert said["headers"] == {"api-key": "sk-x"}


def test_azure_takes_a_token_of_entra_as_a_bearer() -> None:
    assert knock("azure", AZURE, key="eyJ0", token=True)["headers"] == {"authorization": "Bearer eyJ0"}
    probe = provider("azure").probe(account("azure", AZURE, key="eyJ0", token=True))
    assert probe is not None
    assert dict(probe.headers) == {b"authorization": b"Bearer eyJ0"}


@pytest.mark.parametrize(("version", "query"), [(None, ""), ("v1", ""), ("preview", "?api-version=preview")])
def test_azure_v1_names_the_deployment_in_the_body(version: str | None, query: str) -> None:
    speaker = provider("azure")
    asked = Outgoing(b'{"messages":[{"role":"user","content":"\\u00e9"}],"model":"gpt-4o","new":{"a":1.0}}', "/chat/completions")
    owner = account("azure", AZURE, api_version=version, deployments={"gpt-4o": "eu"})
    wire = speaker.address(asked, owner, "gpt-4o", 0.0)
    assert wire.path.decode() == f"/openai/v1/chat/completions{query}"
    assert wire.body == asked.body.replace(b'"gpt-4o"', b'"eu"'), "all else stays as the client wrote it"
    assert speaker.address(asked, owner, "other", 0.0).body is asked.body


@pytest.mark.parametrize("kind", SERVICES)
def test_address_is_pure_and_leaves_the_body_alone_where_it_says_so(kind: str) -> None:
    speaker = provider(kind)
    owner = account(kind, AZURE if kind == "azure" else "")
    first, second = (speaker.address(CHAT, owner, "m", now) for now in (0.0, 9e9))
    assert (first.path, first.headers, first.body) == (second.path, second.headers, second.body)
    if speaker.static:
        assert first.body is CHAT.body


@pytest.mark.parametrize("kind", sorted(SERVICES.keys() - UNPROBED))
def test_a_probe_is_a_get_without_a_body_at_the_same_root(kind: str) -> None:
    owner = account(kind, AZURE if kind == "azure" else "")
    probe = provider(kind).probe(owner)
    assert probe is not None
    assert (probe.method, probe.body) == (b"GET", b"")
    assert probe.path.decode().startswith(owner.root.removesuffix("/v1"))
    assert any(b"sk-x" in value for _, value in probe.headers)


def test_the_client_may_choose_anthropics_version() -> None:
    speaker, owner = provider("anthropic"), account("anthropic", api_version="2024-01-01")
    plain = dict(speaker.address(MESSAGES, owner, "m", 0.0).headers)
    assert plain[b"anthropic-version"] == b"2024-01-01"
    chosen = Outgoing(b"{}", "/messages", headers=((b"anthropic-version", b"2023-06-01"),))
    assert b"anthropic-version" not in dict(speaker.address(chosen, owner, "m", 0.0).headers)


def test_configured_headers_come_along_and_no_key_is_no_header() -> None:
    owner = account("vllm", key="", headers=((b"x-team", b"blue"),))
    assert provider("vllm").address(CHAT, owner, "m", 0.0).headers == ((b"x-team", b"blue"),)


def test_a_kind_the_table_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        provider("nobody")


def test_rows_are_plausible() -> None:
    names: dict[str, str] = {}
    for kind, service in SERVICES.items():
        assert "/" not in kind
        assert not service.base_url.endswith("/")
        assert service.keyless or service.key_env or service.cloud or kind == "echo", kind
        for variable in service.key_env if service.implied else ():
            assert variable == variable.upper()
            assert names.setdefault(variable, kind) == kind, f"{variable} belongs to two rows"
        if service.base_url and kind != "echo":
            url = urlsplit(service.base_url)
            assert url.scheme == "https" or url.hostname == "localhost"


def test_a_compatible_provider_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CONTRIBUTING promises: a row, nothing else, and the configuration knows it."""
    from llm_gateway.config.compile import compile_snapshot
    from llm_gateway.config.material import imagined
    from llm_gateway.models.catalogue import load_catalogue
    from llm_gateway.providers.table import Service

    row = Service(base_url="https://api.example.com/v1", key_env=("EXAMPLE_API_KEY",))
    monkeypatch.setitem(SERVICES, "example", row)
    environ = {"EXAMPLE_API_KEY": "sk-example"}
    loaded = load(None, environ)
    made = compile_snapshot(loaded, environ, imagined(loaded.root), load_catalogue().resolve, 1).snapshot
    (found,) = made.providers
    assert (found.name, found.type, found.base_url, found.keys[0].value) == ("example", "example", row.base_url, "sk-example")
    assert knock("example")["url"] == "POST https://api.example.com/v1/chat/completions"


if __name__ == "__main__":  # writes the golden file; read the difference before committing it
    told = {kind: knock(kind, AZURE if kind == "azure" else "") for kind in SERVICES}
    Path(__file__).with_name("addresses.json").write_text(msgspec.json.format(json.dumps(told), indent=2) + "\n")


def test_google_passes_openais_shape_to_its_own_endpoint_of_it_and_gemini_does_not() -> None:
    assert "openai_chat" in provider("google").formats("chat", "m")
    assert "openai_chat" not in provider("gemini").formats("chat", "m")
    said = knock("google", form="openai_chat")
    assert said["url"] == "POST https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"
    assert said["headers"] == {"authorization": "Bearer sk-x"}
    old = "https://generativelanguage.googleapis.com/v1beta/openai"  # how it had to be written before
    assert knock("google", old, form="openai_chat") == said


def test_one_google_key_makes_one_provider_and_gemini_names_reach_either() -> None:
    found = resolve(load(None, {"GEMINI_API_KEY": "k"}), {"GEMINI_API_KEY": "k"})
    assert [each.name for each in found.providers] == ["google"]
    assert sells("gemini", "google")
    assert sells("google", "google")
    assert not sells("openai", "google")
    assert not sells("vllm", "lmstudio")
    assert not sells("openai", "voyage")
