"""Azure OpenAI: the deployment in the path with an `api-version`, or the v1 API with the deployment as model.

Source: https://learn.microsoft.com/azure/ai-services/openai/reference (data plane), .../api-version-lifecycle (v1 API).
An account without `api_version`, or with "v1" or "preview", uses the v1 API. `deployments` names the deployment of a model in
both forms: in the path, or in the body's `model`. Instead of a key an account may hold an Entra ID token, which goes as a bearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.formats import _multipart
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault
from llm_gateway.providers.table import Service

V1 = (None, "v1", "preview")
_UNDEPLOYED = "/responses"  # the one path that names its deployment in the body also without the v1 API


class Azure:
    static = False  # the body may have to name the deployment
    by_value: frozenset[str] = frozenset()
    betas: Mapping[str, str] | None = None

    def __init__(self, service: Service) -> None:
        self._service = service

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return self._service.shapes(operation, model)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        deployment = account.deployments.get(model, model)
        headers = _headers(account)
        classic = account.api_version not in V1
        if classic and not outgoing.path.startswith(_UNDEPLOYED):
            path = f"{_root(account)}/deployments/{quote(deployment, safe='')}{outgoing.path}"
            return Wire(outgoing.method, _versioned(path, account).encode(), headers, outgoing.body)
        path = _versioned(f"{_root(account)}{'' if classic else '/v1'}{outgoing.path}", account)
        named = deployment == model or not outgoing.body
        return Wire(outgoing.method, path.encode(), headers, outgoing.body if named else _naming(deployment, outgoing))

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        path = f"{_root(account)}/v1/models"
        return Wire(b"GET", path.encode(), _headers(account), b"")


def _headers(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    key = account.key.encode()
    return ((b"authorization", b"Bearer " + key) if account.token else (b"api-key", key), *account.headers)


def _versioned(path: str, account: Account) -> str:
    if account.api_version in {None, "v1"}:
        return path
    return f"{path}{'&' if '?' in path else '?'}api-version={quote(account.api_version or '')}"


def _naming(deployment: str, outgoing: Outgoing) -> bytes:
    """The same request for another `model`, all else untouched."""
    if outgoing.content_type.startswith(b"multipart/"):
        return _multipart.join(_multipart.read(outgoing.body), "model", deployment)
    body = outgoing.body
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    members["model"] = msgspec.Raw(msgspec.json.encode(deployment))
    return msgspec.json.encode(members)


def _root(account: Account) -> str:
    """`/openai`, however much of it the configured endpoint already holds."""
    root = account.root.removesuffix("/v1")
    return root if root.endswith("/openai") else f"{root}/openai"
