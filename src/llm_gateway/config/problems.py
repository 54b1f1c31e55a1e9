"""What is wrong with a configuration, in words that say where, what was expected and what may have been meant.

Law: no value ever stands in a message, since any value may be a secret; names of options do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llm_gateway.config.schema import LATER, Root
from llm_gateway.config.schema_json import options
from llm_gateway.config.schema_redis import SCHEMES

Path = tuple[str | int, ...]

# What pydantic finds -> what a person would say. Keys are pydantic's error types.
WORDS = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "decimal_type": "expected a number",
    "decimal_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text; put it in quotes",
    "dict_type": "expected a mapping (name: value)",
    "model_type": "expected a mapping (name: value)",
    "tuple_type": "expected a list",
    "too_short": "expected at least one entry",
    "string_too_short": "must not be empty",
}
BOUNDS = {
    "greater_than_equal": ("ge", "expected at least {}"),
    "less_than_equal": ("le", "expected at most {}"),
    "greater_than": ("gt", "expected more than {}"),
    "literal_error": ("expected", "expected one of {}"),
}
PATTERNS = {
    r"^(https?|echo)://[^\s/?#]+[^\s?#]*$": "expected a URL: http:// or https://, host, and no query",
    r"^http://[^\s/?#]+/?$": "expected http://[user:password@]host:port: proxies are asked by plain HTTP, whatever goes through them",
    r"^[^/\s]+/\S+$": "expected `provider/model`",
    "^[0-9a-f]{64}$": "expected 64 hexadecimal digits, as `llm-gateway keys hash` prints them",
    r"^[a-z0-9-]{1,63}$": "expected a region's name, such as eu-central-1",
    r"^(p\d\d|\d+(\.\d+)?\s*(ms|s|m|h)?)$": 'expected a quantile such as "p95", or seconds such as "2s"',
    r"^[a-z0-9*-]{1,63}$": "expected a region, an area such as eu, or a pattern such as eu-*",
    r"^[a-z0-9.:-]{1,100}$": "expected a project's id",
    "^[A-Z0-9]{16,128}$": "expected an access key id, as `llm-gateway keys new --aws` prints it",
    r"^(\*\.)?[a-z0-9._:-]+$": "expected a host in lower case, or `*.` and a domain",
    r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$": "expected a name of at most 100 letters, digits and . _ @ + -",
    "^arn:": "expected an ARN: arn:aws:iam::ACCOUNT:role/NAME",
    r"^/[!-~]*$": "expected a path: it begins with `/` and has no spaces",
    SCHEMES: "expected a URL: redis://host:port, rediss://..., unix:///path, redis+sentinel://host/master or redis+cluster://host",
    r"^(sqlite:///|postgres(ql)?://[^/])": "expected a URL: postgresql://user:password@host/name or sqlite:///file",
}


class Problem(Struct, frozen=True):
    """`where`: "config.yaml:12:5", or the variable that said it. `path`: "providers.openai.timeout_seconds"."""

    where: str
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        head = ": ".join(part for part in (self.where, self.path) if part)
        return f"{head}: {self.message}{f' ({self.hint})' if self.hint else ''}"


class ConfigError(Exception):
    """Everything that is wrong at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=_order))
        super().__init__("\n".join(map(str, self.problems)))


def _order(problem: Problem) -> tuple[str, int, int]:
    """By file, line and column; variables come first."""
    name, _, position = problem.where.partition(":")
    line, _, column = position.partition(":")
    return (name, int(line), int(column)) if line.isdigit() and column.isdigit() else (name, 0, 0)


def dotted(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """A question, or nothing."""
    found = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean `{found[0]}`?" if found else ""


def explain(error: ValidationError, where: Mapping[Path, str], root: type[BaseModel] = Root) -> Iterator[tuple[Path, Problem]]:
    """`where`: the place of each path, nearest ancestor wins; root: of what was validated."""
    found = error.errors(include_url=False, include_input=False)
    for details in found:
        path = tuple(details["loc"])
        if details["type"] == "too_short" and any(
            len(each["loc"]) > len(path) and each["loc"][: len(path)] == path for each in found
        ):
            continue  # it is short since its entries are broken
        message, hint = _say(details, path, root)
        yield path, Problem(place(path, where), dotted(path), message, hint)


def place(path: Path, where: Mapping[Path, str]) -> str:
    for end in range(len(path), -1, -1):
        if path[:end] in where:
            return where[path[:end]]
    return ""


def _say(details: ErrorDetails, path: Path, root: type[BaseModel]) -> tuple[str, str]:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(path, root)
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "string_pattern_mismatch":
        return PATTERNS[context["pattern"]], ""
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return words.format(context[bound]), ""
    return WORDS.get(kind, details["msg"]), ""


def _unknown(path: Path, root: type[BaseModel]) -> tuple[str, str]:
    name = str(path[-1])
    if root is Root and _matches_later(path):
        return "not supported by this version", "remove it: nothing here would enforce it"
    known = fields(path[:-1], root)
    hint = nearest(name, known)
    if not hint and root is not Root:
        return "unknown option", f"known here: {', '.join(known)}"
    if not hint:
        elsewhere = [found for found, _, _ in options() if found.rpartition(".")[2] == name]
        hint = f"did you mean `{elsewhere[0]}`?" if elsewhere else f"known here: {', '.join(known)}"
    return "unknown option", hint


def _matches_later(path: Path) -> bool:
    steps = tuple(map(str, path))
    return any(
        len(steps) == len(pattern) and all(want in ("*", got) for want, got in zip(pattern, steps, strict=True))
        for pattern in (tuple(each.split(".")) for each in LATER)
    )


def fields(path: Path, root: type[BaseModel] = Root) -> list[str]:
    """The options of the section at `path`."""
    model = _model(_kind(path, root))
    return list(model.model_fields) if model else []


def is_list(path: Path) -> bool:
    """Whether a list belongs at `path`."""
    kind = _kind(path, Root)
    return any(get_origin(each) is tuple for each in (kind, *get_args(kind)))


def _kind(path: Path, root: type[BaseModel]) -> Any:
    kind: Any = root
    for step in path:
        kind = _step(kind, step)
    return kind


def _step(kind: Any, step: str | int) -> Any:
    model = _model(kind)
    if model is not None:
        field = model.model_fields.get(str(step))
        return field.annotation if field else None
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[1]
    if get_origin(kind) is tuple:
        return arguments[0]
    return None


def _model(kind: Any) -> type[BaseModel] | None:
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            if get_origin(kind) in (dict, tuple):
                return None
            return part
    return None
