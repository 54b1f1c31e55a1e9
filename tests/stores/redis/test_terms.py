"""Which Redis an URL means, and that its password stays out of sight."""

from __future__ import annotations

import pytest

from llm_gateway.stores.redis.dial import ping
from llm_gateway.stores.redis.terms import Login, Terms, Tls, name, parse


@pytest.mark.parametrize(
    ("url", "terms"),
    [
        ("redis://h", Terms(nodes=(("h", 6379),))),
        ("valkey://h:1/3", Terms(nodes=(("h", 1),), db=3)),
        ("redis://h:1/?db=4", Terms(nodes=(("h", 1),), db=4)),
        ("redis://:p%40ss@[::1]:7/2", Terms(nodes=(("::1", 7),), db=2, login=Login("", "p@ss"))),
        ("redis://[::1]", Terms(nodes=(("::1", 6379),))),
        ("rediss://u:p@h:7", Terms(nodes=(("h", 7),), login=Login("u", "p"), tls=Tls())),
        ("unix:///run/redis.sock?db=2", Terms(nodes=(("/run/redis.sock", 0),), db=2)),
        ("unix://u:p@/run/redis.sock", Terms(nodes=(("/run/redis.sock", 0),), login=Login("u", "p"))),
        ("redis+sentinel://a,b:7/main", Terms(nodes=(("a", 26379), ("b", 7)), master="main")),
        ("rediss+sentinel://u:p@a/main/5", Terms(nodes=(("a", 26379),), master="main", db=5, login=Login("u", "p"), tls=Tls())),
        ("redis+cluster://a,b:7", Terms(nodes=(("a", 6379), ("b", 7)), cluster=True)),
    ],
)
def test_urls(url, terms):
    assert parse(url) == terms


@pytest.mark.parametrize(
    "url",
    [
        "http://h", "redis:/h", "redis://", "redis://h:port", "redis://h:0", "redis://h:70000", "redis://a,b", "redis://h/one", "unix://run/sock",
        "redis+sentinel://a", "redis+sentinel://a/", "redis+other://a", "redis://h?timeout=1", "redis+cluster://a,,b",
    ],
)  # fmt: skip
def test_what_is_none(url):
    with pytest.raises(ValueError, match=r"expected|knows"):
        parse(url)


def test_a_wrong_url_is_not_repeated():
    with pytest.raises(ValueError) as raised:
        parse("redis://user:hunter2@host:port")
    assert "hunter2" not in str(raised.value)


def test_a_password_does_not_show():
    assert "hunter2" not in repr(parse("redis://u:hunter2@h"))
    assert parse("redis://u:hunter2@h").label == "h:6379"


def test_names():
    assert name(("::1", 7)) == "[::1]:7"
    assert name(("/run/sock", 0)) == "/run/sock"
    assert parse("redis+sentinel://a,b/main").label == "main"


@pytest.mark.parametrize("url", ["redis://redis..svc:6379", f"redis://{'a' * 64}.svc", "redis+sentinel://redis..svc/master"])
async def test_a_name_that_none_can_be_is_nobody_s(url: str) -> None:
    """It ended the operator's looking for Redis, and /health said that there was none configured."""
    assert await ping(parse(url)) is False
