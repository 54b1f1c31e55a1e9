"""Shared by all tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore = [] if find_spec("litellm") else ["clients"]  # `make clients` has them, in an environment of their own


@pytest.fixture(scope="session")
def checkout() -> Path:
    return Path(__file__).parents[1]
