"""The gateway and its upstreams, as the SDKs' tests have them."""

from __future__ import annotations

from e2e.conftest import broken, gateway, loop_thread, recordings, replay, studio

__all__ = ["broken", "gateway", "loop_thread", "recordings", "replay", "studio"]
