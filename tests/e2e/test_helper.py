"""Exact counts by the helper process, and what becomes of them without it: `llm-gateway serve`, the real processes, real signals."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from oracle import tokens
from processes import alive, eventually

_SPEC = importlib.util.spec_from_file_location("served", Path(__file__).parents[1] / "supervisor" / "test_serve.py")
_SERVED = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SERVED)
TEXTS = {
    "english": "The quick brown fox jumps over the lazy dog. ", "code": "def f(x):\n\treturn {x: [1, 2]}  # naïve\r\n",
    "cjk": "你好，世界。こんにちは", "emoji": "😀🎉👩‍👩‍👧🏽", "special": "a<|endoftext|>b",
    "long": "All work and no play makes Jack a dull boy.\n" * 2300,
}  # fmt: skip


def count(gateway, text: str, model: str = "gpt-4o") -> tuple[int, bool, float]:
    """(tokens, exact, seconds)."""
    body = {"model": f"echo/{model}", "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.port}/v1/messages/count_tokens", data=json.dumps(body).encode())
    request.add_header("authorization", f"Bearer {gateway.key()}")
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=5) as reply:
        told = json.loads(reply.read())
        return told["input_tokens"], reply.headers["x-gateway-estimated"] is None, time.perf_counter() - began


def exact(gateway, model: str = "gpt-4o") -> bool:
    return count(gateway, "hello", model)[1]


def expected(text: str, vocabulary: str = "o200k_base") -> int:
    return 3 + 3 + 1 + tokens(text, vocabulary)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    running = _SERVED.Gateway(tmp_path_factory.mktemp("helper")).wait_ready()
    eventually(lambda: exact(running))
    eventually(lambda: exact(running, "gpt-4"))
    yield running
    running.stop()


@pytest.mark.parametrize(("model", "vocabulary"), [("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base")])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_counts_are_the_oracles(gateway, text, model, vocabulary):
    assert count(gateway, text, model)[:2] == (expected(text, vocabulary), True)


def test_other_families_are_estimated(gateway):
    assert count(gateway, "hello", "llama")[1] is False


def test_fifty_at_once(gateway):
    texts = [f"{'word ' * (n * 40)}{n}" for n in range(50)]
    with ThreadPoolExecutor(50) as pool:
        told = list(pool.map(lambda text: count(gateway, text)[:2], texts))
    assert told == [(expected(text), True) for text in texts]


def test_a_frozen_helper_costs_a_deadline_and_chats_nothing(gateway):
    helper = gateway.children("helper")[-1]
    os.kill(helper, signal.SIGSTOP)
    try:
        _, was_exact, seconds = count(gateway, "hello")
        assert not was_exact
        assert 0.2 < seconds < 1.5
        assert gateway.chat()[0] == 200
    finally:
        os.kill(helper, signal.SIGCONT)
    assert eventually(lambda: exact(gateway))


def test_a_killed_helper_is_an_estimate_and_then_exact_again(gateway):
    helper = gateway.children("helper")[-1]
    os.kill(helper, signal.SIGKILL)
    eventually(lambda: not alive(helper))
    assert count(gateway, "hello")[2] < 1.5
    assert eventually(lambda: exact(gateway))
    assert gateway.children("helper")[-1] != helper


@pytest.mark.slow  # another gateway: two seconds
def test_there_is_none_where_it_is_off(tmp_path):
    running = _SERVED.Gateway(tmp_path, LLM_GATEWAY__HELPER="off").wait_ready()
    try:
        assert not exact(running)
        assert running.children("helper") == []
    finally:
        running.stop()
