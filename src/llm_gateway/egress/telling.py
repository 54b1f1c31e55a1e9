"""What clients hear of faults that are ours: enough to act on, and nothing of our accounts.

Law: what names our upstreams, or quotes them on our account, stays in the log.
"""

from __future__ import annotations

from llm_gateway.core.errors import Fault, Kind

OURS = {
    Kind.UPSTREAM_AUTH: "The provider refused the gateway's own credentials. The gateway's operator has to renew them.",
    Kind.UPSTREAM_QUOTA: "The gateway's account with the provider has no quota left. The gateway's operator has to top it up.",
    Kind.UPSTREAM_ERROR: "The provider failed to answer. Send the request again.",
    Kind.UPSTREAM_CONNECT: "The provider could not be reached. Send the request again.",
    Kind.UPSTREAM_TLS: "No secure connection to the provider could be made. The gateway's operator can see why in its log.",
    Kind.UPSTREAM_DNS: "The provider's address could not be found. The gateway's operator can see why in its log.",
}


def told(fault: Fault) -> Fault:
    """The fault as a client may hear it: what names our upstreams or quotes them on our account stays in the log."""
    message = OURS.get(fault.kind)
    if message is None:
        return fault
    heard = Fault(fault.kind, message, code=fault.code, status=fault.status, retry_after=fault.retry_after)
    heard.headers = fault.headers
    return heard


def gone() -> Fault:
    """Nobody hears it: it is the row's."""
    return Fault(Kind.CLIENT_GONE, "The client closed the connection before its reply was complete.")


def ending() -> Fault:
    """A drain is over."""
    return Fault(Kind.INTERNAL, "The gateway is shutting down; send the request again.", code="shutting_down")
