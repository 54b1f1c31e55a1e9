"""The typed middle of embeddings: what is asked for, and the vectors that come back, whatever the API shape.

Law: values only, as in `types`. An input is one thing, to which one vector answers, in order.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

from llm_gateway.core.types import Audio, Document, Image, Text, Usage, Video

# fmt: off
Task = Literal["query", "document", "similarity", "classification", "clustering", "question", "fact", "code"]
Truncate = Literal["none", "start", "end"]
Encoding = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
# fmt: on
Piece = Text | Image | Audio | Video | Document
Vector = list[float] | str  # a str is base64 of little-endian float32, as it came


class Input(Struct, frozen=True, gc=False):
    """One of: `text`; `tokens` of the model's own vocabulary; `pieces`, which are embedded together. `title`: of a document.
    `at`: where the client wrote it."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    pieces: tuple[Piece, ...] = ()
    title: str | None = None
    at: str = ""


class EmbeddingCall(Struct, frozen=True, kw_only=True, gc=False):
    """`encodings`: how vectors are to be written, () for the shape's own way. `task`: what they are for. `truncate`: which end
    of too long an input may be cut, "none" to refuse it instead. `extras`: as in a Conversation."""

    model: str
    inputs: tuple[Input, ...]
    dimensions: int | None = None
    encodings: tuple[Encoding, ...] = ()
    task: Task | None = None
    truncate: Truncate | None = None
    normalize: bool | None = None
    user: str | None = None
    format: str = ""
    extras: dict[str, Raw] = {}


class Embeddings(Struct, frozen=True, kw_only=True, gc=False):
    """One whole reply. `usage`: None where the API tells of none. Vectors of whole numbers or bits, which only one shape has,
    are in `extras`."""

    model: str
    vectors: tuple[Vector, ...]
    id: str = ""
    usage: Usage | None = None
    format: str = ""
    extras: dict[str, Raw] = {}

    @property
    def finish(self) -> str | None:
        """Vectors have no reason to end."""
        return None
