"""What happens to each part of an embeddings request on its way into another shape: one table, which the writers obey.

Law: as in `crossings`: KEPT, ADJUSTED, DROPPED and reported, or REFUSED, since vectors of another kind or number than was
asked for are another answer. Fields that no type names are dropped and reported.

Beyond the table:
- what vectors are for ("query", "document") has a word in each API that asks for it; one that an API lacks becomes its
  nearest, reported. Cohere will not go without: documents, where nobody said.
- base64 and numbers become each other; whole numbers and bits come from Cohere only.
- several inputs are one request where a shape takes several, refused where it takes one (Titan, `embedContent`).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from llm_gateway.core.embedding import EmbeddingCall, Task
from llm_gateway.core.types import Text
from llm_gateway.formats._members import invalid
from llm_gateway.formats.crossings import Fate


class Row(Struct, frozen=True):
    """asked: whether a call asks for it. why: what REFUSE says."""

    field: str
    asked: Callable[[EmbeddingCall], bool]
    why: str = ""


TABLE = (
    Row("several", lambda call: len(call.inputs) > 1, "it takes one input for each request"),
    Row("tokens", lambda call: any(one.tokens is not None for one in call.inputs), "it has other token numbers: send text"),
    Row("media", lambda call: any(not isinstance(part, Text) for one in call.inputs for part in one.pieces), "it takes text"),
    Row("title", lambda call: any(one.title for one in call.inputs)),
    Row("dimensions", lambda call: call.dimensions is not None, "its vectors have the length they have"),
    Row("encodings", lambda call: not {"float", "base64"}.issuperset(call.encodings), "its vectors are of float32"),
    Row("task", lambda call: call.task is not None),
    Row("truncate", lambda call: call.truncate is not None),
    Row("normalize", lambda call: call.normalize is not None),
    Row("user", lambda call: call.user is not None),
)

# Per shape, what it does not simply keep.
_ADJUST, _DROP, _REFUSE = Fate.ADJUST, Fate.DROP, Fate.REFUSE
_COHERE = {
    "tokens": _REFUSE, "media": _ADJUST, "title": _DROP, "task": _ADJUST, "normalize": _DROP, "user": _DROP,
}  # fmt: skip
_GEMINI = {
    "tokens": _REFUSE, "encodings": _REFUSE, "task": _ADJUST, "truncate": _DROP, "normalize": _DROP, "user": _DROP,
}  # fmt: skip
_PLAIN = {
    "tokens": _REFUSE, "media": _REFUSE, "title": _DROP, "encodings": _REFUSE, "task": _DROP, "normalize": _DROP, "user": _DROP,
}  # fmt: skip
COLUMNS: dict[str, dict[str, Fate]] = {
    "openai_embeddings": {
        "media": _REFUSE, "title": _DROP, "encodings": _REFUSE, "task": _DROP, "truncate": _DROP, "normalize": _DROP,
    },
    "gemini_embed": _GEMINI | {"several": _REFUSE},
    "gemini_embed_batch": _GEMINI,
    "cohere_embed": _COHERE,
    "cohere_embed_v1": _COHERE,
    "bedrock_cohere_embed": _COHERE,
    "ollama_embed": _PLAIN | {"truncate": _ADJUST},
    "ollama_embeddings": _PLAIN | {"several": _REFUSE, "dimensions": _REFUSE, "truncate": _DROP},
    "vertex_embed": {
        "tokens": _REFUSE, "media": _REFUSE, "encodings": _REFUSE, "task": _ADJUST, "truncate": _ADJUST, "normalize": _DROP, "user": _DROP,
    },
    "bedrock_titan_embed": _PLAIN | {"several": _REFUSE, "truncate": _DROP, "normalize": Fate.KEEP},
}  # fmt: skip

# What clients call a part, where that is not our name.
_GEMINI_NAMES = {"several": "requests", "media": "content", "dimensions": "outputDimensionality", "task": "taskType"}
_COHERE_NAMES = {
    "several": "texts", "media": "inputs", "dimensions": "output_dimension", "encodings": "embedding_types", "task": "input_type",
}  # fmt: skip
_NAMES: dict[str, dict[str, str]] = {
    "openai_embeddings": {
        "several": "input", "tokens": "input", "media": "input", "encodings": "encoding_format", "task": "input_type",
    },
    "gemini_embed": _GEMINI_NAMES,
    "gemini_embed_batch": dict.fromkeys(_GEMINI_NAMES, "requests"),
    "cohere_embed": _COHERE_NAMES,
    "cohere_embed_v1": _COHERE_NAMES,
    "bedrock_cohere_embed": _COHERE_NAMES,
    "ollama_embed": {"several": "input"},
    "vertex_embed": {
        "several": "instances", "dimensions": "parameters.outputDimensionality", "task": "instances[0].task_type",
        "truncate": "parameters.autoTruncate", "title": "instances[0].title",
    },
}  # fmt: skip

# Members of OpenAI's followers, kept as written, whose meaning is in `task` and `truncate`.
_TASK_MEMBERS = frozenset({"input_type", "task", "task_type"})
_TRUNCATE_MEMBERS = frozenset({"truncate", "truncation"})

# Words of the APIs that ask what vectors are for, lower case -> ours.
TASKS: dict[str, Task] = {
    "query": "query",
    "search_query": "query",
    "retrieval_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval_document": "document",
    "retrieval.passage": "document",
    "semantic_similarity": "similarity",
    "similarity": "similarity",
    "text-matching": "similarity",
    "classification": "classification",
    "clustering": "clustering",
    "separation": "clustering",
    "question_answering": "question",
    "fact_verification": "fact",
    "code_retrieval_query": "code",
    "code.query": "code",
}


def name(call: EmbeddingCall, field: str) -> str:
    return _NAMES.get(call.format, {}).get(field, field)


def fate(row: Row, shape: str) -> Fate:
    return COLUMNS[shape].get(row.field, Fate.KEEP)


def unsaid(call: EmbeddingCall, shape: str) -> list[str]:
    """The client's names of what `shape` cannot say of `call`. Fault(INVALID) where that would change the answer."""
    dropped: list[str] = []
    if call.format == shape:
        return dropped
    for row in TABLE:
        what = fate(row, shape)
        if what not in {Fate.DROP, Fate.REFUSE} or not row.asked(call):
            continue
        own = name(call, row.field)
        if what is Fate.REFUSE:
            raise invalid(f"'{own}' is not possible with this model: {row.why}.", own)
        dropped.append(own)
    told = _TASK_MEMBERS if call.task is not None else frozenset[str]()
    told |= _TRUNCATE_MEMBERS if call.truncate is not None else frozenset()
    return dropped + [name for name in call.extras if name not in told]
