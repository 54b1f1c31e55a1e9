"""What clouds add to a provider: where it lives, who fetches its credentials, and options that mean nothing elsewhere."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from llm_gateway.admin.api import redacted
from llm_gateway.config.clouds import named
from llm_gateway.config.snapshot import Aws, Entra, Google, Provider

RUNTIME = "https://bedrock-runtime.{}.amazonaws.com"
SCOPE = "https://cognitiveservices.azure.com/.default"
KEY = {"type": "service_account", "project_id": "p-of-key", "private_key": "PRIVATE"}


@pytest.fixture
def provider(compile_text):
    def made(text: str, **environ: str) -> Provider:
        (found,) = compile_text(text, **environ).snapshot.providers
        return found

    return made


@pytest.mark.parametrize(
    ("text", "environ", "region"),
    [
        ("bedrock: {region: eu-central-1}", {}, "eu-central-1"),
        ("bedrock: {region: eu-central-1}", {"AWS_REGION": "us-west-2"}, "eu-central-1"),
        ("bedrock: {}", {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "x"}, "us-west-2"),
        ("bedrock: {}", {"AWS_DEFAULT_REGION": "ap-south-1"}, "ap-south-1"),
        ("bedrock: {}", {}, "us-east-1"),
        (f"aws: {{type: bedrock, base_url: '{RUNTIME.format('eu-west-1')}'}}", {"AWS_REGION": "us-west-2"}, "eu-west-1"),
    ],
)
def test_a_bare_bedrock_lives_in_its_region_and_takes_the_default_chain(provider, text, environ, region):
    found = provider(f"providers: {{{text}}}", **environ)
    assert (found.base_url, found.region, found.cloud, found.keys) == (RUNTIME.format(region), region, Aws(), ())


def test_a_profile_knows_its_region(provider, tmp_path):
    (tmp_path / "aws").write_text("[default]\nregion = eu-north-1\n[profile blue]\nregion = eu-west-3\nrole_arn = %x\n")
    told = {"AWS_CONFIG_FILE": str(tmp_path / "aws")}
    assert provider("providers: {bedrock: {profile: blue}}", **told).region == "eu-west-3"
    assert provider("providers: {bedrock: {}}", **told).base_url == RUNTIME.format("eu-north-1")
    for variable in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        assert provider("providers: {bedrock: {}}", **told, **{variable: "blue"}).region == "eu-west-3"
    assert provider("providers: {bedrock: {}}", AWS_CONFIG_FILE="~/aws", HOME=str(tmp_path)).region == "eu-north-1"
    assert provider("providers: {bedrock: {profile: other}}", **told).region == "us-east-1"
    (tmp_path / "aws").write_text("not [an ini")
    assert provider("providers: {bedrock: {}}", **told).region == "us-east-1"


def test_a_region_for_another_endpoint_is_what_is_signed_for(provider):
    found = provider("providers: {bedrock: {base_url: 'https://vpce-1.example.com', region: eu-west-1}}")
    assert (found.base_url, found.region) == ("https://vpce-1.example.com", "eu-west-1")


def test_roles_and_profiles(provider):
    text = "providers: {b: {type: bedrock, profile: blue, role_arn: 'arn:aws:iam::1:role/x', external_id: ext}}"
    assert provider(text, AWS_BEARER_TOKEN_BEDROCK="key").cloud == Aws("blue", "arn:aws:iam::1:role/x", "ext")


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("providers: {bedrock: {region: eu-west-1}}", {"AWS_BEARER_TOKEN_BEDROCK": "key"}),
        ("providers: {bedrock: {region: eu-west-1, api_key: key}}", {}),
        (None, {"AWS_BEARER_TOKEN_BEDROCK": "key", "AWS_REGION": "eu-west-1"}),
    ],
)
def test_a_bearer_key_needs_no_cloud(provider, text, environ):
    found = provider(text, **environ)
    assert (found.cloud, found.keys[0].value, found.base_url) == (None, "key", RUNTIME.format("eu-west-1"))


def test_a_key_that_is_missing_is_not_made_up_for_by_the_chain(compile_text):
    made = compile_text("providers: {bedrock: {api_key: '${NOT_SET}'}}")
    assert "NOT_SET" in " ".join(made.warnings)
    assert made.snapshot.providers[0].name == "echo"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ("project: p", "https://aiplatform.googleapis.com/v1/projects/p/locations/global"),
        ("project: p, region: europe-west4", "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4"),
        ("project: p, region: eu", "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu"),
        ("project: p, api_version: v1beta1", "https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global"),
        ("project: p, base_url: 'http://127.0.0.1:1'", "http://127.0.0.1:1/v1/projects/p/locations/global"),
        ("project: p, base_url: 'http://h/behind/v1'", "http://h/behind/v1/projects/p/locations/global"),
        ("base_url: 'http://h/v1/projects/p/locations/l'", "http://h/v1/projects/p/locations/l"),
        ("project: 'example.com:p'", "https://aiplatform.googleapis.com/v1/projects/example.com:p/locations/global"),
    ],
)
def test_vertex_lives_in_its_location_and_project(provider, options, url):
    found = provider(f"providers: {{vertex: {{{options}}}}}")
    assert found.base_url == url
    assert found.cloud == Google()


def test_vertex_from_the_environment(provider):
    found = provider("providers: {vertex: {}}", GOOGLE_CLOUD_PROJECT="p", GOOGLE_CLOUD_LOCATION="us-east5")
    assert found.base_url == "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5"


def test_vertex_by_a_key_file_that_names_the_project(provider, tmp_path):
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    found = provider("providers: {vertex: {credentials: 'file:key.json'}}")
    assert "/projects/p-of-key/" in found.base_url
    assert json.loads(found.cloud.credentials) == KEY
    default = provider("providers: {vertex: {}}", GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "key.json"))
    assert "/projects/p-of-key/" in default.base_url
    assert default.cloud == Google()


def test_vertex_with_an_api_key_is_in_express_mode(provider):
    found = provider("providers: {vertex: {api_key: k}}", GOOGLE_CLOUD_PROJECT="p")
    assert (found.base_url, found.cloud, found.keys[0].value) == ("https://aiplatform.googleapis.com/v1", None, "k")


def test_azure_by_entra(provider):
    azure = "base_url: 'https://x.openai.azure.com'"
    assert provider(f"providers: {{azure: {{{azure}, entra: true}}}}").cloud == Entra(SCOPE)
    text = f"providers: {{azure: {{{azure}, entra: {{tenant_id: t, client_id: c, client_secret: '${{S}}'}}}}}}"
    assert provider(text, S="s3", AZURE_OPENAI_API_KEY="k").cloud == Entra(SCOPE, "t", "c", "s3")
    plain = provider(f"providers: {{azure: {{{azure}, entra: false}}}}", AZURE_OPENAI_API_KEY="k")
    assert plain.cloud is None
    by_variable = provider(f"providers: {{azure: {{{azure}}}}}", LLM_GATEWAY__PROVIDERS__AZURE__ENTRA="true")
    assert by_variable.cloud == Entra(SCOPE)


def test_a_region_elsewhere_is_a_note(provider):
    found = provider("providers: {openai: {api_key: k, region: eu}}")
    assert (found.region, found.base_url) == ("eu", "https://api.openai.com/v1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai: {api_key: k, project: p}", "providers.openai.project: means nothing to a provider of type `openai` (it is an option of `vertex`)"),
        ("bedrock: {entra: true}", "providers.bedrock.entra: means nothing to a provider of type `bedrock` (it is an option of `azure`)"),
        ("vertex: {project: p, profile: x}", "providers.vertex.profile: means nothing to a provider of type `vertex` (it is an option of `bedrock`)"),
        ("bedrock: {external_id: ext}", "providers.bedrock.external_id: needs a `role_arn` beside it"),
        ("bedrock: {api_key: k, profile: x}", "providers.bedrock.profile: give `api_key` or `profile`, not both"),
        ("bedrock: {role_arn: gateway}", "providers.bedrock.role_arn: expected an ARN: arn:aws:iam::ACCOUNT:role/NAME"),
        ("bedrock: {region: 'eu/../x'}", "providers.bedrock.region: expected a region's name, such as eu-central-1"),
        ("vertex: {}", "providers.vertex.project: is required (or set GOOGLE_CLOUD_PROJECT)"),
        ("vertex: {project: 'a/b'}", "providers.vertex.project: expected a project's id"),
        ("vertex: {project: p, credentials: /etc/key.json}",
         "providers.vertex.credentials: expected Google's JSON of a key or a federation (`file:/path` takes it from a file)"),
        ("azure: {base_url: 'https://x.example', entra: 7}", "providers.azure.entra: expected a mapping (name: value)"),
        ("azure: {base_url: 'https://x.example', entra: {client_secret: s}}", "`client_secret` needs `tenant_id` and `client_id` beside it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_stands(problems_of, text, said):
    lines = problems_of(f"providers: {{{text}}}")
    assert any(said in line and line.startswith("config.yaml:1:") for line in lines), lines


@pytest.mark.parametrize(
    ("text", "library", "extra"),
    [("bedrock: {}", "botocore", "aws"), ("vertex: {project: p}", "google.auth", "google"),
     ("azure: {base_url: 'https://x.example', entra: true}", "azure.identity", "azure")],
)  # fmt: skip
def test_a_library_that_is_not_installed_is_named(problems_of, monkeypatch, text, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    (line,) = problems_of(f"providers: {{{text}}}")
    assert f"fetched by {library}, which is not installed" in line
    assert f"llm-inference-gateway[{extra}]" in line


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        (Aws(), "AWS default chain"),
        (Aws("blue", "arn:aws:iam::1:role/x", "ext"), "AWS profile blue, role arn:aws:iam::1:role/x"),
        (Google(), "Google application default"),
        (Google('{"client_email": "g@p", "private_key": "PRIVATE"}'), "Google g@p"),
        (Google('{"type": "external_account"}'), "Google federation"),
        (Entra(SCOPE), "Entra identity"),
        (Entra(SCOPE, "t", "app", "s3cret"), "Entra application app"),
    ],
)
def test_check_says_whose_credentials_they_are(cloud, words):
    assert named(cloud) == words


def test_no_secret_of_a_cloud_is_shown(compile_text, tmp_path):
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    text = """providers:
  vertex: {credentials: 'file:key.json'}
  azure: {base_url: 'https://x.example', entra: {tenant_id: t, client_id: c, client_secret: s3cret}}
  bedrock: {role_arn: 'arn:aws:iam::1:role/x', external_id: ext-s3cret}
"""
    shown = redacted(compile_text(text).snapshot)
    told = msgspec.json.encode([each["cloud"] for each in shown["providers"]]).decode()
    assert "PRIVATE" not in told
    assert "s3cret" not in told
    assert "arn:aws:iam::1:role/x" in told
