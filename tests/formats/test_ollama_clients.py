"""What we write, read by the official clients themselves, over a socket: Ollama's, and for embeddings OpenAI's and Google's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ollama
import openai
import pytest
from google import genai

from formats.shapes import CALL, NOW
from formats.test_embeddings import BASE64, BATCH, OLLAMA, OLLAMA_OLD, OPENAI
from formats.test_ollama import CHAT, EVENTS, GENERATE, REPLY
from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage

VECTORS = Embeddings(model="m", vectors=([0.5, -0.25], [0.125, 1.0]), usage=Usage(input=3))
ASKED = EmbeddingCall(model="m", inputs=(Input("a"), Input("b")))


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, tuple[int, bytes, bytes]]]]:
    """A base URL, and what is served there: path -> status, content type, body."""
    told: dict[str, tuple[int, bytes, bytes]] = {}

    class Told(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, kind, body = told[self.path.partition("?")[0]]
            self.send_response(status)
            self.send_header("content-type", kind.decode())
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    thread.join()
    server.server_close()


def streamed(shape) -> tuple[int, bytes, bytes]:
    writer = shape.stream_writer(CALL, NOW)
    return 200, shape.stream_type, b"".join(map(writer.write, EVENTS)) + writer.tail(None)


def whole(outgoing) -> tuple[int, bytes, bytes]:
    return outgoing.status, outgoing.content_type, outgoing.body


def test_ollamas_client_reads_replies_and_streams(served):
    base, told = served
    client = ollama.Client(base)
    told["/api/chat"] = whole(CHAT.write_reply(REPLY, CALL, NOW))
    said = client.chat("m", [{"role": "user", "content": "hi"}])
    assert (said.message.content, said.message.thinking, said.eval_count) == ("Hi.", "Hm.", 5)
    told["/api/chat"] = streamed(CHAT)
    pieces = list(client.chat("m", [{"role": "user", "content": "hi"}], stream=True))
    assert "".join(one.message.content or "" for one in pieces) == "Hé"
    assert [call.function.arguments for one in pieces for call in one.message.tool_calls or ()] == [{"a": 1}]
    assert pieces[-1].done_reason == "stop"
    told["/api/generate"] = whole(GENERATE.write_reply(REPLY, CALL, NOW))
    assert client.generate("m", "hi").response == "Hi."
    told["/api/generate"] = streamed(GENERATE)
    assert "".join(one.response or "" for one in client.generate("m", "hi", stream=True)) == "Hé"


def test_ollamas_client_raises_on_errors_whole_and_in_a_stream(served):
    base, told = served
    client = ollama.Client(base)
    fault = Fault(Kind.UPSTREAM_NO_MODEL, "model 'm' not found")
    told["/api/chat"] = whole(CHAT.write_error(fault, "req_1"))
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("m")
    assert (caught.value.error, caught.value.status_code) == ("model 'm' not found", 404)
    writer = CHAT.stream_writer(CALL, NOW)
    body = b"".join(map(writer.write, EVENTS[:6])) + writer.fail(Fault(Kind.UPSTREAM_CUT, "The upstream ended."))
    told["/api/chat"] = (200, CHAT.stream_type, body)
    with pytest.raises(ollama.ResponseError, match=r"The upstream ended\."):
        list(client.chat("m", stream=True))


def test_the_clients_read_embeddings(served):
    base, told = served
    told["/api/embed"] = whole(OLLAMA.write_reply(VECTORS, ASKED, NOW))
    told["/api/embeddings"] = whole(OLLAMA_OLD.write_reply(VECTORS, ASKED, NOW))
    assert ollama.Client(base).embed("m", ["a", "b"]).embeddings == list(VECTORS.vectors)
    assert ollama.Client(base).embeddings("m", "a").embedding == VECTORS.vectors[0]
    told["/v1/embeddings"] = whole(OPENAI.write_reply(VECTORS, BASE64, NOW))  # what it asks for unless told otherwise
    with openai.OpenAI(api_key="k", base_url=f"{base}/v1") as client:
        read = client.embeddings.create(model="m", input=["a", "b"])
        assert ([one.embedding for one in read.data], read.usage.prompt_tokens) == (list(VECTORS.vectors), 3)
        told["/v1/embeddings"] = whole(OPENAI.write_reply(VECTORS, ASKED, NOW))
        read = client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
        assert [one.embedding for one in read.data] == list(VECTORS.vectors)
    told["/v1beta/models/m:batchEmbedContents"] = whole(BATCH.write_reply(VECTORS, ASKED, NOW))
    google = genai.Client(api_key="k", http_options={"base_url": base, "api_version": "v1beta"})
    batch = google.models.embed_content(model="m", contents=["a", "b"])
    assert [one.values for one in batch.embeddings or ()] == list(VECTORS.vectors)
