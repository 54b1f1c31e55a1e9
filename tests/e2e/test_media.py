"""Media by URL through the real gateway: what a target that takes bytes only gets, and what clients are told of what cannot be had."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types as genai_types

from e2e.conftest import KEY, Gateway, Loop, free_port, wait_for
from replay.recordings import Recordings
from replay.server import ReplayUpstream

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
PDF = b"%PDF-1.4\n" + bytes(range(256)) * 4000  # more than a slice of base64, and no whole number of threes
MOST, SECONDS = 2 << 20, 0.5


FILES = {
    "/dot.png": (b"image/png", PNG),
    "/untyped": (b"application/octet-stream", PNG),
    "/paper.pdf": (b"application/pdf", PDF),
    "/notes.txt": (b"text/plain; charset=iso-8859-1", "Größe: 3".encode("latin-1")),
    "/not-utf8.txt": (b"text/plain", b"\xff\xfe\xfd"),
    "/sound.mp3": (b"audio/mpeg", b"ID3 sound"),
    "/film.mp4": (b"video/mp4", b"film"),
    "/page.html": (b"text/html", b"<html>secret</html>"),
    "/large.png": (b"image/png", PNG + bytes(MOST)),
    "/half.png": (b"image/png", PNG + bytes(MOST // 2 * 3 // 2)),
    "/empty.png": (b"image/png", b""),
}


class Pictures:
    """A server of pictures, and of what looks like some. `asked`: the paths; `open`: connections now."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = 0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            self.asked.append(path)
            name = path.partition("?")[0]
            if name == "/slow.png":
                await reader.read()
            elif name == "/moved.png":
                writer.write(b"HTTP/1.1 302 Found\r\nlocation: /dot.png\r\ncontent-length: 0\r\n\r\n")
            elif name in FILES:
                kind, body = FILES[name]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, len(body)) + body)
            else:
                writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture(scope="module")
def pictures(loop_thread: Loop) -> Iterator[Pictures]:
    server = Pictures()
    loop_thread.run(server.start())
    yield server
    loop_thread.run(server.stop())


@pytest.fixture(scope="module")
def fetching(replay: ReplayUpstream, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that may fetch from this machine, by one port."""
    place = tmp_path_factory.mktemp("media")
    port, metrics_port = free_port(), free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port},
        "data_dir": str(place / "data"),
        "providers": {
            "openai": {"base_url": replay.url, "api_key": "sk-upstream-openai"},
            "anthropic": {"base_url": replay.url, "api_key": "sk-upstream-anthropic"},
            "gemini": {"base_url": replay.url, "api_key": "sk-upstream-gemini"},
            "ollama": {"base_url": replay.url},
            "bedrock": {"base_url": replay.url, "api_key": "bedrock-upstream-key"},
        },
        "keys": [{"name": "e2e", "key": KEY}],
        "resilience": {"health": {"enabled": False}},
        "media": {"allow_private": True, "allow_ports": [pictures.port], "max_bytes": MOST, "timeout_seconds": SECONDS},
    }
    (place / "config.json").write_text(json.dumps(config))
    log = place / "gateway.log"
    command = [str(Path(sys.executable).parent / "llm-gateway"), "serve", "--config", str(place / "config.json")]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=place, stdout=out, stderr=out)
    try:
        wait_for(port, process, log)
        yield Gateway(f"http://127.0.0.1:{port}", log, place / str(metrics_port))
        assert "Traceback" not in log.read_text()
    finally:
        process.send_signal(2)
        process.wait(15)


@pytest.fixture
def openai_client(fetching: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fetching.url}/v1", api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def anthropic_client(fetching: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=fetching.url, api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def gemini_client(fetching: Gateway) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=genai_types.HttpOptions(base_url=fetching.url, timeout=20_000))


@pytest.fixture(scope="module")
def names(recordings: Recordings) -> dict[str, str]:
    """A recording that answers, per provider's own API."""
    found = {}
    for provider, source, api in (
        ("bedrock", "bedrock", "converse"), ("gemini", "gemini", "generateContent"), ("ollama", "ollama", "ollama_chat"),
        ("openai", "openai", "chat_completions"), ("anthropic", "anthropic", "messages"),
    ):  # fmt: skip
        each = next(
            each for each in recordings.select(provider=source, api=api, streaming=False, status=200) if each.row["body_kind"] == "json"
        )
        found[provider] = f"{provider}/{each.id}"
    return found


def url(pictures: Pictures, path: str) -> str:
    return f"http://127.0.0.1:{pictures.port}{path}"


def seen(*addresses: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *(image(each) for each in addresses)]}]


