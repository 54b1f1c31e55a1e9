"""YAML text -> plain data and the place of everything in it.

Law: syntax only; what the data means is the schema's. Keys are taken as written, so that `on:` or `4:` is a name. A key
given twice is an error: YAML would silently keep the last.
"""

from __future__ import annotations

from typing import Any

import yaml
from msgspec import Struct

from llm_gateway.config.problems import ConfigError, Path, Problem, dotted

DEPTH = 32


class Source(Struct):
    """`where`: path -> "file:line:column" of the option's name, or of the list entry."""

    data: dict[str, Any]
    where: dict[Path, str]


def parse(text: str, name: str) -> Source:
    """ConfigError on anything that is no YAML mapping. `name`: how messages call the file."""
    reader = _Reader(name)
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        data = reader.build(loader, node, ()) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        raise ConfigError([Problem(where, "", f"not YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(name, "", "not YAML: it holds characters that YAML does not allow")]) from error
    finally:
        loader.dispose()
    if data is None:
        data = {}
    if not isinstance(data, dict):
        reader.problems.append(Problem(f"{name}:1:1", "", "expected a mapping (name: value) at the top"))
    if reader.problems:
        raise ConfigError(reader.problems)
    return Source(data, {(): f"{name}:1:1", **reader.where})


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self.where: dict[Path, str] = {}
        self.problems: list[Problem] = []

    def build(self, loader: yaml.CSafeLoader, node: yaml.Node, path: Path) -> Any:
        if len(path) > DEPTH:
            self._complain(node, path, "nested too deeply, or an anchor that holds itself")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._entry(loader, child, (*path, index)) for index, child in enumerate(node.value)]
        return loader.construct_object(node)

    def _mapping(self, loader: yaml.CSafeLoader, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        written = [key.value for key, _ in node.value]
        loader.flatten_mapping(node)  # puts what `<<` brings first, so that own keys win
        own = len(node.value) - (len(written) - written.count("<<"))
        built: dict[str, Any] = {}
        for position, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                self._complain(key, path, "expected a name")
                continue
            name = str(key.value)
            here = (*path, name)
            if name in built and position >= own and name in written[: position - own]:
                self._complain(key, here, f"given twice; first at {self.where[here]}")
                continue
            self.where[here] = self._mark(key)
            built[name] = self.build(loader, value, here)
        return built

    def _entry(self, loader: yaml.CSafeLoader, node: yaml.Node, path: Path) -> Any:
        self.where[path] = self._mark(node)
        return self.build(loader, node, path)

    def _mark(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _complain(self, node: yaml.Node, path: Path, message: str) -> None:
        self.problems.append(Problem(self._mark(node), dotted(path), message))
