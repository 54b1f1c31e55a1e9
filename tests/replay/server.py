"""An upstream that answers with recorded provider traffic.

Law: bytes as recorded; only their cut and their pace are chosen. Which recording answers, in this order:
1. queued by a test: `upstream.queue(id)`; 2. header `x-replay-id`; 3. a path that begins with `/replay/<id>/`, so that a
provider's `base_url` names it; 4. a `model` that is an id, in the body or in the path; 5. the recording nearest to the path, model and `stream`.
Standalone: `python tests/replay/server.py --port 9000 --cut events --delay 0.01`; GET /__received lists what came in.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import re
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # standalone: `replay` is a package of the tests' folder

from replay.recordings import Interaction, Recordings, cut, load
from replay.wire import HEAD_LIMIT, Received, Reply, read_request, write_reply

MODEL_IN_PATH = re.compile(r"/models?/(?:claude-|titan-embed-text-)?([^/:]+)(?::|/converse|/invoke)")  # Gemini, Bedrock


class ReplayUpstream:
    """`received` holds every request; `closed` counts connections that clients closed while a reply was being written."""

    def __init__(self, recordings: Recordings, cut: str = "events", delay: float = 0.0) -> None:
        self.recordings = recordings
        self.cut = cut
        self.delay = delay
        self.received: list[Received] = []
        self.closed = 0
        self.port = 0
        self._queue: deque[Interaction] = deque()
        self._connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def queue(self, *ids: str) -> None:
        """These recordings answer the next requests, whatever those are."""
        self._queue.extend(self.recordings.by_id[each] for each in ids)

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._connections += 1
        number = self._connections
        try:
            while (request := await read_request(reader, number)) is not None:
                await write_reply(writer, self._answer(request))
        except ConnectionError:
            self.closed += 1
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    def _answer(self, request: Received) -> Reply:
        if request.path == "/__received":
            return _json(200, [_shown(each) for each in self.received])
        self.received.append(request)
        found = self._find(request)
        if found is None:
            return _json(404, {"error": {"message": f"no recording for {request.method} {request.path}", "type": "replay"}})
        streamed = found.row["body_kind"] in ("sse", "ndjson", "eventstream")
        pieces = cut(found.body, self.cut if streamed else "whole")
        headers = (*found.headers, ("x-replay-interaction", found.id))
        return Reply(found.status, headers, pieces, length=not streamed, delay=self.delay)

    def _find(self, request: Received) -> Interaction | None:
        if self._queue:
            return self._queue.popleft()
        by_id = self.recordings.by_id
        path = request.path.partition("?")[0]
        if (named := request.header("x-replay-id")) is not None:
            return by_id.get(named)
        if path.startswith("/replay/"):
            return by_id.get(path.split("/")[2])
        try:
            body = request.json() if request.body else {}
        except ValueError:
            return None
        model = body.get("model") if isinstance(body, dict) else None
        if (named := MODEL_IN_PATH.search(path)) is not None:
            return by_id.get(named[1])
        return by_id.get(str(model)) or self.recordings.answering(path, body)


@contextlib.asynccontextmanager
async def replaying(cut: str = "events", delay: float = 0.0, recordings: Recordings | None = None) -> AsyncIterator[ReplayUpstream]:
    upstream = ReplayUpstream(recordings or load(), cut, delay)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def _json(status: int, value: Any) -> Reply:
    return Reply(status, (("content-type", "application/json"),), [json.dumps(value).encode()])


def _shown(each: Received) -> dict[str, Any]:
    shown = base64.b64encode(each.body).decode()
    return {"method": each.method, "path": each.path, "headers": each.headers, "body_b64": shown, "connection": each.connection}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--cut", default="events")
    parser.add_argument("--delay", type=float, default=0.0)
    chosen = parser.parse_args()
    upstream = ReplayUpstream(load(), chosen.cut, chosen.delay)
    await upstream.start(chosen.port)
    print(f"replaying {len(upstream.recordings.interactions)} interactions on {upstream.url}", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await upstream.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
