"""The built-in echo: says back what was said, whatever was said, and behaves like a connection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_gateway.upstream.echo import EchoConnection
from upstream.origin import Told


async def said(**body: Any) -> Told:
    told = Told()
    EchoConnection().send(b"POST / HTTP/1.1\r\n\r\n" + json.dumps(body).encode(), told)
    return await told.over()


def user(content: Any) -> list[Any]:
    return [{"role": "system", "content": "no"}, {"role": "user", "content": content}]


async def test_it_says_the_last_user_message_back():
    reply = json.loads((await said(messages=user("one two"), model="m")).body)
    assert reply["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "one two", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert reply["usage"]["completion_tokens"] == 2


async def test_it_streams_word_by_word_and_adds_usage_where_asked():
    told = await said(messages=user("one two"), stream=True, stream_options={"include_usage": True})
    chunks = [json.loads(each[6:]) for each in told.body.split(b"\n\n")[:-2]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "one two"
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert told.body.endswith(b"data: [DONE]\n\n")
    assert told.told == [200, "end"]


async def test_it_keeps_to_max_tokens():
    reply = json.loads((await said(messages=user("a" * 100), max_tokens=2)).body)
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == ("a" * 8, "length")


@pytest.mark.parametrize(
    ("messages", "more"),
    [([1, None, "x"], {}), (user([{"type": "text", "text": 5}, 7]), {}), (user(None), {}),
     (user("x"), {"stream": True, "stream_options": 3}), (user("x"), {"max_tokens": "y"})],
)  # fmt: skip
async def test_odd_messages_are_answered_not_dropped(messages, more):
    """Nothing catches what a loop's callback raises: the request would hang until its deadline."""
    assert (await said(messages=messages, **more)).told == [200, "end"]


async def test_it_can_be_paused_and_left():
    told, echo = Told(), EchoConnection()
    echo.send(b"\r\n\r\n" + json.dumps({"messages": user("a b c d e f"), "stream": True}).encode(), told)
    await asyncio.sleep(0)
    echo.pause()
    before = len(told.body)
    await asyncio.sleep(0.01)
    assert len(told.body) == before > 0
    echo.resume()
    await asyncio.sleep(0)
    echo.leave()
    after = len(told.body)
    await asyncio.sleep(0.01)
    assert (len(told.body), told.done.is_set(), echo.state) == (after, False, "closed")
