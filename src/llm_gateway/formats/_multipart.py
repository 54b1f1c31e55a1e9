"""multipart/form-data bodies (RFC 7578): cut into their parts, and joined again with one field replaced.

Law: a part that is not ours to change keeps its bytes, headers and place. The boundary is read from the body's first line, which
every client begins with (RFC 2046 section 5.1.1 lets text stand before it; Unity writes a line end, nobody more, and more is refused
here). Other readers are less strict, each in its own way: what one of them could take for another part, or for another name of this
one, is refused, or it would see a `model` that nobody here has checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Raw, Struct

from llm_gateway.formats._members import invalid

MOST_PARTS = 200
_OPENING = re.compile(rb"(?:\r\n)?--([0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?])\r\n")
_DISPOSITION = re.compile(rb"(?im)^[ \t]*content-disposition[ \t]*:[^\r\n]*")
_NAMES = re.compile(rb"(?i)(?<![\w.-])name[ \t]*(?:\*[^=]*)?=")  # within a file's name, too: not all know where that ends
_NAME = re.compile(rb'(?i)^content-disposition:.*?[; \t]name=(?:"([^"\\]*)"|([^;\s"\\]+))')
_FOLD = re.compile(rb"\r\n(?=[ \t])")


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
    _, *pieces = body.split(b"--" + boundary, MOST_PARTS + 1)
    if len(pieces) > MOST_PARTS:
        raise invalid(f"The multipart body has more than {MOST_PARTS} parts.")
    if not pieces[-1].startswith(b"--") or pieces[-1][2:].strip():
        raise invalid("The multipart body is not complete: its closing boundary is missing.")
    return Form(boundary, [_part(piece) for piece in pieces[:-1]])


def join(form: Form, name: str, value: str) -> bytes:
    """The body again, with the plain field `name` (every one of that name) replaced, or added. Raises Fault INVALID for a value that
    would end its part."""
    if b"--" + form.boundary in value.encode():
        raise invalid(f"'{name}' must not hold the form's boundary.", name)
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
    if not piece.endswith(b"\r\n"):
        raise invalid("A boundary of the multipart body does not begin a line.")
    head, gap, body = piece[2:-2].partition(b"\r\n\r\n")
    if not gap:
        raise invalid("A part of the multipart body has no end to its headers.")
    return Part(_name(head), head, body)


def _name(head: bytes) -> str:
    lines = _FOLD.sub(b"", head)
    said = _DISPOSITION.findall(lines)
    bare = lines.replace(b"\r\n", b"")
    if len(said) > 1 or b"\r" in bare or b"\n" in bare or sum(len(_NAMES.findall(line)) for line in said) > 1:
        raise invalid("A part of the multipart body has a name that could be read in several ways.")
    found = _NAME.match(said[0]) if said else None
    if found is None:
        raise invalid("A part of the multipart body has no name.")
    return (found[1] if found[1] is not None else found[2]).decode("utf-8", "replace")
