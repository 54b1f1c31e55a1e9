"""One script's call as bytes: what is the same for every request of an account is put together once, as one format. Pure.

Law: EVALSHA sha n KEYS... [mark+REQUEST] (letter limit)... REQUEST NUMBERS [SEEDS], as scripts.py reads it.
"""

from __future__ import annotations

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.resp import Script, pack
from llm_gateway.stores.redis.scripts import keys, letter, tag


class Template:
    """`marker`: whether the script is also given the key that remembers a request."""

    __slots__ = ("_mark", "_plain", "_seeded", "script")

    def __init__(self, script: Script, owner: str, claims: tuple[Claim, ...], *, marker: bool = False) -> None:
        self.script = script
        names = [key for claim in claims for key in keys(owner, claim)]
        limits: list[str | int] = [word for claim in claims for word in (letter(claim), claim.limit)]
        fixed: list[bytes | int] = [b"EVALSHA", script.sha, len(names) + marker, *names]
        head, middle, count = _words(*fixed), _words(*limits), len(fixed) + marker + len(limits)
        mark = f"llmgw:{{{tag(owner)}}}:!".encode()
        self._mark = len(mark) if marker else 0
        marked = b"$%%d\r\n%b%%b\r\n" % mark if marker else b""
        said = (head.replace(b"%", b"%%"), marked, middle.replace(b"%", b"%%"))
        word = b"$%d\r\n%b\r\n"
        self._plain = b"*%d\r\n%b%b%b" % (count + 2, *said) + 2 * word
        self._seeded = b"*%d\r\n%b%b%b" % (count + 3, *said) + 3 * word

    def fill(self, request: bytes, numbers: bytes, seeds: bytes | None = None) -> bytes:
        size = len(request)
        if seeds is None:
            if self._mark:
                return self._plain % (self._mark + size, request, size, request, len(numbers), numbers)
            return self._plain % (size, request, len(numbers), numbers)
        rest = (size, request, len(numbers), numbers, len(seeds), seeds)
        return self._seeded % ((self._mark + size, request, *rest) if self._mark else rest)


def _words(*words: bytes | str | int) -> bytes:
    """As in a command, without the line that counts them."""
    return pack(*words).partition(b"\r\n")[2] if words else b""
