"""An issuer of tokens, as tests have one: keys of its own, tokens of any kind."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.test", "gateway"

CURVES: dict[str, Any] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def wall() -> float:
    """Unix seconds."""
    return time.time_ns() / 1e9


class Signer:
    """One private key. `kid` None: its tokens and its public key name none."""

    def __init__(self, kid: str | None = "one", algorithm: str = "ES256") -> None:
        self.kid, self.algorithm = kid, algorithm
        curve = CURVES.get(algorithm)
        if curve is not None:
            self.private: Any = ec.generate_private_key(curve)
        else:
            self.private = ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else rsa.generate_private_key(65537, 2048)

    @property
    def public(self) -> dict[str, Any]:
        to_jwk = {"ES": ECAlgorithm, "Ed": OKPAlgorithm}.get(self.algorithm[:2], RSAAlgorithm).to_jwk
        named = {"kid": self.kid} if self.kid is not None else {}
        return {**to_jwk(self.private.public_key(), as_dict=True), **named, "use": "sig"}

    @property
    def pem(self) -> str:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def token(self, headers: dict[str, Any] | None = None, without: tuple[str, ...] = (), **claims: Any) -> bytes:
        now = int(wall())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bob", "tenant": "acme", "iat": now, "exp": now + 300, **claims}
        kept = {name: value for name, value in said.items() if name not in without}
        named = {"kid": self.kid} if self.kid is not None else {}
        return jwt.encode(kept, self.private, self.algorithm, headers={**named, **(headers or {})}).encode()


def jwks(*signers: Signer, more: tuple[dict[str, Any], ...] = ()) -> str:
    return json.dumps({"keys": [*(each.public for each in signers), *more]})


def raw(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> bytes:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
