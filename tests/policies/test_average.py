from __future__ import annotations

import pytest

from llm_gateway.policies.average import Average, Sample


def test_the_first_values_count_alike_and_later_ones_an_eighth():
    average = Average()
    for value in (1.0, 2.0, 3.0):
        average.add(value, 0.0)
    assert average.value == pytest.approx(2.0)
    for _ in range(100):
        average.add(10.0, 5.0)
    assert average.value == pytest.approx(10.0, abs=0.01)


def test_what_nobody_looks_at_fades():
    average = Average()
    assert average.faded(0.0, 60.0) == 0.0
    average.add(8.0, 100.0)
    assert [average.faded(at, 60.0) for at in (100.0, 160.0, 220.0)] == [8.0, 4.0, 2.0]


def test_a_quantile_needs_some_values_and_forgets_old_ones():
    sample = Sample(size=10, least=3)
    sample.add(1.0)
    sample.add(1.0)
    assert sample.quantile(0.95) is None
    for value in range(100):
        sample.add(float(value))
    assert sample.quantile(0.95) == 99.0
    assert sample.quantile(0.0) == 90.0
