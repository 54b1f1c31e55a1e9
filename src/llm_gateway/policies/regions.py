"""Where things are, and how far apart. Pure.

A place is written as its cloud has it (`eu-west-1`, `europe-west4`, `westeurope`, `eastus2`), with a zone if one is known
(`eu-west-1a`). Nothing is looked up: two names are near when they are alike, and nearer when they share their continent.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

SAME_ZONE, SAME_REGION, SAME_AREA, FAR = range(4)

# What clouds call a part of the world, as patterns of region names; `eu`, `us`… may be used wherever a region may.
AREAS: dict[str, tuple[str, ...]] = {
    "eu": (
        "eu", "eu-*", "europe-*", "*europe", "france*", "germany*", "sweden*", "italy*", "norway*", "poland*", "spain*", "austria*",
        "belgium*", "denmark*", "finland*", "netherlands*",
    ),
    "uk": ("uk", "uk-*", "uksouth", "ukwest", "eu-west-2", "europe-west2"),
    "ch": ("ch", "switzerland*", "eu-central-2", "europe-west6"),
    "us": ("us", "us-*", "*us", "*us2", "*us3", "northamerica-us*"),
    "ca": ("ca", "ca-*", "canada*", "northamerica-northeast*"),
    "sa": ("sa", "sa-*", "southamerica-*", "brazil*"),
    "asia": ("ap-*", "asia*", "*asia", "japan*", "korea*", "*india", "jio*", "indonesia*", "malaysia*"),
    "au": ("au", "australia*", "ap-southeast-2", "ap-southeast-4", "newzealand*"),
    "me": ("me-*", "il-*", "uae*", "qatar*", "israel*"),
    "af": ("af-*", "africa-*", "southafrica*"),
}  # fmt: skip
APART = {"eu": ("uk", "ch")}  # clouds file London and Zurich under Europe; the law that asks for `eu` does not


def within(place: str, wanted: Iterable[str]) -> bool:
    """Whether a region is one of those wanted: itself, an area (`eu`), or a pattern (`eu-*`)."""
    return any(_in(place, each) if each in AREAS else fnmatchcase(place, each) for each in wanted)


def _in(place: str, area: str) -> bool:
    if any(_in(place, other) for other in APART.get(area, ())):
        return False
    return any(fnmatchcase(place, pattern) for pattern in AREAS.get(area, ()))


def area(place: str) -> str | None:
    return next((name for name in AREAS if _in(place, name)), None)


def distance(ours: tuple[str | None, str | None], theirs: tuple[str | None, str | None]) -> int:
    """From (region, zone) to (region, zone): SAME_ZONE … FAR. Who has said nothing is as near as our own region."""
    if ours[0] is None or theirs[0] is None:
        return SAME_REGION
    if ours[0] == theirs[0]:
        return SAME_ZONE if ours[1] is not None and ours[1] == theirs[1] else SAME_REGION
    mine = area(ours[0])
    return SAME_AREA if mine is not None and mine == area(theirs[0]) else FAR
