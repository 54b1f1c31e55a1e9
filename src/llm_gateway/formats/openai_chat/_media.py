"""Data URLs and file names <-> Media.

Law: base64 text is passed on as it is; only its prefix is read.
"""

from __future__ import annotations

from llm_gateway.core.types import Media
from llm_gateway.formats._members import invalid

_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/opus", "pcm16": "audio/pcm"}
_EXTENSIONS = {"application/pdf": "pdf", "text/plain": "txt", "text/csv": "csv", "text/markdown": "md"}


def from_url(url: str, path: str) -> Media:
    if not url:
        raise invalid(f"'{path}' must not be empty.", path)
    if not url.startswith("data:"):
        return Media(url=url)
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64") or not data:
        raise invalid(f"'{path}' must be an http(s) URL or a base64 data URL.", path)
    return Media(mime=head[5:-7].partition(";")[0] or None, data=data)


def to_url(media: Media) -> str:
    """Media has data or url."""
    if media.data is not None:
        return f"data:{media.mime or 'application/octet-stream'};base64,{media.data}"
    return media.url or ""


def audio_mime(name: str) -> str:
    return _AUDIO.get(name, f"audio/{name}")


def file_name(mime: str | None) -> str:
    """OpenAI requires a name for inline files."""
    return f"document.{_EXTENSIONS.get(mime or '', 'bin')}"
