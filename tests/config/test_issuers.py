"""`auth.jwt`: who else may vouch for callers, as the file says it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from admission.signing import Signer
from llm_gateway.config.schema_json import document
from llm_gateway.core.issuers import Claims, Issuer


def test_the_shortest_entry_is_an_issuer_and_an_audience(compile_text):
    assert compile_text('auth: {jwt: [{issuer: "https://id.example.com", audience: gateway}]}\n').snapshot.issuers == (
        Issuer(issuer="https://id.example.com", audience=("gateway",)),
    )


def test_all_of_it(compile_text, tmp_path):
    (tmp_path / "keys.json").write_text('{"keys": []}')
    text = f"""
auth:
  jwt:
    - issuer: ci
      audience: [a, b]
      algorithms: [EdDSA]
      jwks: "file:{tmp_path}/keys.json"
      leeway: 5s
      required_claims: {{aud_kind: machine}}
      tenant: acme
      claims: {{project: org.team, user: mail, roles: realm_access.roles}}
      roles: {{ops: [admin, inference], dev: inference}}
"""
    assert compile_text(text).snapshot.issuers == (
        Issuer(
            issuer="ci", audience=("a", "b"), algorithms=("EdDSA",), jwks='{"keys": []}', leeway=5.0, required={"aud_kind": "machine"}, tenant="acme",
            claims=Claims("tenant", "org.team", "mail", "realm_access.roles"), roles={"ops": ("admin", "inference"), "dev": ("inference",)},
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{issuer: 'https://id.example.com'}", "auth.jwt[0].audience: is required"),
        ("{issuer: 'https://id.example.com', audience: []}", "auth.jwt[0].audience: expected at least one"),
        ("{issuer: ci, audience: a}", "no address to discover"),
        ("{issuer: ci, audience: a, jwks: 'keys.json'}", "expected a JWK set"),
        ("{issuer: ci, audience: a, jwks: '{\"keys\": 5}'}", "expected a JWK set"),
        ("{issuer: ci, audience: a, jwks: '{\"keys\": [NaN]}'}", "expected a JWK set"),
        ("{issuer: 'https://id.example.com', audience: a, algorithms: [none]}", "auth.jwt[0].algorithms[0]: expected one of"),
        ("{issuer: 'https://id.example.com', audience: a, algorithms: [HS256]}", "auth.jwt[0].algorithms[0]: expected one of"),
        ("{issuer: 'https://id.example.com', audience: a, roles: {ops: root}}", "auth.jwt[0].roles.ops[0]: expected one of"),
        ("{issuer: 'https://id.example.com', audience: a, roles: {ops: admin}}", "claims.roles"),
        ("{issuer: 'http://127.0.0.1:8000', audience: a}", "auth.jwt[0].issuer: leads into a network of one's own"),
        ("{issuer: x, audience: a, jwks_url: 'https://169.254.169.254/keys', allow_private: true}", "auth.jwt[0].jwks_url: leads into"),
        ("{issuer: x, audience: a, jwks_url: 'https://user:pw@id.example.com/keys'}", "auth.jwt[0].jwks_url: expected an address"),
        ("{issuer: 'https://id.example.com', audience: a}, {issuer: 'https://id.example.com', audience: b}", "auth.jwt[1].issuer: is the issuer of another"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(problems_of, entry, words):
    (problem,) = problems_of(f"auth: {{jwt: [{entry}]}}\n")
    assert words in problem
    assert "pw" not in problem


# -- keys in PEM -----------------------------------------------------------------------------------------------------

EC, RSA, ED = Signer(None), Signer(None, "RS256"), Signer(None, "EdDSA")
WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  it is to be refused
SMALL = WEAK.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def indented(pem: str) -> str:
    return "".join(f"          {line}\n" for line in pem.splitlines())


def test_public_keys_stand_in_the_file_or_in_files_of_their_own(compile_text, tmp_path):
    (tmp_path / "several.pem").write_text(RSA.pem + ED.pem)
    text = f"""
auth:
  jwt:
    - issuer: ci
      audience: a
      algorithms: [RS256, ES256, EdDSA]
      public_keys:
        - |
{indented(EC.pem)}
        - file:{tmp_path}/several.pem
        - {{pem: "${{KEY}}", kid: named}}
