"""Public keys in PEM (RFC 7468) -> JSON Web Keys (RFC 7517), which are all that workers know of keys.

Law: public keys alone, strong enough to be believed; nothing of a text ever stands in a message, since somebody may have put a private key
there. Of a certificate its key counts and nothing else: whether it is still valid, and who signed it, is not asked.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from msgspec import Struct

BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(.*?)-----END \1-----", re.DOTALL)
BEGINNING = "-----BEGIN "
LEAST_BITS, MOST_BITS = 2048, 8192  # of RSA: NIST SP 800-131A; above, one signature takes a millisecond of a worker's loop
KEYS, CERTIFICATE = frozenset({"PUBLIC KEY", "RSA PUBLIC KEY"}), "CERTIFICATE"
KNOWN = "RSA, EC (P-256, P-384, P-521) and Ed25519 are known"

Jwk = dict[str, Any]


class PemError(ValueError):
    """What is wrong, in words that hold nothing of the text."""


class Library(Struct, frozen=True):
    """The modules that read keys and write them as JSON Web Keys."""

    keys: ModuleType
    certificates: ModuleType
    algorithms: ModuleType
    ec: ModuleType
    ed25519: ModuleType
    rsa: ModuleType


def load_library() -> Library:
    """Imports 0.1 s worth of libraries: only who has such keys pays."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415
    from jwt import algorithms  # noqa: PLC0415

    return Library(serialization, x509, algorithms, ec, ed25519, rsa)


def read(text: str) -> list[Jwk]:
    """The keys of one text, in its order; what stands around them is no matter. Raises PemError, which says which of several it is about."""
    blocks = BLOCK.findall(text)
    if text.count(BEGINNING) != len(blocks) or not blocks:
        raise PemError("expected PEM: -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, or a certificate; usually file:/path")
    return list(_keys(blocks, load_library()))


def _keys(blocks: list[tuple[str, str]], library: Library) -> Iterator[Jwk]:
    for number, (label, body) in enumerate(blocks, 1):
        try:
            yield _key(label, body, library)
        except PemError as error:
            raise PemError(f"key {number} of {len(blocks)} {error}" if len(blocks) > 1 else f"the key {error}") from None


def _key(label: str, body: str, library: Library) -> Jwk:
    if "PRIVATE" in label:
        raise PemError("is a private one: no gateway needs it, and it should not stand here; `openssl pkey -pubout` prints the public one")
    if label not in KEYS and label != CERTIFICATE:
        raise PemError(f"is of a kind that is not known here: {label}")
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
        found = library.keys.load_der_public_key(der) if label != CERTIFICATE else library.certificates.load_der_x509_certificate(der).public_key()
    except (binascii.Error, ValueError):
        raise PemError("cannot be read: it is damaged") from None
    except Exception as error:  # the library's own UnsupportedAlgorithm, and nothing else that a text may cause
        if type(error).__name__ != "UnsupportedAlgorithm":
            raise
        raise PemError(f"is of a kind that is not known here; {KNOWN}") from None
    return _jwk(found, library)


def _jwk(key: Any, library: Library) -> Jwk:
    if isinstance(key, library.rsa.RSAPublicKey):
        if not LEAST_BITS <= key.key_size <= MOST_BITS:
            raise PemError(f"is RSA of {key.key_size} bits: expected {LEAST_BITS} to {MOST_BITS}")
        made: Jwk = library.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, library.ec.EllipticCurvePublicKey) and key.curve.name in ("secp256r1", "secp384r1", "secp521r1"):
        made = library.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, library.ed25519.Ed25519PublicKey):
        made = library.algorithms.OKPAlgorithm.to_jwk(key, as_dict=True)
    else:
        raise PemError(f"is of a kind that is not known here; {KNOWN}")
    return {name: made[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in made}

