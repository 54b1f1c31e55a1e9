"""Vectors as numbers <-> as base64 of little-endian float32, exactly.

Law: a float32 becomes the same number; a number becomes the nearest float32. What is neither is an upstream's fault.
"""

from __future__ import annotations

import base64
import binascii
import struct
from math import isfinite

from llm_gateway.core.embedding import Vector
from llm_gateway.core.errors import Fault, Kind

_SIZE = 4


def numbers(vector: Vector) -> list[float]:
    if isinstance(vector, list):
        return vector
    try:
        data = base64.b64decode(vector, validate=True)
        told = list(struct.unpack(f"<{len(data) // _SIZE}f", data))
    except (binascii.Error, ValueError, struct.error):
        raise _broken() from None
    if not all(map(isfinite, told)):
        raise _broken()
    return told


def text(vector: Vector) -> str:
    if isinstance(vector, str):
        return vector
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (OverflowError, struct.error):
        raise _broken() from None


def _broken() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's vectors are not vectors of float32.")
