"""Who asks the admin API, and what that one may see and change.

    the admin token                 everything
    a key with the scope `admin`    its own tenant: projects, users, keys, own provider keys, and what each of its keys and users may use;
                                    not what the tenant itself may use
    a key with the scope `read`     its own tenant, to look at
    any other key                   nothing

Law: another tenant's things are not there (404), whoever asks. Keys are looked up by the very code that workers use, so that one that is
revoked, expired or used from elsewhere is refused here, too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from msgspec import Struct
from starlette.requests import Request

from llm_gateway.admin.answers import Refusal
from llm_gateway.admission.auth import Keys
from llm_gateway.admission.directory import Directory
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.admission.tokens import Tokens
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.errors import Fault, Kind

NEEDED = "The admin token is needed, or a key with the scope `admin` or `read`: Authorization: Bearer ..."


class Caller(Struct, frozen=True):
    """`tenant`: the only one that is there, None all. `writes`: may change things."""

    name: str
    tenant: str | None = None
    writes: bool = True

    def sees(self, tenant: str) -> None:
        """Raises Refusal 404 where it does not."""
        if self.tenant not in (None, tenant):
            raise Refusal(404, "not_found", "There is no such record.")

    def changes(self, tenant: str) -> None:
        """Raises Refusal 404, or 403 where it may only look."""
        self.sees(tenant)
        if not self.writes:
            raise Refusal(403, "permission_denied", "This key may look, and change nothing: it lacks the scope `admin`.")

    def commands(self) -> None:
        """Raises Refusal 403 for all but the gateway's operator."""
        if self.tenant is not None:
            raise Refusal(403, "permission_denied", "Only the gateway's operator may do that, with the admin token.")


class Roles:
    """state: the admin token and the configuration in force. directory, tokens: as workers have them."""

    def __init__(self, state: Callable[[], tuple[str, Snapshot]], directory: Directory, tokens: Tokens, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._state = state
        self._directory = directory
        self._clock = clock
        self._keys: tuple[Snapshot, int, Keys] | None = None

    def caller(self, request: Request) -> Caller:
        """Raises Refusal 401 or 403, or a key's Fault. The audit log hears who it is."""
        found = self._caller(request)
        request.state.actor = found.name if found.tenant is None else f"{found.name} of {found.tenant}"
        request.state.of = found.tenant
        return found

    def _caller(self, request: Request) -> Caller:
        token, snapshot = self._state()
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        # Compared as a whole and in constant time, so that nothing can be learnt from how long it took.
        right = hmac.compare_digest(said.strip().encode(), token.encode())
        if scheme.lower() == "bearer" and right:
            return Caller("admin token")
        if scheme.lower() != "bearer" or not said.strip():
            raise Refusal(401, "unauthorized", NEEDED)
        headers = {b"authorization": b"Bearer " + said.strip().encode()}
        peer = request.client.host if request.client is not None else ""
        try:
            principal = self._found(snapshot).principal(headers, b"", peer, self._clock())
        except Fault as fault:
            if fault.code == Kind.UNAUTHENTICATED.code:
                raise Refusal(401, "unauthorized", NEEDED) from fault
            raise
        if "admin" in principal.scopes or "read" in principal.scopes:
            return Caller(principal.key, principal.tenant, "admin" in principal.scopes)
        raise Refusal(403, "insufficient_scope", NEEDED)

    def learn(self, sets: dict[str, str]) -> None:
        """The newest public keys of issuers of tokens."""
        self._tokens.adopt(self._state()[1].issuers)
        if self._tokens.learn(sets):
            self._keys = None

    def _found(self, snapshot: Snapshot) -> Keys:
        """Made anew when configuration or directory have changed."""
        kept, changes = self._keys, self._directory.changes
        if kept is None or kept[0] is not snapshot or kept[1] != changes:
            said = snapshot.tenancy
            everybody = Everybody(said.each_tenant, said.each_user, said.each_key)
            holders = Holders(said.records(), everybody, self._directory.find, self._directory.secrets)
            self._tokens.adopt(snapshot.issuers)
            keys = Keys(snapshot.secret, snapshot.keys, holders, directory=self._directory, tokens=self._tokens)
            kept = self._keys = snapshot, changes, keys
        return kept[2]
