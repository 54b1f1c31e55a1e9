"""File and environment -> checked sections. The only place that knows which says what when both speak.

Law: reads files, never the process's environment, which is an argument. Prints nothing.

Precedence, later wins: defaults, config.yaml, the brief's variables (VARIABLES), LLM_GATEWAY__SECTION__OPTION. `check`
prints which variable set what. Two exceptions, so that a key never travels to a host it was not made for: a provider
that has keys of its own and points elsewhere than its service keeps them, and so does one with several `keys`.

Any text value, a variable's too, may hold `${VAR}`, `${VAR:-default}` (also if VAR is empty) and `$${` for a literal `${`; a value
`file:/path` is that file's content without surrounding white space. A provider's key whose variable is not set is no
key; anywhere else a variable that is not set is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from hashlib import sha256
from itertools import pairwise
from pathlib import Path as File
from typing import Any
from urllib.parse import urlsplit

import yaml
from msgspec import Struct
from pydantic import ValidationError

from llm_gateway.config.problems import WORDS, ConfigError, Path, Problem, dotted, explain, is_list, place
from llm_gateway.config.schema import Root
from llm_gateway.config.source import Source, parse
from llm_gateway.providers.table import SERVICES

REFERENCE = re.compile(r"\$\$(?=\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
PREFIX = "LLM_GATEWAY__"
VARIABLES: tuple[tuple[str, Path], ...] = (
    ("SERVER_HOST", ("server", "host")),
    ("SERVER_PORT", ("server", "port")),
    ("METRICS_PORT", ("server", "metrics_port")),
    ("RUST_LOG", ("logging", "level")),
    ("LOG_LEVEL", ("logging", "level")),
    ("REDIS_URL", ("redis", "url")),
    ("DATABASE_URL", ("database", "url")),
    ("LLM_GATEWAY_SECRET", ("secret",)),
    ("OPENAI_API_KEY", ("providers", "openai", "api_key")),
    ("ANTHROPIC_API_KEY", ("providers", "anthropic", "api_key")),
    ("AZURE_OPENAI_ENDPOINT", ("providers", "azure", "base_url")),
    ("AZURE_OPENAI_API_KEY", ("providers", "azure", "api_key")),
    ("GOOGLE_API_KEY", ("providers", "google", "api_key")),
)
ROUNDS = 50
MISSING = WORDS["missing"]
LONGEST_INDEX = 3  # digits of a list's entry in a variable's name


class Loaded(Struct):
    """What was read. `data`: as merged, before the schema. `where`: path -> place or variable. `files`: all that were read, and
    the SHA-256 of what stood in them, None where they could not be.

    `overrides`: (option, variable) pairs; `keyless`: provider -> the variable that would have held its key;
    `problems`: what the schema found, with `root` then holding what is left without it.
    """

    root: Root
    data: dict[str, Any]
    where: dict[Path, str]
    files: dict[str, bytes | None] = {}
    overrides: tuple[tuple[str, str], ...] = ()
    keyless: dict[str, str] = {}
    problems: tuple[Problem, ...] = ()


def load(path: str | None, environ: Mapping[str, str]) -> Loaded:
    """ConfigError where the file cannot be read or is no YAML; what the schema dislikes is in `problems`."""
    files: dict[str, bytes | None] = {}
    source = _read(path, files) if path is not None else Source({}, {(): "environment"})
    merge = _Merge(source, environ, files)
    merge.references(source.data, ())
    merge.variables()
    merge.prefixed()
    root, problems = _validate(source)
    return Loaded(
        root=root,
        data=source.data,
        where=source.where,
        files=files,
        overrides=tuple(merge.overrides),
        keyless=merge.keyless,
        problems=(*merge.problems, *problems),
    )


def content(name: str) -> bytes | None:
    """What a file holds, as `Loaded.files` says it."""
    try:
        return sha256(File(name).read_bytes()).digest()
    except (OSError, ValueError):
        return None


def _text(name: str, files: dict[str, bytes | None]) -> str:
    """And notes what was read. Raises OSError, ValueError."""
    files[name] = None
    data = File(name).read_bytes()
    files[name] = sha256(data).digest()
    return data.decode().replace("\r\n", "\n")


def _read(path: str, files: dict[str, bytes | None]) -> Source:
    try:
        text = _text(path, files)
    except OSError as error:
        raise ConfigError([Problem(path, "", f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(path, "", "is not UTF-8 text")]) from error
    return parse(text, path)


class _Merge:
    """Puts the environment over the file's data, in place, and remembers who said what."""

    def __init__(self, source: Source, environ: Mapping[str, str], files: dict[str, bytes | None]) -> None:
        self._source = source
        self._environ = environ
        self._files = files
        self.overrides: list[tuple[str, str]] = []
        self.keyless: dict[str, str] = {}
        self.problems: list[Problem] = []

    def references(self, value: Any, path: Path) -> None:
        """Replaces every reference under `value`."""
        entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        for name, inner in entries:
            here = (*path, name)
            if isinstance(inner, (dict, list)):
                self.references(inner, here)
            elif isinstance(inner, str):
                value[name] = self._resolve(inner, here)

    def _resolve(self, text: str, path: Path) -> str | None:
        if text.startswith("file:") and not text.startswith("file://"):
            return self._content(text.removeprefix("file:"), path)
        unset = [name for name in _names(text) if name not in self._environ]
        if unset and _is_key(path):
            self.keyless[str(path[1])] = unset[0]
            return None if path[2] == "api_key" else ""
        for name in unset:
            message = f"the variable {name} is not set"
            self.problems.append(Problem(self._place(path), dotted(path), message, f"${{{name}:-default}} allows that"))
        return REFERENCE.sub(self._substitute, text)

    def _substitute(self, found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if name is None:
            return "$"
        value = self._environ.get(name, "")
        return default if default is not None and not value else value

    def _content(self, name: str, path: Path) -> str | None:
        try:
            return _text(name, self._files).strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.problems.append(Problem(self._place(path), dotted(path), f"file {name} cannot be read: {reason}"))
            return None

    def variables(self) -> None:
        for name, path in VARIABLES:
            value = self._environ.get(name, "").strip()
            if value.startswith("tcp://"):
                continue  # Kubernetes says METRICS_PORT=tcp://10.0.0.1:80 to every pod beside a Service named `metrics`
            if value and self._concerns(path):
                self._set(path, value, name)

    def _concerns(self, path: Path) -> bool:
        """Whether a variable speaks of the section as the file describes it."""
        if path[0] != "providers":
            return True
        name = str(path[1])
        said = self._source.data.get("providers")
        if said is not None and not isinstance(said, dict):
            return False
        section = (said or {}).get(name)
        if not isinstance(section, dict):
            return True
        if section.get("type", name) != name or section.get("keys"):
            return False
        elsewhere = not same_host(section.get("base_url"), SERVICES[name].base_url)
        return path[2] != "api_key" or name == "azure" or not (elsewhere and section.get("api_key"))

    def prefixed(self) -> None:
        for name, value in sorted(self._environ.items()):
            if name.startswith(PREFIX):
                steps = name.removeprefix(PREFIX).lower().split("__")
                if all(steps):
                    self._set(self._match(steps), self._structured(value, name), name)

    def _structured(self, value: str, variable: str) -> Any:
        """Lists and mappings are written as YAML; all else stays text, which the schema reads as what it needs."""
        if not value.lstrip().startswith(("[", "{")):
            return value
        try:
            return yaml.load(value, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            self.problems.append(Problem(f"${variable}", "", "not YAML: quote what holds `:` or `#`"))
            return value

    def _match(self, steps: list[str]) -> Path:
        """Variables cannot spell `-` or capitals: a step takes the spelling of what the file already has."""
        path: Path = ()
        here: Any = self._source.data
        for step in steps:
            if step.isdecimal() and len(step) <= LONGEST_INDEX and (isinstance(here, list) or (here is None and is_list(path))):
                chosen: str | int = int(step)
            else:
                known = here if isinstance(here, dict) else {}
                chosen = next((key for key in known if _spelling(key) == _spelling(step)), step)
            here = _get(here, chosen)
            path = (*path, chosen)
        return path

    def _set(self, path: Path, value: Any, variable: str) -> None:
        here: Any = self._source.data
        for depth, (step, following) in enumerate(pairwise(path), 1):
            inner = _get(here, step)
            if not isinstance(inner, list if isinstance(following, int) else dict):
                if inner is not None and inner is not True:
                    self._refuse(path, depth, variable)
                    return
                # `true` is short for a section that says nothing but that it is there.
                inner = [] if isinstance(following, int) else {"enabled": True} if inner and step == "cache" else {}
                _put(here, step, inner)
                self._source.where.setdefault(path[:depth], f"${variable}")
            here = inner
        _put(here, path[-1], value)
        # Nothing below keeps the place it had in the file.
        for known in [known for known in self._source.where if known[: len(path)] == path]:
            del self._source.where[known]
        self._source.where[path] = f"${variable}"
        if isinstance(value, str):
            _put(here, path[-1], self._resolve(value, path))
        elif isinstance(value, (dict, list)):
            self.references(value, path)
        self.overrides = [pair for pair in self.overrides if pair[0] != dotted(path)] + [(dotted(path), variable)]

    def _refuse(self, path: Path, depth: int, variable: str) -> None:
        """What the file says there must not go silently."""
        kind = "list" if isinstance(path[depth], int) else "mapping (name: value)"
        message = f"expected a {kind}, since ${variable} sets {dotted(path)}"
        self.problems.append(Problem(self._place(path[:depth]), dotted(path[:depth]), message))

    def _place(self, path: Path) -> str:
        return place(path, self._source.where)


def same_host(one: object, other: str) -> bool:
    """An unset URL is the service's own."""
    try:
        return not isinstance(one, str) or urlsplit(one).hostname == urlsplit(other).hostname
    except ValueError:  # the schema says what is wrong with it
        return False


def _validate(source: Source) -> tuple[Root, list[Problem]]:
    """Takes out what the schema refuses until it accepts the rest, so that the rest is checked too."""
    data = deepcopy(source.data)
    problems: list[Problem] = []
    wrong: list[Path] = []
    for _ in range(ROUNDS):
        try:
            return Root.model_validate(data), problems
        except ValidationError as error:
            found = list(explain(error, source.where))
            # What was taken out is not missing: it was there, and wrong.
            gone = {path for path, new in found if new.message == MISSING and any(each[: len(path)] == path for each in wrong)}
            problems += [new for path, new in found if new not in problems and path not in gone]
            wrong += [path for path, _ in found]
            for path in sorted((path for path, _ in found), key=len, reverse=True):
                _remove(data, path)
    return Root(), problems


def _remove(data: dict[str, Any], path: Path) -> None:
    """Deletes what is at `path`, or the nearest thing around it that is there; a list goes as a whole."""
    around: dict[str, Any] | None = None
    last = ""
    here: Any = data
    for step in path:
        if not isinstance(here, dict) or step not in here:
            break
        around, last, here = here, str(step), here[step]
    if around is not None:
        del around[last]


def _names(text: str) -> list[str]:
    return [found["name"] for found in REFERENCE.finditer(text) if found["name"] and found["default"] is None]


def _is_key(path: Path) -> bool:
    """providers.NAME.api_key, providers.NAME.keys and what is below."""
    return len(path) >= 3 and path[0] == "providers" and path[2] in ("api_key", "keys")


def _spelling(name: object) -> str:
    return str(name).lower().replace("-", "_").replace(".", "_")


def _get(container: Any, step: str | int) -> Any:
    if isinstance(container, list) and isinstance(step, int):
        return container[step] if step < len(container) else None
    return container.get(step) if isinstance(container, dict) else None


def _put(container: Any, step: str | int, value: Any) -> None:
    if isinstance(container, list) and isinstance(step, int):
        container += [None] * (step + 1 - len(container))
        container[step] = value
    elif isinstance(container, dict):
        container[step] = value
