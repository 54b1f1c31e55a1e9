"""What config.yaml says of Redis, and the terms that workers and operator go by."""

from __future__ import annotations

import msgspec
import pytest

from llm_gateway.admin.api import redacted
from llm_gateway.config.problems import ConfigError
from llm_gateway.stores.redis.terms import Login, Terms, Tls


def terms(compile_text, text: str = "", **environ: str) -> Terms | None:
    return compile_text(text, **environ).snapshot.redis


def test_none(compile_text):
    assert terms(compile_text) is None


def test_an_url_is_enough(compile_text):
    assert terms(compile_text, REDIS_URL="redis://h") == Terms(nodes=(("h", 6379),))


def test_everything(compile_text, tmp_path):
    for name in ("ca.pem", "c.pem", "c.key"):
        (tmp_path / name).write_text("x")
    text = f"""
redis:
  url: redis+sentinel://a,b/main/2
  username: gateway
  password: p:@/w
  timeout_ms: 20
  tls: {{ca: {tmp_path}/ca.pem, cert: {tmp_path}/c.pem, key: {tmp_path}/c.key, verify: false, server_name: n}}
  sentinel: {{username: watch, password: s}}
"""
    assert terms(compile_text, text) == Terms(
        nodes=(("a", 26379), ("b", 26379)), db=2, login=Login("gateway", "p:@/w"), master="main", sentinel=Login("watch", "s"), timeout=0.02,
        tls=Tls(f"{tmp_path}/ca.pem", f"{tmp_path}/c.pem", f"{tmp_path}/c.key", verify=False, server_name="n"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{url: 'http://h'}", "redis.url: expected a URL"),
        ("{url: 'redis+sentinel://h'}", "redis.url: expected the master's name"),
        ("{url: 'redis://h/x'}", "redis.url: expected the database as a number"),
        ("{url: 'redis://h/1', cluster: true}", "redis.cluster: a cluster has neither sentinels nor databases"),
        ("{url: 'unix:///s', tls: {}}", "redis.tls: a Unix socket has no TLS"),
        ("{url: 'rediss://h', tls: {cert: /nowhere/c}}", "`cert` and `key` go together"),
        ("{url: 'rediss://h', tls: {ca: /nowhere/ca}}", "redis.tls.ca: there is no file /nowhere/ca"),
        ("{url: 'redis://h', username: u}", "redis.username: needs a password"),
        ("{url: 'redis://h', timeout_ms: 1}", "redis.timeout_ms: expected at least 5"),
        ("{url: 'redis://h', sentinels: {}}", "did you mean `sentinel`?"),
    ],
)
def test_what_is_wrong_is_said(compile_text, text, said):
    with pytest.raises(ConfigError) as raised:
        compile_text(f"redis: {text}")
    assert said in str(raised.value)


def test_no_password_is_shown(compile_text):
    snapshot = compile_text("redis: {url: 'redis+sentinel://u:hunter-two@h/m', sentinel: {password: hunter-three}}").snapshot
    assert "hunter" not in repr(snapshot.redis)
    assert "hunter" not in repr(redacted(snapshot))
    with pytest.raises(ConfigError) as raised:
        compile_text("redis: {url: 'redis://u:hunter2@h/x'}")
    assert "hunter" not in str(raised.value)


def test_it_travels_with_the_snapshot(compile_text):
    made = compile_text("redis: {url: 'rediss://u:p@h', cluster: true}").snapshot
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=type(made)).redis == made.redis