def image(address: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": address}}


def data(body: bytes) -> str:
    return base64.b64encode(body).decode()


def sent(replay: ReplayUpstream) -> dict[str, Any]:
    body: dict[str, Any] = replay.received[-1].json()
    return body


# -- what arrives --------------------------------------------------------------------------------------------------------


def test_openai_sdk_to_bedrock(openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]) -> None:
    got = openai_client.chat.completions.create(
        model=names["bedrock"], messages=seen(url(pictures, "/dot.png"), url(pictures, "/untyped")), max_tokens=64
    )
    assert got.choices
    blocks = sent(replay)["messages"][0]["content"]
    assert blocks[1:] == [{"image": {"format": "png", "source": {"bytes": data(PNG)}}}] * 2


def test_openai_sdk_streams_from_bedrock(
    openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, recordings: Recordings
) -> None:
    each = next(iter(recordings.select(provider="bedrock", api="converse-stream", streaming=True, status=200)))
    stream = openai_client.chat.completions.create(
        model=f"bedrock/{each.id}", messages=seen(url(pictures, "/dot.png")), max_tokens=64, stream=True
    )
    assert [chunk for chunk in stream if chunk.choices]
    assert sent(replay)["messages"][0]["content"][1]["image"]["source"]["bytes"] == data(PNG)


def test_openai_sdk_to_gemini(openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]) -> None:
    openai_client.chat.completions.create(model=names["gemini"], messages=seen(url(pictures, "/dot.png")))
    assert sent(replay)["contents"][0]["parts"][1] == {"inlineData": {"mimeType": "image/png", "data": data(PNG)}}
    assert replay.received[-1].path.endswith(":generateContent")


def test_openai_sdk_to_ollama(
    openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str], recordings: Recordings
) -> None:
    content = [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": url(pictures, "/dot.png"), "detail": "auto"}]
    openai_client.responses.create(model=names["ollama"], input=[{"role": "user", "content": content}])
    assert sent(replay)["messages"][-1]["images"] == [data(PNG)]
    # Ollama's own OpenAI endpoint, which that client gets for chat, follows no URLs either; the rest passes as it came.
    address = url(pictures, "/dot.png")
    each = next(iter(recordings.select(provider="ollama", api="chat_completions", streaming=False, status=200)))
    openai_client.chat.completions.create(model=f"ollama/{each.id}", messages=seen(address), seed=7)
    assert replay.received[-1].path == "/v1/chat/completions"
    assert sent(replay)["messages"] == seen(f"data:image/png;base64,{data(PNG)}")
    assert sent(replay)["seed"] == 7


def test_claude_on_bedrock_follows_no_urls(
    anthropic_client: anthropic.Anthropic, replay: ReplayUpstream, pictures: Pictures, recordings: Recordings
) -> None:
    each = next(each for each in recordings.select(provider="anthropic", api="messages", streaming=False, status=200))
    replay.queue(each.id)
    shown = {"type": "image", "source": {"type": "url", "url": url(pictures, "/dot.png")}}
    question = [{"role": "user", "content": [shown, {"type": "text", "text": "What is this?"}]}]
    got = anthropic_client.messages.create(model="bedrock/anthropic.claude-sonnet-4-5", max_tokens=64, messages=question)
    assert got.id == json.loads(each.body)["id"]
    assert replay.received[-1].path.endswith("/invoke")
    source = sent(replay)["messages"][0]["content"][0]["source"]
    assert source == {"type": "base64", "media_type": "image/png", "data": data(PNG)}


def test_anthropic_sdk_sends_files_by_url(
    anthropic_client: anthropic.Anthropic, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]
) -> None:
    def document(path: str) -> dict[str, Any]:
        return {"type": "document", "source": {"type": "url", "url": url(pictures, path)}, "title": path[1:]}

    content = [document("/paper.pdf"), document("/notes.txt"), {"type": "text", "text": "Compare."}]
    anthropic_client.messages.create(model=names["openai"], max_tokens=64, messages=[{"role": "user", "content": content}])
    parts = sent(replay)["messages"][0]["content"]
    assert parts[0]["file"] == {"filename": "paper.pdf", "file_data": f"data:application/pdf;base64,{data(PDF)}"}
    assert parts[1] == {"type": "text", "text": "notes.txt\n\nGröße: 3"}
    shown = {"type": "image", "source": {"type": "url", "url": url(pictures, "/dot.png")}}
    history = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [shown]}]},
    ]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    anthropic_client.messages.create(model=names["bedrock"], max_tokens=64, messages=history, tools=tools)
    result = sent(replay)["messages"][-1]["content"][0]["toolResult"]
    assert result["content"] == [{"image": {"format": "png", "source": {"bytes": data(PNG)}}}]


