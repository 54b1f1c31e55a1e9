"""Converse's names for kinds of files <-> MIME types, and bytes whose kind nobody named.

Law: data and its look-up. https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

from __future__ import annotations

from llm_gateway.core.types import Media

IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}
DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}
VIDEOS = {
    "mp4": "video/mp4",
    "mkv": "video/x-matroska",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "flv": "video/x-flv",
    "mpeg": "video/mpeg",
    "mpg": "video/mpg",
    "wmv": "video/x-ms-wmv",
    "three_gp": "video/3gpp",
}
SOUNDS = {
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mpeg": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "mp4": "audio/mp4",
    "ogg": "audio/ogg",
    "mkv": "audio/x-matroska",
    "mka": "audio/mka",
    "x-aac": "audio/x-aac",
    "m4a": "audio/m4a",
    "mpga": "audio/mpga",
    "pcm": "audio/pcm",
    "webm": "audio/webm",
}
_SYNONYMS = {
    "image/jpg": "image/jpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/l16": "audio/pcm",
    "audio/x-m4a": "audio/m4a",
    "text/x-markdown": "text/markdown",
    "application/csv": "text/csv",
}
# How base64 of a file begins, by what it is.
_BEGINNINGS = (
    ("iVBOR", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", "application/pdf"),
)
S3 = "s3://"


def word(media: Media, names: dict[str, str]) -> str | None:
    """What Converse calls the type of `media`; None for one that it has no name for."""
    mime = (media.mime or _guess(media.data or "")).partition(";")[0].strip().lower()
    mime = _SYNONYMS.get(mime, mime)
    return next((name for name, known in names.items() if known == mime), None)


def _guess(data: str) -> str:
    return next((mime for beginning, mime in _BEGINNINGS if data.startswith(beginning)), "")
