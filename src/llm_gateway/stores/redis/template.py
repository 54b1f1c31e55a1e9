"""One script's call as bytes: what is the same for every request of an account is put together once. Pure.

Law: EVALSHA sha n KEYS... [mark+REQUEST] (letter limit)... REQUEST NUMBERS [SEEDS], as scripts.py reads it.
"""

from __future__ import annotations

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.resp import Script, pack
from llm_gateway.stores.redis.scripts import keys, letter, tag


class Template:
    """`marker`: whether the script is also given the key that remembers a request."""

    __slots__ = ("_heads", "_mark", "_middle", "script")

    def __init__(self, script: Script, owner: str, claims: tuple[Claim, ...], *, marker: bool = False) -> None:
        self.script = script
        names = [key for claim in claims for key in keys(owner, claim)]
        said: list[str | int] = [word for claim in claims for word in (letter(claim), claim.limit)]
        fixed: list[bytes | int] = [b"EVALSHA", script.sha, len(names) + marker, *names]
        head, middle, count = _words(*fixed), _words(*said), len(fixed) + marker + len(said)
        self._mark = f"llmgw:{{{tag(owner)}}}:!".encode() if marker else b""
        self._middle = middle
        self._heads = tuple(b"*%d\r\n" % (count + more) + head + (b"" if marker else middle) for more in (2, 3))

    def fill(self, request: bytes, numbers: bytes, seeds: bytes | None = None) -> bytes:
        head, mark, size = self._heads[seeds is not None], self._mark, len(request)
        if mark:
            head = b"%b$%d\r\n%b%b\r\n%b" % (head, len(mark) + size, mark, request, self._middle)
        if seeds is None:
            return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (head, size, request, len(numbers), numbers)
        return b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (head, size, request, len(numbers), numbers, len(seeds), seeds)


def _words(*words: bytes | str | int) -> bytes:
    """As in a command, without the line that counts them."""
    return pack(*words).partition(b"\r\n")[2] if words else b""
