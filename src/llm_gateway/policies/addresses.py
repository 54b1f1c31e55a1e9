"""Which addresses a request may make the gateway fetch from. Pure: text in, a place or a verdict out; nothing is looked up.

Law: one parser. What `place` returns is what is connected to and what is sent, so that no second reading of the same text can
see another host. A name is judged by the addresses it has when it is fetched from (`reachable`), never by its spelling; an
address is refused unless it is known to be public.

`place` takes a strict subset of what browsers take: no user or password, no escapes or Unicode in the host (punycode does it),
a host whose last label is a number only as a plain dotted quad (browsers read `0x7f.1`, `2130706433` and `0177.0.0.1` as
127.0.0.1; WHATWG URL, "ends in a number"), ports that the configuration lists.
Sources: IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890), RFC 6598 (shared address space), RFC 4380 (Teredo),
RFC 3056 (6to4), RFC 6052 (NAT64). Every form that carries an IPv4 address in an IPv6 one is refused whole: what it means
depends on the network's routers. A network that reaches IPv4 by NAT64 only cannot fetch therefore.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote

from msgspec import Struct

LONGEST = 8 << 10  # characters of an address
WEB_PORTS = frozenset({80, 443})
_PORT = {"http": 80, "https": 443}
_ADDRESS = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,254})(?::([1-9][0-9]{0,4}))?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_AS_WRITTEN = "%/?:@!$&'()*+,;=-._~[]"

_NOT_PUBLIC_4 = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
            "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
_PUBLIC_6 = ip_network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_PRIVATE = tuple(
    map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"))
)
# Where clouds tell a machine its own credentials, outside the link-local networks: Azure, Alibaba, Oracle, AWS, Google.
_METADATA = frozenset(
    map(ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)


class Rules(Struct, frozen=True):
    """hosts: the only names that may be fetched from, lower case, `*.example.com` for all below; empty is any. private: networks
    of one's own are fine (loopback, private, shared, unique local; never link-local or a cloud's metadata)."""

    ports: frozenset[int] = WEB_PORTS
    hosts: tuple[str, ...] = ()
    private: bool = False


class Place(Struct, frozen=True):
    """host: a name in lower case without a last dot, or an IP address without brackets. target: path and query as they are sent."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """For the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORT[self.scheme] else f"{host}:{self.port}"


def place(address: str, rules: Rules) -> Place | None:
    """Where `address` leads; None if it is no http(s) URL, or one that the rules refuse by what it says."""
    found = _ADDRESS.fullmatch(address) if len(address) <= LONGEST and not _UNPRINTABLE.search(address) else None
    authority = _AUTHORITY.fullmatch(found[2]) if found is not None else None
    if found is None or authority is None:
        return None
    scheme, host = found[1].lower(), _host(authority[1].lower())
    port = int(authority[2] or _PORT[scheme])
    if host is None or port not in rules.ports or not _listed(host, rules.hosts):
        return None
    rest = found[3] if found[3].startswith("/") else f"/{found[3]}"
    return Place(scheme, host, port, quote(rest, safe=_AS_WRITTEN))


def reachable(address: str, rules: Rules) -> bool:
    """Whether the IP address that a name resolved to may be connected to."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if ip in _METADATA:
        return False
    return _public(ip) or (rules.private and any(ip in network for network in _PRIVATE))


def is_address(host: str) -> bool:
    """Whether a place's host is an IP address, which is known before it is looked up."""
    return _literal(host, 6 if ":" in host else 4) is not None


def _public(ip: IPv4Address | IPv6Address) -> bool:
    if ip.version == 4:
        return not any(ip in network for network in _NOT_PUBLIC_4)
    return ip in _PUBLIC_6 and not any(ip in network for network in _NOT_PUBLIC_6)


def _host(written: str) -> str | None:
    """As it is resolved and sent; None for what resolvers and browsers read differently."""
    if written.startswith("["):
        return _literal(written[1:-1], 6)
    name = written.removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _literal(name, 4)
    return name if len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) else None


def _literal(text: str, version: int) -> str | None:
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return str(ip) if ip.version == version else None


def _listed(host: str, hosts: tuple[str, ...]) -> bool:
    return not hosts or any(host == each or (each.startswith("*.") and host.endswith(each[1:])) for each in hosts)
