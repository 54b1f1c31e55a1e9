"""Sections about what outlives the processes, judged: which database, and what has to be said when it is a shared one.

Law: nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path

from llm_gateway.config import schema
from llm_gateway.config.load import Loaded
from llm_gateway.config.problems import Problem, dotted, place
from llm_gateway.config.snapshot import Database

FILE = "gateway.db"
SQLITE = "sqlite:///"


def resolve(loaded: Loaded) -> tuple[Database, list[Problem]]:
    """With PostgreSQL the secret must be given: what one replica hashes, another must know."""
    root = loaded.root
    problems = []
    if shared(root) and root.secret is None:
        hint = "set LLM_GATEWAY_SECRET to the same 16 characters or more on every replica: echo $(openssl rand -hex 32)"
        problems.append(Problem(place(("database", "url"), loaded.where), dotted(("secret",)), "is needed with PostgreSQL", hint))
    made = Database(address(root), root.journal.keep, root.usage.keep_days, root.usage.keep_sums_days, root.database.keep_removed_days)
    return made, problems


def address(root: schema.Root) -> str:
    """Relative files are meant from the working directory."""
    url = root.database.url
    if url is None:
        return f"{SQLITE}{Path(root.data_dir, FILE).absolute()}"
    return f"{SQLITE}{Path(url.removeprefix(SQLITE)).absolute()}" if url.startswith(SQLITE) else url


def shared(root: schema.Root) -> bool:
    """Whether other gateways may use the same database."""
    return root.database.url is not None and not root.database.url.startswith(SQLITE)
