"""What happens to the gateway that people want to hear of, by name."""

from __future__ import annotations

from typing import Any, Literal, get_args

from msgspec import Struct

Kind = Literal[
    "breaker_opened", "breaker_closed", "key_disabled", "key_restored", "cooling", "provider_down", "provider_up",
    "credentials_refused", "config_reloaded", "config_refused", "worker_restarted",
    "database_away", "database_back", "database_migrated", "journal_line_refused",
    "redis_away", "redis_back", "budget_alert", "audit_unwritable", "audit_written",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
GRAVE = frozenset({
    "breaker_opened", "key_disabled", "provider_down", "credentials_refused", "config_refused", "worker_restarted", "database_away",
    "journal_line_refused", "audit_unwritable", "redis_away",
})  # fmt: skip


class Happening(Struct, frozen=True):
    """`id`: of its own in the world, and greater than those before it. `timestamp`: RFC 3339. `gateway`: the machine's name."""

    id: str
    type: Kind
    timestamp: str
    gateway: str
    data: dict[str, Any]
