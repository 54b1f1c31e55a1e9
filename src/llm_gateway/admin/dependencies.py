"""What the gateway leans on besides providers, as /health shows it: Redis and the disk.

Law: bounded waits, no client library; one PING says all that is shown.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from urllib.parse import unquote, urlsplit

TIMEOUT = 1.0


class Dependencies:
    """`redis`: None where none is configured."""

    def __init__(self) -> None:
        self.redis: bool | None = None

    async def probe(self, redis_url: str | None) -> None:
        self.redis = await ping(redis_url) if redis_url is not None else None


async def ping(url: str) -> bool:
    """Whether a Redis answers at `url` and lets us in."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await _open(url)
            try:
                writer.write(_greeting(url) + b"PING\r\n")
                await writer.drain()
                while True:
                    line = await reader.readline()
                    if line.startswith(b"+PONG"):
                        return True
                    if not line.startswith(b"+"):
                        return False
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    tls = ssl.create_default_context() if parts.scheme == "rediss" else None
    return await asyncio.open_connection(parts.hostname, parts.port or 6379, ssl=tls)


def _greeting(url: str) -> bytes:
    parts = urlsplit(url)
    if parts.password is None:
        return b""
    words = [b"AUTH", *([unquote(parts.username).encode()] if parts.username else []), unquote(parts.password).encode()]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def disk_space_gb(folder: str) -> float:
    """Free space where the journal goes; 0 where that cannot be told."""
    try:
        return round(shutil.disk_usage(Path(folder)).free / 1e9, 1)
    except OSError:
        return 0.0
