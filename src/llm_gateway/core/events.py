"""What can happen in a streamed reply: a small closed union that every format reads into and writes from.

Law: values only. A stream is `Start`, then per part `PartStart` / deltas / `PartEnd`, then one `Finish` per choice, any
number of `UsageUpdate` (each replaces the last), then `End`; or `Failed` at any point, after which nothing comes.
`index` numbers the parts of a choice in order of appearance. A reader makes these transitions explicit even where its
shape leaves them implied (OpenAI chat never says that a part began or ended). Matching ends in `assert_never`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Citation, FinishReason, Logprob, Usage

PartKind = Literal["text", "reasoning", "tool", "refusal", "audio", "opaque"]


class Start(Struct, frozen=True, gc=False):
    id: str
    model: str
    created: int = 0
    service_tier: str | None = None
    fingerprint: str | None = None


class PartStart(Struct, frozen=True, gc=False):
    """`id`, `name`: of the tool call; `tool_kind` "custom" streams free text instead of JSON. `raw`: an opaque part's
    own opening object, in the shape `format`. `redacted`: a sealed reasoning part, whole."""

    index: int
    kind: PartKind
    choice: int = 0
    id: str | None = None
    name: str | None = None
    tool_kind: Literal["function", "custom"] = "function"
    redacted: str | None = None
    format: str = ""
    raw: Raw | None = None


class Delta(Struct, frozen=True, gc=False):
    """More of the part `index`: its text, its thinking, its tool arguments (JSON text), its refusal, its audio (base64)."""

    index: int
    text: str
    choice: int = 0


class SignatureDelta(Struct, frozen=True, gc=False):
    index: int
    signature: str
    choice: int = 0
    format: str = ""


class CitationDelta(Struct, frozen=True, gc=False):
    index: int
    citation: Citation
    choice: int = 0


class TranscriptDelta(Struct, frozen=True, gc=False):
    """Spoken words of an audio part; `id` and `expires_at` come with its first or last piece."""

    index: int
    text: str
    choice: int = 0
    id: str | None = None
    expires_at: int | None = None


class LogprobsDelta(Struct, frozen=True, gc=False):
    logprobs: tuple[Logprob, ...]
    choice: int = 0


class OpaqueDelta(Struct, frozen=True, gc=False):
    """A delta only its own shape can say."""

    index: int
    format: str
    raw: Raw
    choice: int = 0


class PartEnd(Struct, frozen=True, gc=False):
    index: int
    choice: int = 0


class Finish(Struct, frozen=True, gc=False):
    finish: FinishReason
    choice: int = 0
    stop_sequence: str | None = None
    native_finish: str | None = None


class UsageUpdate(Struct, frozen=True, gc=False):
    usage: Usage


class End(Struct, frozen=True, gc=False):
    """The shape's end mark went by. A stream without it was cut."""


class Failed(Struct, frozen=True, gc=False):
    fault: Fault


Event = (
    Start
    | PartStart
    | Delta
    | SignatureDelta
    | CitationDelta
    | TranscriptDelta
    | LogprobsDelta
    | OpaqueDelta
    | PartEnd
    | Finish
    | UsageUpdate
    | End
    | Failed
)
