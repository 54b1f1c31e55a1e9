"""An upstream whose accounts seal their thoughts: each reads its own, and answers 400 to anybody else's, as OpenAI and Google do.

Law: who asks is told by the key alone; the second turn of a tool loop, in the shape of either API, streamed or plain.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from typing import Any

from replay.studio import events, plain
from replay.wire import HEAD_LIMIT, Received, chunk, head_bytes, read_request

_SEALS = re.compile(r'"(?:encrypted_content|thoughtSignature|thought_signature)"\s*:\s*"([^"]*)"')
UNSEALED = "skip_thought_signature_validator"
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}", "status": "completed"}


def seal(account: str) -> str:
    return base64.b64encode(f"thoughts of {account}, at length: \xff\xfe?>".encode("latin-1")).decode()


class Sealer:
    """`down`: accounts that answer 503."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Received]] = []
        self.down: set[str] = set()
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
                await self._answer(writer, request)
                await writer.drain()
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, request: Received) -> None:
        headers = dict(request.headers)
        account = headers.get("x-goog-api-key") or headers["authorization"].removeprefix("Bearer ")
        if request.method == "POST":  # probes are not asked for by any test
            self.received.append((account, request))
        body = request.body.decode()
        foreign = {found.replace("-", "+").replace("_", "/") for found in _SEALS.findall(body) if found != UNSEALED} - {seal(account)}
        if account in self.down:
            plain(writer, {"error": {"message": "down", "type": "server_error"}}, 503)
        elif foreign:
            plain(writer, {"error": {"message": "The encrypted content could not be verified.", "type": "invalid_request_error",
                                     "code": "invalid_encrypted_content"}}, 400)  # fmt: skip
        elif "/responses" in request.path:
            await self._respond(writer, request.json(), account)
        elif "GenerateContent" in request.path:
            writer.write(head_bytes(200, (("content-type", "text/event-stream"), ("transfer-encoding", "chunked"))))
            written = f"data: {json.dumps(content(request.json(), account))}\r\n\r\n".encode()
            for at in range(0, len(written), 23):  # any cut
                writer.write(chunk(written[at : at + 23]))
                await writer.drain()
                await asyncio.sleep(0.001)
            writer.write(b"0\r\n\r\n")
        else:
            plain(writer, content(request.json(), account))

    async def _respond(self, writer: asyncio.StreamWriter, asked: dict[str, Any], account: str) -> None:
        again = isinstance(asked["input"], list) and any(item.get("type") == "function_call_output" for item in asked["input"])
        text = {"type": "output_text", "text": f"answered by {account}", "annotations": []}
        thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": seal(account)}
        said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
        items = [thought, said if again else CALL]
        whole = {
            "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": items,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None,
            "instructions": None, "metadata": {}, "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 1}},
        }  # fmt: skip
        if not asked.get("stream"):
            plain(writer, whole)
            return
        told: list[dict[str, Any]] = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
        for at, item in enumerate(items):
            told.append({"type": "response.output_item.added", "output_index": at, "item": item})
            if item is said:
                told += [{"type": "response.content_part.added", "item_id": "msg_1", "output_index": at, "content_index": 0, "part": text},
                         {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": at, "content_index": 0, "delta": text["text"]}]  # fmt: skip
            told.append({"type": "response.output_item.done", "output_index": at, "item": item})
        told.append({"type": "response.completed", "response": whole})
        await events(writer, [{**one, "sequence_number": at} for at, one in enumerate(told)])


def content(asked: dict[str, Any], account: str) -> dict[str, Any]:
    again = "functionResponse" in json.dumps(asked["contents"])
    part = {"text": f"answered by {account}"} if again else {"functionCall": {"name": "look", "args": {}}}
    return {
        "candidates": [{"content": {"role": "model", "parts": [{**part, "thoughtSignature": seal(account)}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}, "modelVersion": "gemini-3-pro", "responseId": "r",
    }  # fmt: skip
