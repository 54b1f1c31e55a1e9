"""Public keys in PEM, made and written by the library that everybody writes them with."""

from __future__ import annotations

import base64
import textwrap
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from llm_gateway.config.pems import PemError, read

SPKI, PKCS1 = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
RSA = rsa.generate_private_key(65537, 2048)
EC = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}


def pem(private: Any, form: PublicFormat = SPKI) -> str:
    return private.public_key().public_bytes(Encoding.PEM, form).decode()


def certificate(private: Any, *, until: datetime) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, until - timedelta(days=9), until)
    return made.sign(RSA, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def verifies(key: dict[str, Any], private: Any, algorithm: str) -> bool:
    token = jwt.encode({"sub": "bob"}, private, algorithm)
    return jwt.decode(token, jwt.PyJWK(key, algorithm), algorithms=[algorithm]) == {"sub": "bob"}


@pytest.mark.parametrize(("private", "algorithm", "kind"), [
    (RSA, "RS256", ("RSA", None)), (RSA, "PS512", ("RSA", None)), (ec.generate_private_key(EC["P-256"]), "ES256", ("EC", "P-256")),
    (ec.generate_private_key(EC["P-384"]), "ES384", ("EC", "P-384")), (ec.generate_private_key(EC["P-521"]), "ES512", ("EC", "P-521")),
    (ed25519.Ed25519PrivateKey.generate(), "EdDSA", ("OKP", "Ed25519")),
])  # fmt: skip
def test_each_kind_verifies_what_its_private_key_signed(private: Any, algorithm: str, kind: tuple[str, str | None]) -> None:
    for text in (pem(private), certificate(private, until=datetime(2001, 1, 1, tzinfo=UTC))):
        (key,) = read(text)
        assert (key["kty"], key.get("crv")) == kind
        assert "d" not in key
        assert verifies(key, private, algorithm)


def test_the_older_form_of_rsa_is_the_same_key() -> None:
    assert read(pem(RSA, PKCS1)) == read(pem(RSA))


def test_several_stand_in_one_text_whatever_stands_between() -> None:
    other = ec.generate_private_key(EC["P-256"])
    text = f"Bag Attributes\n{pem(RSA)}subject=CN = two\n{pem(other)}"
    assert read(text) == [*read(pem(RSA)), *read(pem(other))]


@pytest.mark.parametrize("spoilt", [lambda text: text.replace("\n", "\r\n"), lambda text: text.replace("\n", " "), textwrap.dedent])
def test_lines_may_end_as_they_like(spoilt: Any) -> None:
    """Variables and YAML fold lines."""
    assert read(spoilt(pem(RSA))) == read(pem(RSA))


def secret(private: Any, form: PrivateFormat) -> str:
    return private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505  it is to be refused
DSA = dsa.generate_private_key(1024)  # noqa: S505  whatever its size; the parameters of a longer one take two seconds to find
HALF = pem(RSA)[:-30]
DAMAGED = pem(RSA).replace(pem(RSA)[80:84], "####")


@pytest.mark.parametrize(("text", "words"), [
    ("", "expected PEM"), ("ssh-rsa AAAAB3Nza", "expected PEM"), (base64.b64encode(b"x" * 300).decode(), "expected PEM"), (HALF, "expected PEM"),
    (pem(RSA) + HALF, "expected PEM"), (DAMAGED, "the key cannot be read"), (pem(RSA).replace("PUBLIC KEY", "CERTIFICATE"), "the key cannot be read"),
    (pem(SMALL), "the key is RSA of 1024 bits: expected 2048 to 8192"), (pem(SMALL, PKCS1), "RSA of 1024 bits"),
    (certificate(SMALL, until=datetime(2099, 1, 1, tzinfo=UTC)), "RSA of 1024 bits"), (pem(RSA) + pem(SMALL), "key 2 of 2 is RSA of 1024 bits"),
    (pem(ec.generate_private_key(ec.SECP256K1())), "not known here; RSA, EC"), (pem(ed448.Ed448PrivateKey.generate()), "not known here; RSA, EC"),
    (pem(x25519.X25519PrivateKey.generate()), "not known here; RSA, EC"), (pem(DSA), "not known here; RSA, EC"),
    (secret(RSA, PrivateFormat.PKCS8), "is a private one"), (secret(RSA, PrivateFormat.TraditionalOpenSSL), "is a private one"),
    (secret(RSA, PrivateFormat.OpenSSH), "is a private one"), (pem(RSA).replace("PUBLIC KEY", "X509 CRL"), "not known here: X509 CRL"),
])  # fmt: skip
def test_what_is_no_strong_public_key_is_refused_and_not_repeated(text: str, words: str) -> None:
    with pytest.raises(PemError) as caught:
        read(text)
    assert words in str(caught.value)
    assert not any(line in str(caught.value) for line in text.splitlines() if line and not line.startswith("-"))