def test_gemini_sdk_sends_sound_and_film_by_url(
    gemini_client: genai.Client, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]
) -> None:
    def part(path: str, mime: str) -> genai_types.Part:
        return genai_types.Part.from_uri(file_uri=url(pictures, path), mime_type=mime)

    sound, film = part("/sound.mp3", "audio/mpeg"), part("/film.mp4", "video/mp4")
    gemini_client.models.generate_content(model=names["openai"], contents=["hear", sound])
    assert sent(replay)["messages"][0]["content"][1]["input_audio"] == {"data": data(b"ID3 sound"), "format": "mp3"}
    gemini_client.models.generate_content(model=names["bedrock"], contents=["see", film])
    assert sent(replay)["messages"][0]["content"][1]["video"] == {"format": "mp4", "source": {"bytes": data(b"film")}}


def test_who_takes_addresses_gets_them(openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]) -> None:
    before = len(pictures.asked)
    address = url(pictures, "/dot.png?untouched")
    openai_client.chat.completions.create(model=names["anthropic"], messages=seen(address), max_tokens=64)
    assert sent(replay)["messages"][0]["content"][1]["source"] == {"type": "url", "url": address}
    openai_client.chat.completions.create(model=names["openai"], messages=seen(address))
    assert sent(replay)["messages"] == seen(address)
    assert pictures.asked[before:] == []


def test_one_address_is_fetched_once_however_often_it_is_named(
    openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str]
) -> None:
    address = url(pictures, "/dot.png?often")
    openai_client.chat.completions.create(model=names["bedrock"], messages=seen(*[address] * 20), max_tokens=64)
    assert pictures.asked.count("/dot.png?often") == 1
    assert len(sent(replay)["messages"][0]["content"]) == 21


# -- what does not -------------------------------------------------------------------------------------------------------


def refused(client: openai.OpenAI, model: str, *addresses: str) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=seen(*addresses), max_tokens=64)
    return caught.value


def test_nobody_can_tell_why(
    openai_client: openai.OpenAI, replay: ReplayUpstream, pictures: Pictures, names: dict[str, str], gateway: Gateway
) -> None:
    """One message for the forbidden, the absent, the closed and the wrong; also where nothing inside may be reached."""
    before = len(replay.received)
    cases = ["/absent.png", "/moved.png", "/page.html", "/empty.png", "/notes.txt", "/sound.mp3"]
    addresses = [url(pictures, each) for each in cases]
    addresses += [
        "http://169.254.169.254/latest/meta-data/", f"http://169.254.169.254:{pictures.port}/", f"http://user:pw@127.0.0.1:{pictures.port}/dot.png",
        f"http://2130706433:{pictures.port}/dot.png", f"http://[::ffff:127.0.0.1]:{pictures.port}/dot.png", f"http://no-such-name.invalid:{pictures.port}/",
        "http://127.0.0.1:1/dot.png", "file:///etc/passwd", "ftp://127.0.0.1/a.png", "s3n://bucket/a.png", f"http://127.0.0.2:{pictures.port}/closed",
    ]  # fmt: skip
    strict = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
    failures = [refused(openai_client, names["bedrock"], each) for each in addresses]
    failures += [refused(strict, names["bedrock"], each) for each in [url(pictures, "/dot.png"), "http://localhost/", "http://127.0.0.1/"]]
    assert {failure.message for failure in failures} == {failures[0].message}
    for failure in failures:
        assert (failure.param, failure.code, failure.type) == (
            "messages[0].content[1].image_url.url", "media_unavailable", "invalid_request_error",
        )  # fmt: skip
    assert len(replay.received) == before, "the provider was not asked"


