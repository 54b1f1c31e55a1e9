"""Where a Redis is and how it is to be reached: the values that configuration, workers and operator agree on, and the URLs that say them.

    redis://[user:password@]host[:6379][/db]              rediss:// with TLS; valkey:// and valkeys:// are the same
    unix://[user:password@]/path[?db=1]
    redis+sentinel://[user:password@]host[:26379],host2/master[/db]       user and password are the servers', not the sentinels'
    redis+cluster://[user:password@]host[:6379],host2

Law: pure. A password never shows in a `repr`.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import parse_qs, unquote

from msgspec import Struct

PORT, SENTINEL_PORT = 6379, 26379
KINDS = ("redis", "valkey", "rediss", "valkeys")
Node = tuple[str, int]
Loss = Literal["closed", "open"]


class Tls(Struct, frozen=True):
    """Files in PEM; `ca` None: the system's. `server_name`: in the certificate, if it is not the host."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    verify: bool = True
    server_name: str | None = None


class Login(Struct, frozen=True):
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Login({self.username!r})" if self.password else "Login()"


class Terms(Struct, frozen=True, kw_only=True):
    """`nodes`: servers, or sentinels where there is a `master`; of a Unix socket its path and port 0. `cluster` None: found out.
    `timeout`: seconds of one operation; `sentinel`: what sentinels want to be told."""

    nodes: tuple[Node, ...]
    db: int = 0
    login: Login = Login()
    tls: Tls | None = None
    master: str = ""
    sentinel: Login = Login()
    cluster: bool | None = None
    timeout: float = 0.05

    @property
    def label(self) -> str:
        """Who that is, for logs."""
        return self.master or ",".join(name(node) for node in self.nodes)


def name(node: Node) -> str:
    host, port = node
    return f"{f'[{host}]' if ':' in host else host}:{port}" if port else host


def parse(url: str) -> Terms:
    """ValueError, without the URL in it, where it is none of the above."""
    scheme, slashes, rest = url.partition("://")
    kind, _, form = scheme.partition("+")
    if not slashes or (scheme != "unix" and (kind not in KINDS or form not in ("", "sentinel", "cluster"))):
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    rest, _, query = rest.partition("?")
    login, at, place = rest.rpartition("@")
    options = parse_qs(query, keep_blank_values=True)
    unknown = options.keys() - {"db"}
    if unknown:
        raise ValueError(f"knows no option `{min(unknown)}`; use the other options of this section")
    user, _, password = login.partition(":")
    who = Login(unquote(user), unquote(password)) if at else Login()
    if scheme == "unix":
        if not place.startswith("/"):
            raise ValueError("expected unix:///path/of/socket")
        return Terms(nodes=((unquote(place), 0),), login=who, db=_db(options.get("db", ["0"])[-1]))
    hosts, *path = place.split("/")
    nodes = tuple(_node(each, SENTINEL_PORT if form == "sentinel" else PORT) for each in hosts.split(","))
    if form == "" and len(nodes) != 1:
        raise ValueError("expected one host; several are redis+sentinel:// or redis+cluster://")
    master = ""
    if form == "sentinel":
        master = unquote(path.pop(0)) if path else ""
        if not master:
            raise ValueError("expected the master's name: redis+sentinel://host:26379/NAME")
    words = [each for each in path if each] or options.get("db", [])
    return Terms(
        nodes=nodes,
        db=_db(words[0]) if words else 0,
        login=who,
        tls=Tls() if kind in ("rediss", "valkeys") else None,
        master=master,
        cluster=True if form == "cluster" else None,
    )


def _node(text: str, port: int) -> Node:
    host, colon, said = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, said = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not said.isdigit() or not 0 < int(said) < 1 << 16:
        raise ValueError("expected host or host:port")
    return unquote(host), int(said)


def _db(text: str) -> int:
    if not text.isdigit():
        raise ValueError("expected the database as a number")
    return int(text)
