"""Webhooks of the file, judged: where they lead, by whose rules, signed with what.

Law: nothing is resolved; what a name leads to is judged again each time something is posted (admin/webhooks.py).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from urllib.parse import urlsplit

from llm_gateway.config import operations
from llm_gateway.config.load import Loaded
from llm_gateway.config.problems import Path, Problem, dotted, place
from llm_gateway.config.snapshot import Webhook
from llm_gateway.policies import addresses

PREFIX = "whsec_"  # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
SHORTEST, LONGEST = 24, 64


def resolve(loaded: Loaded) -> tuple[tuple[Webhook, ...], list[Problem]]:
    made: list[Webhook] = []
    problems: list[Problem] = []
    for position, section in enumerate(loaded.root.events.webhooks):
        path: Path = ("events", "webhooks", position)
        complaints = []
        if (wrong := _address(section)) is not None:
            complaints.append(("url", *wrong))
        key = signing_key(section.secret.get_secret_value())
        if key is None:
            hint = f"make one: echo {PREFIX}$(openssl rand -base64 32)"
            complaints.append(("secret", f"expected `{PREFIX}` and {SHORTEST} to {LONGEST} bytes in base64, or at least {SHORTEST} characters", hint))
        problems += [
            Problem(place((*path, option), loaded.where), dotted((*path, option)), message, hint) for option, message, hint in complaints
        ]
        made.append(Webhook(section.url, key or b"", section.events, section.timeout, section.allow_private))
    return tuple(made), problems


def signing_key(secret: str) -> bytes | None:
    """None for what is too short, too long, or says that it is base64 and is not."""
    if not secret.startswith(PREFIX):
        return secret.encode() if len(secret) >= SHORTEST else None
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        return None
    return key if SHORTEST <= len(key) <= LONGEST else None


def rules(url: str, *, private: bool) -> addresses.Rules:
    """The file's own port is fine, whatever it is; the host is judged as any other."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return addresses.Rules(addresses.WEB_PORTS if port is None else frozenset({port}), private=private)


def _address(section: operations.Webhook) -> tuple[str, str] | None:
    """What is wrong with where it leads, and a hint."""
    judged = rules(section.url, private=section.allow_private)
    place = addresses.place(section.url, judged)
    if place is None:
        return "expected an address: https:// or http://, a host, no user or password", ""
    if addresses.is_address(place.host) and not addresses.reachable(place.host, judged):
        return "leads into a network of one's own", "`allow_private: true` allows loopback and private ones"
    return None
