"""Azure OpenAI: the deployment in the path with an `api-version`, or the v1 API with the deployment as model.

Source: https://learn.microsoft.com/azure/ai-services/openai/reference (data plane), .../api-version-lifecycle (v1 API).
An account without `api_version`, or with "v1" or "preview", uses the v1 API.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault

V1 = (None, "v1", "preview")


class Azure:
    static = True

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return ("openai_chat",)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        path = f"{_root(account)}/v1{outgoing.path}"
        if account.api_version == "preview":
            path += "?api-version=preview"
        if account.api_version not in V1:
            deployment = quote(account.deployments.get(model, model), safe="")
            path = f"{_root(account)}/deployments/{deployment}{outgoing.path}?api-version={quote(account.api_version or '')}"
        headers = ((b"api-key", account.key.encode()), *account.headers)
        return Wire(b"POST", path.encode(), headers, outgoing.body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        path = f"{_root(account)}/v1/models"
        return Wire(b"GET", path.encode(), ((b"api-key", account.key.encode()), *account.headers), b"")


def _root(account: Account) -> str:
    """`/openai`, however much of it the configured endpoint already holds."""
    root = account.root.removesuffix("/v1")
    return root if root.endswith("/openai") else f"{root}/openai"
