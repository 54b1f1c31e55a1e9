from __future__ import annotations

import pytest

from llm_gateway.policies.regions import FAR, SAME_AREA, SAME_REGION, SAME_ZONE, area, distance, within


@pytest.mark.parametrize(
    ("place", "wanted", "is_in"),
    [
        ("eu-west-1", ("eu",), True), ("eu-central-1", ("eu-*",), True), ("westeurope", ("eu",), True), ("swedencentral", ("eu",), True),
        ("europe-west4", ("eu",), True), ("us-east-1", ("eu",), False), ("eastus2", ("us",), True), ("us", ("us",), True),
        ("eu-west-2", ("eu",), False), ("eu-west-2", ("uk",), True), ("uksouth", ("eu",), False), ("eu-central-2", ("eu",), False),
        ("europe-west6", ("eu",), False), ("switzerlandnorth", ("ch",), True), ("eu-west-2", ("eu-*",), True), ("eu-west-1", ("eu-west-1",), True),
        ("eu-west-1", ("us", "eu"), True), ("global", ("eu",), False), ("ap-southeast-2", ("au",), True), ("eu", ("eu",), True),
        ("us-gov-west-1", ("us",), True), ("canadaeast", ("us",), False), ("eu-west-1", (), False),
    ],
)  # fmt: skip
def test_a_region_is_in_an_area_a_pattern_or_itself(place, wanted, is_in):
    assert within(place, wanted) is is_in


def test_london_and_zurich_are_no_eu():
    assert [area(place) for place in ("eu-west-2", "eu-central-2", "eu-west-3")] == ["uk", "ch", "eu"]


def test_the_nearer_the_less():
    ours = ("eu-west-1", "eu-west-1a")
    assert distance(ours, ("eu-west-1", "eu-west-1a")) == SAME_ZONE
    assert distance(ours, ("eu-west-1", "eu-west-1b")) == SAME_REGION
    assert distance(ours, ("francecentral", None)) == SAME_AREA
    assert distance(ours, ("us-east-1", None)) == FAR
    assert distance(ours, (None, None)) == distance((None, None), ("us-east-1", None)) == SAME_REGION
