"""An upstream for what no recording has: pictures, sounds, moderation and ranking, as their documentation shows the replies.

Law: what it answers holds what it was sent (the file's name and size, the model, the fields), so that a test sees what arrived.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from email.parser import BytesParser

from replay.wire import HEAD_LIMIT, Received, chunk, head_bytes, read_request

JSON = ("content-type", "application/json")
CHUNKED = ("transfer-encoding", "chunked")
SOUND = bytes(range(256)) * 400
PICTURE = base64.b64encode(b"\x89PNG of a cat").decode()
IMAGE_USAGE = {
    "input_tokens": 12, "output_tokens": 300, "total_tokens": 312, "input_tokens_details": {"text_tokens": 4, "image_tokens": 8},
}  # fmt: skip


def form(request: Received) -> dict[str, tuple[str | None, bytes]]:
    """A multipart body, by a parser that is not ours: name -> (file name, content)."""
    kind = dict(request.headers)["content-type"]
    message = BytesParser().parsebytes(f"content-type: {kind}\r\n\r\n".encode() + request.body)
    parts = message.get_payload()
    assert isinstance(parts, list), kind
    found = {}
    for part in parts:
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = (part.get_filename(), content)
    return found


class Studio:
    def __init__(self) -> None:
        self.received: list[Received] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(reader, 0)) is not None:
                self.received.append(request)
                await self._answer(writer, request)
                await writer.drain()
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, request: Received) -> None:
        path = request.path.partition("?")[0]
        if "/responses" in path:
            await self._respond(writer, request, path)
        elif path.endswith("/audio/speech"):
            await self._speak(writer, request)
        elif path.endswith(("/audio/transcriptions", "/audio/translations", "/images/edits")):
            await self._form(writer, request, path)
        elif path.endswith("/images/generations"):
            asked = request.json()
            if asked.get("stream"):
                await events(writer, [
                    {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": PICTURE},
                    {"type": "image_generation.completed", "b64_json": PICTURE, "usage": IMAGE_USAGE},
                ])  # fmt: skip
            else:
                plain(writer, {"created": 1, "data": [{"b64_json": PICTURE, "revised_prompt": asked["prompt"]}], "usage": IMAGE_USAGE})
        elif path.endswith("/moderations"):
            plain(writer, {"id": "modr-1", "model": request.json()["model"], "results": [
                {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}]})  # fmt: skip
        elif path.endswith("/rerank"):
            count = len(request.json()["documents"])
            results = [{"index": i, "relevance_score": 1 / (1 + i)} for i in range(count)]
            plain(writer, {"id": "r-1", "results": results, "meta": {"billed_units": {"search_units": 1}}})
        else:
            plain(writer, {"error": {"message": f"no {path}", "type": "invalid_request_error"}}, 404)

    async def _respond(self, writer: asyncio.StreamWriter, request: Received, path: str) -> None:
        """Responses that are kept: what was asked comes back as their text."""
        if "include=gone" in request.path:
            told = {"message": f"Response with id '{path.rpartition('/')[2]}' not found.", "type": "invalid_request_error", "param": None, "code": None}
            plain(writer, {"error": told}, 404)
        elif request.method == "DELETE":
            plain(writer, {"id": path.rpartition("/")[2], "object": "response", "deleted": True})
        elif path.endswith("/input_items"):
            plain(writer, {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None})
        elif request.method == "GET" and "stream=true" in request.path.lower():
            told = response("again", path.split("/responses/")[1])
            if "include=failed" in request.path:
                told |= {"status": "failed", "output": [], "usage": None, "error": {"code": "server_error", "message": "no answer came"}}
            await events(writer, [{"type": f"response.{told['status']}", "sequence_number": 7, "response": told}])
        elif request.method == "GET" or path.endswith("/cancel"):
            plain(writer, response(request.path, path.split("/responses/")[1].removesuffix("/cancel")))
        else:
            asked = request.json()
            told = response(json.dumps(asked), "resp_made", asked.get("previous_response_id"))
            if asked.get("background") and not asked.get("stream"):
                plain(writer, told | {"status": "queued", "background": True, "output": [], "usage": None})
                return
            if not asked.get("stream"):
                plain(writer, told)
                return
            await events(writer, [
                {"type": "response.created", "sequence_number": 0, "response": told | {"status": "in_progress", "output": []}},
                {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "hi"},
                {"type": "response.completed", "sequence_number": 2, "response": told},
            ][: 2 if asked.get("background") else 3], pause=5.0 if asked.get("background") else 0.0)  # fmt: skip

    async def _speak(self, writer: asyncio.StreamWriter, request: Received) -> None:
        asked = request.json()
        if asked.get("stream_format") == "sse":
            sound = base64.b64encode(SOUND[:30]).decode()
            await events(writer, [
                {"type": "speech.audio.delta", "audio": sound},
                {"type": "speech.audio.done", "usage": {"input_tokens": 5, "output_tokens": 50, "total_tokens": 55}},
            ])  # fmt: skip
            return
        writer.write(head_bytes(200, (("content-type", "audio/mpeg"), CHUNKED)))
        for start in range(0, len(SOUND), 10_000):
            writer.write(chunk(SOUND[start : start + 10_000]))
            await writer.drain()
            await asyncio.sleep(0.002)
        if asked["input"] == "cut me":
            writer.close()
        else:
            writer.write(b"0\r\n\r\n")

    async def _form(self, writer: asyncio.StreamWriter, request: Received, path: str) -> None:
        parts = form(request)
        seen = {name: (file, len(content) if file else content.decode()) for name, (file, content) in parts.items()}
        if path.endswith("/images/edits"):
            plain(writer, {"created": 1, "data": [{"b64_json": PICTURE, "revised_prompt": json.dumps(seen)}], "usage": IMAGE_USAGE})
        elif parts.get("response_format", (None, b""))[1] == b"srt":
            body = b"1\n00:00:00,000 --> 00:00:01,000\nhello\n"
            writer.write(head_bytes(200, (("content-type", "text/plain"), ("content-length", str(len(body))))) + body)
        elif parts.get("stream", (None, b""))[1] == b"true" and parts["model"][1] != b"whisper-1":  # which ignores it
            usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16, "input_token_details": {"audio_tokens": 14}}
            await events(writer, [
                {"type": "transcript.text.delta", "delta": "hello"}, {"type": "transcript.text.done", "text": "hello", "usage": usage},
            ])  # fmt: skip
        else:
            plain(writer, {"text": json.dumps(seen), "usage": {"type": "duration", "seconds": 3}})


def response(text: str, name: str, previous: str | None = None) -> dict[str, object]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": name, "object": "response", "created_at": 1, "status": "completed", "model": "m", "previous_response_id": previous,
        "output": [{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None,
        "instructions": None, "metadata": {}, "temperature": 1, "top_p": 1,
        "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
    }  # fmt: skip


def plain(writer: asyncio.StreamWriter, value: object, status: int = 200) -> None:
    body = json.dumps(value).encode()
    writer.write(head_bytes(status, (JSON, ("content-length", str(len(body))))) + body)


async def events(writer: asyncio.StreamWriter, values: list[dict[str, object]], pause: float = 0.0) -> None:
    """pause: seconds before the end."""
    writer.write(head_bytes(200, (("content-type", "text/event-stream"), CHUNKED)))
    for value in values:
        writer.write(chunk(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()))
        await writer.drain()
    await asyncio.sleep(pause)
    writer.write(b"0\r\n\r\n")
