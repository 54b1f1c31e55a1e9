"""Tables and names in the documents are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs.blocks import PAGES, ROOT, blocks
from llm_gateway import __version__, wiring
from llm_gateway.accounting.ledger import Row
from llm_gateway.core.errors import Kind
from llm_gateway.formats.contract import Outgoing
from llm_gateway.ingress.routes import EXACT
from llm_gateway.policies.retry import OURS, PASSING
from llm_gateway.providers import registry
from llm_gateway.providers.contract import Account
from llm_gateway.telemetry.exposition import Merger
from llm_gateway.telemetry.families import FAMILIES

SOURCE = ROOT / "src" / "llm_gateway"


def page(name: str) -> str:
    return (ROOT / name).read_text()


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| ")]


def test_every_kind_of_error_has_its_row() -> None:
    told = {(row[0], row[1], row[3]) for row in rows(page("docs/errors.md")) if len(row) == 5}
    for kind in Kind:
        again = "same, then next" if kind in PASSING else "next" if kind in OURS else "no"
        assert (str(kind.status), f"`{kind.code}`", again) in told, kind


def test_every_more_exact_code_is_told() -> None:
    exact = {code for path in SOURCE.rglob("*.py") for code in re.findall(r'code="([a-z_]+)"', path.read_text())}
    unseen = {"upstream_stale"}  # always retried; a client sees what comes of that
    text = page("docs/errors.md")
    assert [code for code in sorted(exact - unseen) if f"`{code}`" not in text] == []


def test_every_metric_has_its_row() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(page("docs/metrics.md")) if len(row) == 4 and row[0] != "Name"}
    assert told == {name: family.type for name, family in FAMILIES.items()}


def test_the_queries_name_real_metrics() -> None:
    names = {
        sample.removesuffix("_bucket")
        for sample in re.findall(r"\b(?:http|llm|redis|cache)_[a-z_]+\b", page("docs/metrics.md") + page("docs/journal.md"))
    }
    assert {name for name in names if name not in FAMILIES and not name.startswith("cache_") and name != "llm_gateway"} == set()
    assert list(text_string_to_metric_families(Merger().render({})))


def test_every_field_of_a_row_is_told() -> None:
    text = "".join(row[0] for row in rows(page("docs/journal.md")))
    assert [name for name in Row.__struct_fields__ if f"`{name}`" not in text] == []


def test_every_file_named_in_a_walk_is_there() -> None:
    for name in ("docs/life-of-a-request.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for path in re.findall(r"`((?:[\w-]+/)+(?:[\w-]+\.\w+)?|[a-z_]+\.py)`", page(name)):
            assert (ROOT / path).exists() or (SOURCE / path).exists(), f"{name}: {path}"


def test_every_function_named_in_the_walk_is_there() -> None:
    code = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for name in ("gate", "serve", "identify", "peek", "attempt", "forward", "read_request", "write_request", "address", "settle", "read"):
        assert f"def {name}(" in code
    text = page("docs/life-of-a-request.md")
    for name in re.findall(r"`(?:\w+\.)?([a-z_]+)`", text):
        assert re.search(rf"\b{name}\b", code + page("docs/configuration.md")) or Path(SOURCE / name).exists(), name


def test_every_path_of_the_api_is_in_the_changelog_or_readme() -> None:
    text = page("README.md") + page("CHANGELOG.md")
    for path in EXACT:
        assert path.decode().rpartition("/")[2] in text, path


def test_the_version_is_the_changelogs_newest() -> None:
    newest = re.search(r"^## (\S+)", page("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_the_license_says_the_briefs_points() -> None:
    text = page("LICENSE.md")
    for point in ("LLM Dev Ops Commercial License", "ommercial use requires", "valuation", "on-commercial", "nterprise support", "licensing@llmdevops.com"):
        assert point in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_names_a_place_of_one_machine(path: Path) -> None:
    assert not re.search(r"/(?:work|root|home)/", path.read_text())


def test_a_provider_is_one_file_a_row_and_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING's class, as it stands there, answers the registry and reaches a request's bytes."""
    (text,) = [block.text for block in blocks() if block.page == "CONTRIBUTING.md" and "class Example" in block.text]
    scope: dict[str, type] = {}
    exec(compile(text, "CONTRIBUTING.md", "exec"), scope)  # noqa: S102  our own document
    example = scope["Example"]()
    account = Account(provider="example", type="example", root="/v1", key="k")
    wire = example.address(Outgoing(b"{}", "/chat/completions"), account, "m", 0.0)
    assert (wire.path, wire.body) == (b"/v1/chat/completions?token=k", b"{}")
    assert set(example.formats("chat", "m")) <= wiring.formats().keys()
    assert example.probe(account) is None
    fault = example.fault(wiring.formats()["openai_chat"], 503, {}, b"", 0.0)
    assert fault.kind is Kind.OVERLOADED
    source = Path(registry.__file__).read_text()
    assert source.count("case ") == len(set(re.findall(r"return (\w+)\(", source))), "one case for each way of knocking"
