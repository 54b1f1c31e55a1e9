"""The clouds' own libraries, fetching from token services on loopback."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clouds import IMDS, LOGIN, ROLE, Clouds, running
from llm_gateway.admin.clouds import Credential, NoCredentialsError, source
from llm_gateway.config.snapshot import Aws, Cloud, Entra, Google

SCOPE = "https://cognitiveservices.azure.com/.default"


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    with running() as found:
        for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in found.environ().items():
            monkeypatch.setenv(name, value)
        yield found


def lasts(credential: Credential, seconds: float) -> bool:
    return credential.expires is not None and abs(credential.expires - time.time_ns() / 1e9 - seconds) < 5


def test_aws_from_a_container(clouds: Clouds) -> None:
    clouds.validity = 1800
    fetch = source(Aws(), "eu-central-1")
    first, second = fetch(), fetch()
    assert first.value.startswith("ASIAFAKE")
    assert first.value.count(":") == 2
    assert "session-" in first.value
    assert first.value != second.value, "nothing is remembered between two fetches"
    assert lasts(second, 1800)
    assert {path for path, _ in clouds.asked} == {"/container"}


def test_aws_from_an_instance(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{clouds.url}/")
    found = source(Aws(), None)()
    assert found.value.startswith("ASIAFAKE")
    assert lasts(found, 3600)
    assert [path for path, _ in clouds.asked][:3] == ["/latest/api/token", IMDS, f"{IMDS}a-role"]


def test_aws_by_web_identity(clouds: Clouds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a pod of EKS has it: a token in a file and a role."""
    (tmp_path / "token").write_text("a-token-of-the-cluster")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    found = source(Aws(), "eu-west-1")()
    asked = clouds.asked[-1][1]
    assert (asked["Action"], asked["RoleArn"], asked["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", ROLE, "a-token-of-the-cluster")
    assert found.value.startswith("ASIAFAKE")
    assert lasts(found, 3600)


def test_aws_by_role(clouds: Clouds) -> None:
    found = source(Aws(role_arn=ROLE, external_id="ext-1"), "eu-central-1")()
    path, asked = clouds.asked[-1]
    assert (path, asked["Action"], asked["RoleArn"], asked["ExternalId"]) == ("/", "AssumeRole", ROLE, "ext-1")
    assert "/eu-central-1/sts/aws4_request" in asked["headers"]["Authorization"]
    assert "Credential=ASIAFAKE" in asked["headers"]["Authorization"], "who assumes the role comes from the chain too"
    assert found.value.startswith("ASIAFAKE")
    assert lasts(found, 3600)


def test_aws_by_profile_without_an_end(clouds: Clouds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[blue]\naws_access_key_id = AKIABLUE\naws_secret_access_key = abc/+=\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    fetch = source(Aws(profile="blue"), None)
    assert fetch() == Credential("AKIABLUE:abc/+=", None)
    file.write_text(file.read_text().replace("AKIABLUE", "AKIABLUE2"))
    assert fetch().value == "AKIABLUE2:abc/+="


def test_aws_nowhere(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    with pytest.raises(NoCredentialsError, match="no AWS credentials"):
        source(Aws(), None)()


@pytest.mark.filterwarnings("ignore:The load_credentials_from_dict")  # the file is the operator's own
def test_google_by_key_file(clouds: Clouds) -> None:
    found = source(Google(clouds.service_account()), None)()
    assert found.value == "google-1"
    assert lasts(found, 3600)
    claims = clouds.asked[0][1]["assertion"].split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert told["iss"] == "gateway@a-project.iam.gserviceaccount.com"
    assert told["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_google_by_application_default(clouds: Clouds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "adc.json"
    file.write_text(clouds.service_account())
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    assert source(Google(), None)().value == "google-1"


def test_google_from_the_metadata_server(clouds: Clouds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a pod of GKE or a machine of Compute Engine has it."""
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{clouds.port}")
    monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{clouds.port}")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    found = source(Google(), None)()
    assert found.value.startswith("google-")
    assert lasts(found, 3600)
    assert any(path.endswith("/token") for path, _ in clouds.asked)


def test_azure_by_managed_identity(clouds: Clouds) -> None:
    found = source(Entra(SCOPE, client_id="an-id"), None)()
    assert found.value == "entra-1"
    assert lasts(found, 3600)
    path, asked = clouds.asked[-1]
    assert (path, asked["resource"], asked["client_id"]) == ("/identity", "https://cognitiveservices.azure.com", "an-id")


def test_azure_by_client_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """https under the login's own name, by way of a proxy that answers for it."""
    with running(tmp_path) as clouds:
        monkeypatch.setenv("HTTPS_PROXY", clouds.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        found = source(Entra(SCOPE, "a-tenant", "an-app", "a-secret"), None)()
    assert found.value.startswith("login-")
    assert lasts(found, 3600)
    assert {asked["to"] for path, asked in clouds.asked if path == "CONNECT"} == {f"{LOGIN}:443"}
    (told,) = [asked for path, asked in clouds.asked if path == "/a-tenant/oauth2/v2.0/token"]
    assert (told["client_id"], told["client_secret"], told["grant_type"]) == ("an-app", "a-secret", "client_credentials")
    assert SCOPE in told["scope"]


@pytest.mark.parametrize("who", [Aws(), Google(), Entra(SCOPE)], ids=repr)
def test_what_goes_wrong_is_an_error_and_no_lines_in_a_log_of_json(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], who: Cloud
) -> None:
    """The libraries tell Python's own log as well, whose lines, and tracebacks, would stand among ours."""
    (tmp_path / "token").write_text("a-token-of-the-cluster")
    for name, value in (
        ("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token")), ("AWS_ROLE_ARN", ROLE), ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("GCE_METADATA_HOST", "127.0.0.1:9"), ("GCE_METADATA_IP", f"127.0.0.1:{clouds.port}"), ("CLOUDSDK_CONFIG", str(tmp_path)),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    clouds.broken = True
    with pytest.raises(Exception, match=r"broken on purpose|invalid_scope|default credentials|Max retries|403"):
        source(who, "eu-west-1")()
    assert capfd.readouterr().err == ""


def test_a_credential_does_not_print_itself() -> None:
    assert "secret" not in repr(Credential("secret", 1.0))
