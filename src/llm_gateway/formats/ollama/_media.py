"""Images as Ollama has them: base64 and nothing else <-> Media.

Law: the data is passed on as it is; its type, which other shapes need, is told by how it begins.
"""

from __future__ import annotations

import re

from llm_gateway.core.types import Media
from llm_gateway.formats._members import invalid

# How base64 of a file begins, by what it is.
_BEGINNINGS = (
    ("iVBOR", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("Qk", "image/bmp"),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def read(data: str) -> Media:
    return Media(next((mime for beginning, mime in _BEGINNINGS if data.startswith(beginning)), None), data)


def given(data: str, path: str) -> Media:
    """A client's. Fault(INVALID) for what Ollama itself would not decode."""
    if _BASE64.fullmatch(data) is None or len(data) % 4:
        raise invalid(f"'{path}' must be base64, without a data URL's beginning.", path)
    return read(data)