def test_time_and_size_are_named(
    openai_client: openai.OpenAI, pictures: Pictures, names: dict[str, str], loop_thread: Loop
) -> None:
    began = time.monotonic()
    slow = refused(openai_client, names["bedrock"], url(pictures, "/dot.png"), url(pictures, "/slow.png"))
    assert time.monotonic() - began < SECONDS + 2
    assert (slow.code, slow.param) == ("media_timeout", "messages[0].content[2].image_url.url")
    assert "within 0.5 s" in slow.message
    large = refused(openai_client, names["bedrock"], url(pictures, "/large.png"))
    assert (large.code, large.param) == ("media_too_large", "messages[0].content[1].image_url.url")
    assert "2 MiB" in large.message
    assert "4 MiB" in large.message
    together = refused(openai_client, names["bedrock"], *(url(pictures, f"/half.png?{each}") for each in range(4)))
    assert together.code == "media_too_large"
    many = refused(openai_client, names["bedrock"], *(url(pictures, f"/dot.png?{each}") for each in range(17)))
    assert "At most 16" in many.message
    deadline = time.monotonic() + 3
    while pictures.open and time.monotonic() < deadline:
        time.sleep(0.02)
    assert pictures.open == 0, "nothing is left open"


def test_the_requests_own_deadline_holds(openai_client: openai.OpenAI, pictures: Pictures, names: dict[str, str]) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        openai_client.chat.completions.create(
            model=names["bedrock"], messages=seen(url(pictures, "/slow.png")), extra_headers={"x-gateway-timeout": "0.1"}
        )
    assert caught.value.status_code == 504


def test_refusals_in_every_clients_words(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, gemini_client: genai.Client, pictures: Pictures, names: dict[str, str]
) -> None:
    address = url(pictures, "/absent.png")
    shown = {"type": "image", "source": {"type": "url", "url": address}}
    with pytest.raises(anthropic.BadRequestError) as told:
        anthropic_client.messages.create(model=names["bedrock"], max_tokens=64, messages=[{"role": "user", "content": [shown]}])
    assert told.value.body["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[0].source.url" in told.value.body["error"]["message"]
    content = [{"type": "input_image", "image_url": address, "detail": "auto"}]
    with pytest.raises(openai.BadRequestError) as said:
        openai_client.responses.create(model=names["ollama"], input=[{"role": "user", "content": content}])
    assert said.value.param == "input[0].content[0].image_url"
    part = genai_types.Part.from_uri(file_uri=address, mime_type="image/png")
    with pytest.raises(genai_errors.ClientError, match=r"contents\[0\].parts\[1\].fileData.file_uri") as heard:
        gemini_client.models.generate_content(model=names["bedrock"], contents=["?", part])
    assert heard.value.code == 400
    # An address that is said before it is shown is not what is complained of.
    said_first = [{"role": "user", "content": [{"type": "text", "text": address}, image(address)]}]
    with pytest.raises(openai.BadRequestError) as again:
        openai_client.chat.completions.create(model=names["bedrock"], messages=said_first)
    assert again.value.param == "messages[0].content[1].image_url.url"


def test_a_client_that_leaves_ends_the_fetch(fetching: Gateway, pictures: Pictures, names: dict[str, str]) -> None:
    before = len(pictures.asked)
    impatient = openai.OpenAI(base_url=f"{fetching.url}/v1", api_key=KEY, max_retries=0, timeout=0.15)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model=names["bedrock"], messages=seen(url(pictures, "/slow.png?left")))
    deadline = time.monotonic() + 0.25  # well before the fetch's own limit
    while pictures.open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pictures.asked[before:] == ["/slow.png?left"]
    assert pictures.open == 0


def test_what_was_fetched_is_counted(fetching: Gateway, openai_client: openai.OpenAI, pictures: Pictures, names: dict[str, str]) -> None:
    openai_client.chat.completions.create(model=names["bedrock"], messages=seen(url(pictures, "/dot.png")), max_tokens=64)
    refused(openai_client, names["bedrock"], url(pictures, "/absent.png"))
    page, deadline = "", time.monotonic() + 5
    while 'media_fetches_total{outcome="failed"}' not in page and time.monotonic() < deadline:
        time.sleep(0.2)
        page = urllib.request.urlopen(f"http://127.0.0.1:{fetching.data.name}/metrics", timeout=5).read().decode()
    counts = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("llm_gateway_media")}
    assert counts['llm_gateway_media_fetches_total{outcome="fetched"}'] >= 1
    assert counts["llm_gateway_media_bytes_total"] >= len(PNG)
