from __future__ import annotations

import pytest

from llm_gateway.policies.quota import pause

NOW = 1_764_000_000.0
REQUESTS, RESET = b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        (b"1s", 1.0), (b"6m0s", 300.0), (b"20ms", 0.02), (b"1m2.5s", 62.5), (b"2h", 300.0), (b"12.5", 12.5), (b"0", 0.0), (b"", 1.0),
        (b"1764000030", 30.0), (b"2025-11-24T16:00:30Z", 30.0), (b"soon", 1.0), (b"-5", 1.0), (b"nan", 1.0), (b"1e300", 1.0),
    ],
)  # fmt: skip
def test_what_is_used_up_is_waited_for(reset, seconds):
    assert pause({REQUESTS: b"0", RESET: reset}, NOW) == pytest.approx(seconds, abs=0.001)


def test_who_has_room_left_is_not_spared():
    assert pause({REQUESTS: b"1", RESET: b"60s"}, NOW) == 0.0
    assert pause({}, NOW) == 0.0


def test_the_longest_counts():
    headers = {REQUESTS: b"0", RESET: b"1s", b"anthropic-ratelimit-tokens-remaining": b"0", b"anthropic-ratelimit-tokens-reset": b"2025-11-24T16:00:09Z"}
    assert pause(headers, NOW) == pytest.approx(9.0)