"""
    compiled = compile_text(text, KEY=EC.pem)
    (issuer,) = compiled.snapshot.issuers
    found = json.loads(issuer.pinned)["keys"]
    assert [(key["kty"], key.get("kid")) for key in found] == [("EC", None), ("RSA", None), ("OKP", None), ("EC", "named")]
    assert not issuer.fetched, "with keys of its own nothing is fetched: its name need be no address"


def test_one_text_is_enough_and_an_address_beside_it_is_fetched_from(compile_text, tmp_path):
    (tmp_path / "key.pem").write_text(EC.pem)
    entry = f"issuer: ci, audience: a, public_keys: 'file:{tmp_path}/key.pem'"
    (alone,) = compile_text(f"auth: {{jwt: [{{{entry}}}]}}\n").snapshot.issuers
    (beside,) = compile_text(f"auth: {{jwt: [{{{entry}, jwks_url: 'https://id.example.com/keys'}}]}}\n").snapshot.issuers
    assert (alone.fetched, beside.fetched, alone.pinned) == (False, True, beside.pinned)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[{key}, {small}]", "auth.jwt[0].public_keys[1]: the key is RSA of 1024 bits: expected 2048"),
        ("{both}", "auth.jwt[0].public_keys[0]: key 2 of 2 is RSA of 1024 bits"),
        ("[{ed}]", "auth.jwt[0].public_keys[0]: none of `algorithms` (RS256, ES256) is for a key of its kind, Ed25519"),
        ("[hello]", "auth.jwt[0].public_keys[0]: expected PEM"),
        ("['']", "auth.jwt[0].public_keys[0].pem: must not be empty"),
        ("[{{pem: {two}, kid: a}}]", "auth.jwt[0].public_keys[0]: expected one key where there is a `kid`, found 2"),
        ("[{{pem: {key}, kid: a}}, {{pem: {key}, kid: a}}]", "auth.jwt[0].public_keys[1].kid: is the id of another key"),
        ("[{{pem: {key}, id: a}}]", "auth.jwt[0].public_keys[0].id: unknown option"),
        ("{{pem: {key}}}", "auth.jwt[0].public_keys: expected a list"),
        ("[{nine}]", "auth.jwt[0].public_keys: expected at most 4 keys without a `kid`, found 9"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_with_its_place(problems_of, tmp_path, said, words):
    texts = {"key": EC.pem, "small": SMALL, "both": EC.pem + SMALL, "ed": ED.pem, "two": EC.pem * 2, "nine": EC.pem * 9}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    keys = said.format(**{name: f"'file:{tmp_path}/{name}'" for name in texts})
    (problem,) = problems_of(f"auth:\n  jwt:\n    - issuer: ci\n      audience: a\n      public_keys: {keys}\n")
    assert problem.startswith("config.yaml:5:")
    assert words in problem
    assert not any(line in problem for line in SMALL.splitlines()[1:-1])


def test_a_missing_file_is_named(problems_of, tmp_path):
    problems = problems_of(f"auth: {{jwt: [{{issuer: ci, audience: a, public_keys: ['file:{tmp_path}/none.pem']}}]}}\n")
    assert any("auth.jwt[0].public_keys[0]" in each and "none.pem cannot be read" in each for each in problems)


def test_check_and_schema_know_them(tmp_path):
    (tmp_path / "small.pem").write_text(SMALL)
    path = tmp_path / "config.yaml"
    path.write_text(f"auth:\n  jwt:\n    - issuer: ci\n      audience: a\n      public_keys: file:{tmp_path}/small.pem\n")
    command = [str(Path(sys.executable).parent / "llm-gateway"), "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{path}:5:7: auth.jwt[0].public_keys[0]: the key is RSA of 1024 bits" in done.stdout + done.stderr
    definitions = document()["$defs"]
    assert {"type": "string"} in definitions["PublicKey"]["anyOf"]
    assert definitions["Jwt"]["properties"]["public_keys"]["anyOf"][1]["items"] == {"$ref": "#/$defs/PublicKey"}
