"""Azure OpenAI: the deployment in the path with an `api-version`, or the v1 API with the deployment as model.

Source: https://learn.microsoft.com/azure/ai-services/openai/reference (data plane), .../api-version-lifecycle (v1 API).
An account without `api_version`, or with "v1" or "preview", uses the v1 API. `deployments` names the deployment of a model in
both forms: in the path, or in the body's `model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault
from llm_gateway.providers.table import Service

V1 = (None, "v1", "preview")


class Azure:
    static = False  # the body may have to name the deployment

    def __init__(self, service: Service) -> None:
        self._service = service

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return self._service.shapes(operation, model)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        deployment = account.deployments.get(model, model)
        headers = ((b"api-key", account.key.encode()), *account.headers)
        if account.api_version not in V1:
            path = f"{_root(account)}/deployments/{quote(deployment, safe='')}{outgoing.path}"
            path += f"?api-version={quote(account.api_version or '')}"
            return Wire(b"POST", path.encode(), headers, outgoing.body)
        path = f"{_root(account)}/v1{outgoing.path}"
        if account.api_version == "preview":
            path += "?api-version=preview"
        body = outgoing.body if deployment == model else _naming(deployment, outgoing.body)
        return Wire(b"POST", path.encode(), headers, body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        path = f"{_root(account)}/v1/models"
        return Wire(b"GET", path.encode(), ((b"api-key", account.key.encode()), *account.headers), b"")


def _naming(deployment: str, body: bytes) -> bytes:
    """The same request for another `model`, all else untouched."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    members["model"] = msgspec.Raw(msgspec.json.encode(deployment))
    return msgspec.json.encode(members)


def _root(account: Account) -> str:
    """`/openai`, however much of it the configured endpoint already holds."""
    root = account.root.removesuffix("/v1")
    return root if root.endswith("/openai") else f"{root}/openai"
