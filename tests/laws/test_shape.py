"""How the code may look, as STYLE of this project asks; every number here is one that good codebases keep."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "llm_gateway"
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [pytest.param(path, id=str(path.relative_to(SOURCE))) for path in FILES]

LONGEST_FILE = 500
LONGEST_FUNCTION = 60
P99_FUNCTION = 50
MEDIAN_FUNCTION = 8
MOST_PARAMETERS = 6  # positional, without self; keyword-only ones name themselves

# What a class may inherit. Everything else composes.
BASES = {
    "Protocol", "Struct", "Enum", "Exception", "NamedTuple", "TypedDict", "Generic",
    "BaseModel", "Section", "Rates", "Grant", "KeyBody",  # pydantic's way to say a section, and that it has another's options too
    "asyncio.Protocol", "asyncio.BufferedProtocol", "Plugin",
}  # fmt: skip
VAGUE = re.compile(r"(Manager|Handler|Util|Utils|Helper|Helpers|Service)$")
A_TABLE_ROW = {"providers/table.py": {"Service"}}  # a service that is sold, not a vague word


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (each for each in ast.walk(node) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)))


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", MODULES)
def test_functions_are_short_and_take_few_parameters(path):
    for function in functions(tree(path)):
        assert length(function) <= LONGEST_FUNCTION, function.name
        positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        taken = len(positional) - (positional[:1] in (["self"], ["cls"]))
        assert taken <= MOST_PARAMETERS, function.name


def test_functions_are_short_as_a_whole():
    lengths = sorted(length(function) for path in FILES for function in functions(tree(path)))
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(len(lengths) * 0.99)] <= P99_FUNCTION


@pytest.mark.parametrize("path", MODULES)
def test_a_module_opens_with_what_it_is(path):
    if path.name == "__init__.py" and not path.read_text().strip():
        return
    assert len(ast.get_docstring(tree(path)) or "") > 20


@pytest.mark.parametrize("path", MODULES)
def test_imports_stand_at_the_top(path):
    for function in functions(tree(path)):
        if not function.name.startswith("load_"):  # optional extras
            inner = [each for each in ast.walk(function) if isinstance(each, (ast.Import, ast.ImportFrom))]
            assert not inner, f"{function.name} imports"


@pytest.mark.parametrize("path", MODULES)
def test_nothing_is_global(path):
    assert not [each for each in ast.walk(tree(path)) if isinstance(each, ast.Global)]


@pytest.mark.parametrize("path", MODULES)
def test_classes_inherit_nothing_but_a_protocol_or_a_kind_of_value(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                name = ast.unparse(base).partition("[")[0].removeprefix("msgspec.")
                assert name in BASES or name.endswith(("Error", "Protocol")), f"{node.name}({name})"


@pytest.mark.parametrize("path", MODULES)
def test_names_say_what_a_thing_is(path):
    allowed = A_TABLE_ROW.get(str(path.relative_to(SOURCE)), set())
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef) and node.name not in allowed:
            assert not VAGUE.search(node.name)


@pytest.mark.parametrize("path", MODULES)
def test_errors_are_caught_narrowly_and_never_silently(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type is not None else "everything"
            raises_on = isinstance(node.body[-1], ast.Raise)
            assert caught not in ("everything", "BaseException") or raises_on, f"line {node.lineno}"
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"line {node.lineno}: pass"


def test_every_package_is_tested():
    tests = "\n".join(path.read_text() for path in SOURCE.parents[1].joinpath("tests").rglob("*.py"))
    packages = {
        path.parent.relative_to(SOURCE).parts[0]
        for path in FILES
        if path.parent != SOURCE and path.name != "__init__.py"
    }
    assert {
        name for name in packages if not re.search(rf"llm_gateway\.{name}\b|from llm_gateway import {name}\b", tests)
    } == set()
