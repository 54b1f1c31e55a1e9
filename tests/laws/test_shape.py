"""How the code may look, as STYLE of this project asks; every number here is one that good codebases keep.

One test for each law, over all files, which are read once: what breaks it is named, all of it.
"""

from __future__ import annotations

import ast
import gc
import re
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "llm_gateway"
FILES = sorted(SOURCE.rglob("*.py"))

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


@cache
def tree(path: Path) -> ast.Module:
    gc.disable()  # what is collected in the midst of it, generators of other tests, has CPython 3.11 call it a recursion that does not add up
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def found(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these kinds, with where it stands."""
    return ((f"{path.relative_to(SOURCE)}:{node.lineno}", node) for path in FILES for node in nodes(path) if isinstance(node, kinds))


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return ((f"{where} {node.name}", node) for where, node in found(ast.FunctionDef, ast.AsyncFunctionDef))


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    positional = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    return len(positional) - (positional[:1] in (["self"], ["cls"]))


def test_there_is_code_to_look_at():
    assert len(FILES) > 200
    assert sum(1 for _ in functions()) > 2000


def test_files_are_short():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_functions_are_short():
    assert {where: length(function) for where, function in functions() if length(function) > LONGEST_FUNCTION} == {}


def test_functions_take_few_parameters():
    assert {where: parameters(function) for where, function in functions() if parameters(function) > MOST_PARAMETERS} == {}


def test_functions_are_short_as_a_whole():
    lengths = sorted(length(function) for _, function in functions())
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert lengths[int(len(lengths) * 0.99)] <= P99_FUNCTION


def test_a_module_opens_with_what_it_is():
    said = {str(path.relative_to(SOURCE)): ast.get_docstring(tree(path)) or "" for path in FILES if path.name != "__init__.py" or tree(path).body}
    assert [name for name, law in said.items() if len(law) <= 20] == []


def test_imports_stand_at_the_top():
    """But for those of optional extras, each in a function that says so by its name."""
    inner = (
        f"{where} imports"
        for where, function in functions()
        if not function.name.startswith("load_") and any(isinstance(each, (ast.Import, ast.ImportFrom)) for each in ast.walk(function))
    )
    assert [*inner] == []


def test_nothing_is_global():
    assert [where for where, _ in found(ast.Global)] == []


def test_classes_inherit_nothing_but_a_protocol_or_a_kind_of_value():
    inherited = (
        (where, node.name, ast.unparse(base).partition("[")[0].removeprefix("msgspec."))
        for where, node in found(ast.ClassDef)
        for base in node.bases
    )
    assert [f"{where} {name}({base})" for where, name, base in inherited if base not in BASES and not base.endswith(("Error", "Protocol"))] == []


def test_names_say_what_a_thing_is():
    vague = ((where, node.name) for where, node in found(ast.ClassDef) if VAGUE.search(node.name))
    assert [f"{where} {name}" for where, name in vague if name not in A_TABLE_ROW.get(where.partition(":")[0], ())] == []


def test_errors_are_caught_narrowly():
    wide = (
        f"{where} catches {ast.unparse(node.type) if node.type is not None else 'everything'}"
        for where, node in found(ast.ExceptHandler)
        if (node.type is None or ast.unparse(node.type) == "BaseException") and not isinstance(node.body[-1], ast.Raise)
    )
    assert [*wide] == []


def test_errors_are_never_silent():
    assert [where for where, node in found(ast.ExceptHandler) if len(node.body) == 1 and isinstance(node.body[0], ast.Pass)] == []


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
