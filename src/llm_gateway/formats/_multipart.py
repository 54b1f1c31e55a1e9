"""multipart/form-data bodies (RFC 7578): cut into their parts, and joined again with one field replaced.

Law: a part that is not ours to change keeps its bytes, headers and place. The boundary is read from the body's first line, which
every client begins with (RFC 2046 section 5.1.1 lets text stand before it; nobody writes any, and it is refused here).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Raw, Struct

from llm_gateway.formats._members import invalid

MOST_PARTS = 200
_OPENING = re.compile(rb"--([0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?])\r\n")
_NAME = re.compile(rb'(?i)^content-disposition:[^\r\n]*?[; \t]name=(?:"((?:[^"\\\r\n]|\\.)*)"|([^;\s"]+))', re.MULTILINE)


class Part(Struct, gc=False):
    """head: its header lines, without the empty one; body: as sent."""

    name: str
    head: bytes
    body: bytes


class Form(Struct, gc=False):
    boundary: bytes
    parts: list[Part]

    def said(self) -> Iterator[bytes]:
        """The same of all forms that say the same, whatever their boundaries."""
        for part in self.parts:
            yield b"%d %d\r\n" % (len(part.head), len(part.body))
            yield part.head
            yield part.body


def read(body: bytes) -> Form:
    """Raises Fault INVALID."""
    opening = _OPENING.match(body)
    if opening is None:
        raise invalid("The request body must be multipart/form-data.")
    boundary = opening[1]
    mark = b"\r\n--" + boundary
    pieces = body[opening.end() - 2 :].split(mark)
    if not pieces[-1].startswith(b"--") or pieces[-1][2:].strip():
        raise invalid("The multipart body is not complete: its closing boundary is missing.")
    if len(pieces) > MOST_PARTS:
        raise invalid(f"The multipart body has more than {MOST_PARTS} parts.")
    return Form(boundary, [_part(piece) for piece in pieces[:-1]])


def join(form: Form, name: str, value: str) -> bytes:
    """The body again, with the plain field `name` (every one of that name) replaced, or added."""
    own = Part(name, b'Content-Disposition: form-data; name="%b"' % name.encode(), value.encode())
    parts = [own if part.name == name else part for part in form.parts]
    if own not in parts:
        parts.append(own)
    written = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (form.boundary, part.head, part.body) for part in parts]
    return b"".join((*written, b"--%b--\r\n" % form.boundary))


def members(form: Form) -> dict[str, Raw]:
    """Each part by its name, as written, the last where a name repeats."""
    return {part.name: Raw(part.body) for part in form.parts}


def text(form: Form, name: str) -> str | None:
    """The value of a plain field; None where there is none. Raises Fault INVALID if it is no text."""
    found = next((part for part in reversed(form.parts) if part.name == name), None)
    if found is None:
        return None
    try:
        return found.body.decode()
    except UnicodeDecodeError:
        raise invalid(f"'{name}' is not valid UTF-8.", name) from None


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise invalid("A boundary of the multipart body is followed by something else than a new line.")
    head, gap, body = piece[2:].partition(b"\r\n\r\n")
    if not gap:
        raise invalid("A part of the multipart body has no end to its headers.")
    found = _NAME.search(head)
    if found is None:
        raise invalid("A part of the multipart body has no name.")
    name = (found[1] if found[1] is not None else found[2]).decode("utf-8", "replace")
    return Part(name.replace('\\"', '"'), head, body)
