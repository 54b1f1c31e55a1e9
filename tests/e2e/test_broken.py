"""What a client's SDK sees when the upstream breaks: the next target where that is still possible, else an error it raises."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import anthropic
import openai
import pytest

from e2e.conftest import KEY, Gateway
from replay.faulty import FaultyUpstream

ASK = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("fault", ["rst_midstream", "cut_midstream", "cut_mid_event", "clean_end_without_finish", "error_midstream"])
def test_a_broken_stream_never_ends_well(openai_client: openai.OpenAI, fault: str) -> None:
    stream = openai_client.chat.completions.create(model=f"broken/fault-{fault}", messages=ASK, stream=True)
    words: list[str] = []
    with pytest.raises(openai.APIError):
        words.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert words[:2] == ["One", " two"]


def test_a_broken_stream_is_an_error_event_for_anthropic_clients_too(anthropic_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIError), anthropic_client.messages.stream(model="broken/fault-cut_midstream", messages=ASK, max_tokens=9) as stream:
        stream.get_final_message()


@pytest.mark.parametrize("fault", ["html", "truncated_json", "short_body", "reset_at_once", "close_at_once", "bad_framing"])
def test_a_broken_reply_is_a_502(openai_client: openai.OpenAI, fault: str) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        openai_client.chat.completions.create(model=f"broken/fault-{fault}", messages=ASK)
    assert caught.value.status_code == 502


@pytest.mark.parametrize("fault", ["slow_bytes:0.0005", "informational", "then_close", "close_delimited_stream"])
def test_odd_but_whole_replies_are_fine(openai_client: openai.OpenAI, fault: str) -> None:
    stream = openai_client.chat.completions.create(model=f"broken/fault-{fault}", messages=ASK, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "One two three"


@pytest.mark.parametrize("alias", ["second-best", "error-first"])
def test_the_fallback_answers_and_the_client_is_unaware(openai_client: openai.OpenAI, alias: str) -> None:
    stream = openai_client.chat.completions.create(model=alias, messages=ASK, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "One two three"


def test_a_client_that_leaves_ends_the_upstream_within_a_second(openai_client: openai.OpenAI, broken: FaultyUpstream) -> None:
    broken.gone.clear()
    stream = openai_client.chat.completions.create(model="broken/fault-stall_midstream", messages=ASK, stream=True)
    next(iter(stream))
    stream.close()
    left = time.perf_counter()
    while not broken.gone.is_set():
        assert time.perf_counter() - left < 1, "the upstream goes on for nobody"
        time.sleep(0.01)


@pytest.mark.parametrize("streaming", [False, True])
def test_many_at_once_all_get_their_own_answer(gateway: Gateway, streaming: bool) -> None:
    """Connections change hands within one tick of the loop: a late farewell from the last user must not cut the next."""

    body = json.dumps({"model": "broken/fine", "messages": ASK, "stream": streaming})

    def ask(_: int) -> int:
        connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=5)
        answered = 0
        for _ in range(25):
            connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
            said = connection.getresponse().read()  # an end that was cut raises
            answered += said.count(b"data: {") > 2 and said.endswith(b"data: [DONE]\n\n") if streaming else b'"content":"hello"' in said.replace(b": ", b":")
        connection.close()
        return answered

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 16 * 25


def test_every_answer_has_one_row_in_the_journal(openai_client: openai.OpenAI, gateway: Gateway) -> None:
    for number in range(5):
        openai_client.chat.completions.create(model="broken/fine", messages=ASK, extra_headers={"X-Request-ID": f"row-{number}"})
    rows = [json.loads(line)["request_id"] for file in (gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [rows.count(f"row-{number}") for number in range(5)] == [1] * 5
