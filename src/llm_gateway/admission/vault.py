"""Tenants' own keys at providers, sealed: what is stored opens only for who has the gateway's secret, and only for that tenant and provider.

    Fernet(HMAC(secret, a label), "tenant NUL provider NUL key")       authenticated; a token says when it was made

Law: knows no store and no request. A worker holds tokens and opens one when it is to be used.
"""

from __future__ import annotations

import base64
import hmac
from typing import Protocol

_LABEL = b"tenants' keys at providers, version 1"


class Cipher(Protocol):
    def encrypt(self, data: bytes, /) -> bytes: ...
    def decrypt(self, token: bytes, /) -> bytes: ...


def load_cipher(secret: bytes) -> tuple[Cipher, type[Exception]]:
    """The cipher, and what it raises for a token that is not its own. Imports 30 ms worth of library: only who needs it pays."""
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet  # noqa: PLC0415

    return MultiFernet([Fernet(base64.urlsafe_b64encode(hmac.digest(secret, _LABEL, "sha256")))]), InvalidToken


class Vault:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._loaded: tuple[Cipher, type[Exception]] | None = None

    def seal(self, tenant: str, provider: str, key: str) -> str:
        cipher, _ = self._load()
        return cipher.encrypt(f"{tenant}\0{provider}\0{key}".encode()).decode()

    def open(self, tenant: str, provider: str, token: str) -> str | None:
        """None for what was sealed under another secret, or for somebody else."""
        cipher, invalid = self._load()
        try:
            opened = cipher.decrypt(token.encode()).decode()
        except invalid:
            return None
        whose, where, key = opened.split("\0", 2)
        return key if (whose, where) == (tenant, provider) else None

    def _load(self) -> tuple[Cipher, type[Exception]]:
        if self._loaded is None:
            self._loaded = load_cipher(self._secret)
        return self._loaded
