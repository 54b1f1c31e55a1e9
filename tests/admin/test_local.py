"""A socket that only its owner may use, there for as long as its operator is."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from llm_gateway.admin.local import listening


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "admin.sock"


def test_it_is_there_while_the_block_lasts_and_for_its_owner_only(path: Path) -> None:
    with listening(path) as (sock,):
        connect(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        sock.close()
    assert [*path.parent.iterdir()] == []


def test_what_a_dead_operator_left_behind_is_replaced_and_a_successors_stays(path: Path) -> None:
    with listening(path) as (dead,):
        dead.close()
        with pytest.raises(ConnectionRefusedError):
            connect(path)
        with listening(path) as (sock,):
            connect(path)
            sock.close()
        assert not path.exists()
    with listening(path) as (first,), listening(path) as (second,):
        first.close()
        connect(path)
        second.close()


def test_a_path_that_is_too_long_is_done_without(tmp_path: Path) -> None:
    with listening(tmp_path / ("x" * 200)) as none:
        assert none == []
