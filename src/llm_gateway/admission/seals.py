"""Ids that a provider handed out leave the gateway sealed: who made them stands inside, and only their tenant can open them.

    resp_ + base64url(AES-SIV(key, "provider NUL key id NUL upstream id", associated data: tenant))

AES-SIV (RFC 5297) is deterministic: one upstream id has one sealed id, in every event of a stream and on every replica, without a
table. Law: knows no request; an id that does not open is simply not ours.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Protocol

from msgspec import Struct

from llm_gateway.formats.marks import Marks

_LABEL = b"sealed ids, version 1"


class Cipher(Protocol):
    def encrypt(self, data: bytes, associated_data: list[bytes], /) -> bytes: ...
    def decrypt(self, data: bytes, associated_data: list[bytes], /) -> bytes: ...


class Opened(Struct, frozen=True, gc=False):
    provider: str
    key_id: str
    id: str


def load_cipher(secret: bytes) -> tuple[Cipher, type[Exception]]:
    """The cipher, and what it raises for what it did not seal. Imports 30 ms worth of library: only who needs it pays."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415

    return AESSIV(hmac.digest(secret, _LABEL, "sha256")), InvalidTag


class Seals:
    """Loads its cipher when told to, or when the first id comes by. `marks`: what providers seal themselves is only marked."""

    def __init__(self, secret: bytes) -> None:
        self.marks = Marks(secret)
        self._secret = secret
        self._loaded: tuple[Cipher, type[Exception]] | None = None

    def seal(self, tenant: str, made: Opened) -> str:
        cipher, _ = self.load()
        word, line, _ = made.id.partition("_")
        prefix = word + line if line and word.isascii() and word.isalpha() else ""  # "resp_", as SDKs like to see it; xAI's are UUIDs
        text = f"{made.provider}\0{made.key_id}\0{made.id}".encode()
        return prefix + base64.urlsafe_b64encode(cipher.encrypt(text, [tenant.encode()])).rstrip(b"=").decode()

    def open(self, tenant: str, sealed: str) -> Opened | None:
        """None if it is no id of ours, or another tenant's."""
        _, line, behind = sealed.partition("_")
        opened = (self._opened(tenant, behind) if line else None) or self._opened(tenant, sealed)  # base64 may have such a letter, too
        if opened is None:
            return None
        provider, key_id, name = opened.decode().split("\0", 2)
        return Opened(provider, key_id, name)

    def _opened(self, tenant: str, text: str) -> bytes | None:
        cipher, invalid = self.load()
        try:
            return cipher.decrypt(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), [tenant.encode()])
        except (invalid, binascii.Error, ValueError):
            return None

    def load(self) -> tuple[Cipher, type[Exception]]:
        if self._loaded is None:
            self._loaded = load_cipher(self._secret)
        return self._loaded
