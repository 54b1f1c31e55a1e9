"""An upstream in every chat shape that knows no limits: it goes on until it has said what its model's name says, or nobody listens.

Law: shares no code with the gateway. Models: `endless` (MOST pieces), `told` (with the usage so far in each piece, of a token each), and
`polite-N` (N pieces and a good end). A piece is PIECE; its real tokens are TOKENS, as dense as English is.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from replay.wire import HEAD_LIMIT, chunk, head_bytes, read_request

PIECE = "gateways "  # two tokens of four and a half characters each
TOKENS = 2
MOST = 4000
PAUSE = 0.002


@dataclass
class Played:
    """`gone`: monotonic time at which the other side was found to have left; `sent`: pieces until then."""

    model: str
    body: dict[str, Any]
    sent: int = 0
    last: float = 0.0
    gone: float = 0.0


def sse(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def named(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + sse(type=kind, **fields)


def frame(name: str, **payload: object) -> bytes:
    pairs = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(struct.pack("!B", len(key)) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode() for key, value in pairs.items())
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    whole = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return whole + struct.pack("!I", crc32(whole))


class Chat:
    kind = "text/event-stream"

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, told: int) -> bytes:
        return self._chunk({"content": PIECE}, {"usage": {"prompt_tokens": 5, "completion_tokens": told, "total_tokens": 5 + told}} if told else {})

    def end(self, tokens: int) -> bytes:
        usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
        last = sse(id="chatcmpl-e", object="chat.completion.chunk", created=7, model="m", choices=[], usage=usage)
        return self._chunk({}, {}, "stop") + last + b"data: [DONE]\n\n"

    def _chunk(self, delta: object, more: dict[str, object] | None = None, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return sse(id="chatcmpl-e", object="chat.completion.chunk", created=7, model="m", choices=[choice], **(more or {}))


class Messages:
    kind = "text/event-stream"

    def opening(self) -> bytes:
        message = {"id": "msg_e", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                   "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1}}  # fmt: skip
        return named("message_start", message=message) + named("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def piece(self, told: int) -> bytes:
        return named("content_block_delta", index=0, delta={"type": "text_delta", "text": PIECE})

    def end(self, tokens: int) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return named("content_block_stop", index=0) + named("message_delta", delta=delta, usage={"output_tokens": tokens}) + named("message_stop")


class Responses:
    kind = "text/event-stream"

    def __init__(self) -> None:
        self._number = -1

    def opening(self) -> bytes:
        item = {"id": "msg_e", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return (
            self._event("response.created", response=self._response("in_progress", []))
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", item_id="msg_e", output_index=0, content_index=0, part=part)
        )

    def piece(self, told: int) -> bytes:
        return self._event("response.output_text.delta", item_id="msg_e", output_index=0, content_index=0, delta=PIECE, logprobs=[])

    def end(self, tokens: int) -> bytes:
        usage = {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": tokens,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5 + tokens}  # fmt: skip
        return self._event("response.completed", response=self._response("completed", []) | {"usage": usage})

    def _response(self, status: str, output: list[object]) -> dict[str, object]:
        return {"id": "resp_e", "object": "response", "created_at": 7, "model": "m", "status": status, "output": output, "parallel_tool_calls": True,
                "tool_choice": "auto", "tools": [], "incomplete_details": None, "error": None, "usage": None}  # fmt: skip

    def _event(self, kind: str, **fields: object) -> bytes:
        self._number += 1
        return named(kind, sequence_number=self._number, **fields)


class Content:
    kind = "text/event-stream"

    def opening(self) -> bytes:
        return b""

    def piece(self, told: int) -> bytes:
        usage = {"promptTokenCount": 5, "candidatesTokenCount": told, "totalTokenCount": 5 + told}
        return self._chunk(PIECE, {"usageMetadata": usage} if told else {})

    def end(self, tokens: int) -> bytes:
        return self._chunk("", {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": tokens, "totalTokenCount": 5 + tokens}}, "STOP")

    def _chunk(self, text: str, more: dict[str, object], finish: str | None = None) -> bytes:
        candidate: dict[str, object] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return sse(candidates=[candidate], modelVersion="m", responseId="r-e", **more)


class Converse:
    kind = "application/vnd.amazon.eventstream"

    def opening(self) -> bytes:
        return frame("messageStart", role="assistant")

    def piece(self, told: int) -> bytes:
        return frame("contentBlockDelta", contentBlockIndex=0, delta={"text": PIECE})

    def end(self, tokens: int) -> bytes:
        usage = {"inputTokens": 5, "outputTokens": tokens, "totalTokens": 5 + tokens}
        last = frame("metadata", usage=usage, metrics={"latencyMs": 1})
        return frame("contentBlockStop", contentBlockIndex=0) + frame("messageStop", stopReason="end_turn") + last


class Ollama:
    kind = "application/x-ndjson"

    def opening(self) -> bytes:
        return b""

    def piece(self, told: int) -> bytes:
        return self._line(message={"role": "assistant", "content": PIECE}, done=False)

    def end(self, tokens: int) -> bytes:
        counts = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": tokens}
        return self._line(message={"role": "assistant", "content": ""}, **counts)

    def _line(self, **fields: object) -> bytes:
        return json.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", **fields}).encode() + b"\n"


class Endless:
    def __init__(self) -> None:
        self.played: list[Played] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT, backlog=200)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader, 0)) is not None:
                if request.method == "GET":
                    writer.write(head_bytes(200, (("content-type", "application/json"), ("content-length", "11"))) + b'{"data":[]}')
                    continue
                await self._play(reader, writer, request.path, json.loads(request.body))
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        model = str(body.get("model") or path.split("/")[-2 if "converse" in path else -1].partition(":")[0])
        played = Played(model, body)
        self.played.append(played)
        voice = _voice(path)
        writer.write(head_bytes(200, (("content-type", voice.kind), ("transfer-encoding", "chunked"))))
        if opening := voice.opening():
            writer.write(chunk(opening))
        listening = asyncio.ensure_future(reader.read(1))
        for number in range(int(model.partition("-")[2] or MOST)):
            writer.write(chunk(voice.piece(number + 1 if model == "told" else 0)))
            played.sent, played.last = number + 1, time.monotonic()
            await asyncio.sleep(PAUSE)
            if listening.done() or writer.is_closing():
                played.gone = time.monotonic()
                raise ConnectionResetError
        listening.cancel()
        await asyncio.sleep(0)
        writer.write(chunk(voice.end(played.sent * TOKENS)) + b"0\r\n\r\n")
        await writer.drain()
        raise ConnectionResetError  # its bytes may be half read: no second request here


def _voice(path: str) -> Any:
    marks = {"converse-stream": Converse, "streamGenerateContent": Content, "/messages": Messages, "/responses": Responses, "/api/chat": Ollama}
    return next((made for mark, made in marks.items() if mark in path), Chat)()
