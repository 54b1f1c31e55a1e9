"""Sections of config.yaml about what outlives the processes: the database, the journal, the record of usage.

Law: as schema.py, of which this is a part.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llm_gateway.config.values import Seconds, Section, readable

Days = Annotated[int, Field(ge=1, le=36_500)]


class Database(Section):
    url: Annotated[str, Field(pattern=r"^(sqlite:///|postgres(ql)?://[^/])"), AfterValidator(readable)] | None = Field(
        default=None,
        description="`postgresql://user:password@host/name`, which replicas share, or `sqlite:///file` (DATABASE_URL); `gateway.db` in `data_dir` if unset.",
    )
    keep_removed_days: Days = Field(
        default=30, description="How long removed tenants, projects, users and keys are remembered. A replica that was away longer reads everything anew."
    )


class Journal(Section):
    on_error: Literal["refuse", "continue"] = Field(
        default="refuse", description="When usage cannot be written: refuse new requests, or go on and lose rows."
    )
    keep: Annotated[Seconds, Field(ge=60)] = Field(
        default=86_400.0, description="How long a file stays, all of which is in the database; a minute at least, in which the audit log reads it."
    )


class Usage(Section):
    keep_days: Days = Field(default=90, description="How long the rows of single requests stay in the database.")
    keep_sums_days: Days = Field(default=731, description="How long their sums by hour and day stay.")
