"""What is generated once and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llm_gateway.config.material import prepare, replica
from llm_gateway.config.problems import ConfigError
from llm_gateway.config.schema import Root


def test_generated_once_and_readable_by_nobody_else(tmp_path: Path):
    folder = tmp_path / "new" / "data"
    first = prepare(Root(), str(folder))
    assert prepare(Root(), str(folder)) == first
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "secret": 0o600,
        "admin.token": 0o600,
        "dev.key": 0o600,
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(first.secret) == 64
    assert first.development_key is not None


def test_configured_ones_are_not_generated(tmp_path: Path):
    root = Root.model_validate(
        {"secret": "0123456789abcdef", "admin": {"token": "t"}, "keys": [{"name": "a", "key": "sk-12345678"}]}
    )
    material = prepare(root, str(tmp_path))
    assert (material.secret, material.admin_token, material.development_key) == (b"0123456789abcdef", "t", None)
    assert list(tmp_path.iterdir()) == []


def test_a_gateway_keeps_its_name_and_no_other_has_it(tmp_path: Path):
    """It is there before its operator starts, which needs no room on the disk for it any more."""
    for name in ("a", "b"):
        prepare(Root(), str(tmp_path / name), serving=True)
    assert (tmp_path / "a" / "replica").stat().st_mode & 0o777 == 0o600
    assert replica(tmp_path / "a") == (tmp_path / "a" / "replica").read_text().strip() != replica(tmp_path / "b")
    assert len(replica(tmp_path / "a")) == 32


def test_two_that_start_at_once_agree(tmp_path: Path):
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: prepare(Root(), str(tmp_path)), range(8)))
    assert len({material.secret for material in made}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["admin.token", "dev.key", "secret"]


def test_an_empty_secret_is_refused(tmp_path: Path):
    (tmp_path / "secret").touch()
    with pytest.raises(ConfigError, match="it is empty"):
        prepare(Root(), str(tmp_path))


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"data_dir.*cannot be used"):
        prepare(Root(), str(tmp_path / "file" / "data"))
    assert (tmp_path / "file").is_file()
