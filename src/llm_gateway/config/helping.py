"""Whether there is anything to do for a helper process.

Law: decided once, at start; the supervisor knows no configuration, so a reload does not change it.
"""

from __future__ import annotations

from llm_gateway.config import schema
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.providers.registry import provider as speaker

COUNTABLE = "gpt-4o"  # any model whose vocabulary is known


def wanted(root: schema.Root, snapshot: Snapshot) -> bool:
    """Some provider takes conversations and counts no tokens."""
    if root.helper == "off":
        return False
    voices = [speaker(each.type) for each in snapshot.providers]
    return any(voice.formats("chat", COUNTABLE) and not voice.formats("count", COUNTABLE) for voice in voices)
