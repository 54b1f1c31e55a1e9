"""`auth.jwt`: who else may vouch for callers, as the file says it."""

from __future__ import annotations

import pytest

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
