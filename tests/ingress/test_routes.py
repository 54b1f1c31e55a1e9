"""The route table and cross-origin rules, without a server."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.ingress import cors, routes


@pytest.mark.parametrize(
    ("method", "path", "label", "params"),
    [
        (b"POST", b"/v1/messages", "/v1/messages", ()), (b"GET", b"/v1/models/a/b", "/v1/models/{id}", ("a/b",)),
        (b"GET", b"/v1/models/a%2Fb%3Ac", "/v1/models/{id}", ("a/b:c",)), (b"HEAD", b"/v1/models", "/v1/models", ()),
        (b"OPTIONS", b"/v1/messages", "preflight", ()), (b"OPTIONS", b"*", "preflight", ()), (b"GET", b"/v1/models/%C3%A4", "/v1/models/{id}", ("\u00e4",)),
        (b"GET", b"/v1/responses/resp_1", "/v1/responses/{id}", ("resp_1",)), (b"POST", b"/v1/responses/resp_1/cancel", "/v1/responses/{id}", ("resp_1",)),
        (b"POST", b"/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions", ("gpt-4o",)),
        (b"POST", b"/openai/deployments/a%2Fb/audio/speech", "/v1/audio/speech", ("a/b",)), (b"POST", b"/openai/v1/images/edits", "/v1/images/edits", ()),
        (b"POST", b"/v1beta/models/a%2Fb%3AgenerateContent", "generateContent", ("a/b",)), (b"GET", b"/v1/models/x:y", "/v1/models/{id}", ("x:y",)),
    ],
)  # fmt: skip
def test_a_path_has_one_meaning(method, path, label, params):
    route, found = routes.match(method, path)
    assert (route.label, found) == (label, params)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"",
        b"/v1",
        b"/v1/models/",
        b"/v1/models/%",
        b"/v1/models/%zz",
        b"/v1/models/%ff",
        b"/V1/messages",
        b"/v1/messages/",
        b"/openai/deployments/x",
        b"/openai/deployments/x/unheard/of",
        b"*",
    ],
)
def test_any_other_path_is_unknown(path):
    with pytest.raises(Fault) as refused:
        routes.match(b"GET", path)
    assert refused.value.kind is Kind.NOT_FOUND


def test_a_percent_is_decoded_once():
    assert routes.decode(b"a%252Fb") == "a%2Fb"


def test_a_wrong_method_is_told_the_right_ones():
    for path, allowed in ((b"/v1/messages", b"POST, OPTIONS"), (b"/v1/models", b"GET, HEAD, OPTIONS")):
        with pytest.raises(Fault) as refused:
            routes.match(b"PUT", path)
        assert refused.value.kind is Kind.METHOD
        assert refused.value.headers == ((b"allow", allowed),)


def test_a_clients_bytes_are_made_fit_for_a_message():
    assert routes.printable(b"a\xffb" + b"c" * 200) == "a?b" + "c" * 97


@pytest.mark.parametrize(
    ("origins", "allowed"), [((), False), (("https://b",), False), (("https://a",), True), (("*",), True)]
)
def test_cors_speaks_only_to_configured_origins(origins, allowed):
    said = cors.lines({b"origin": b"https://a"}, origins, 600)
    assert (b"access-control-allow-origin: https://a\r\nvary: origin\r\n" in said) == allowed
    assert bool(said) == allowed
    assert cors.lines({}, origins, 600) == b""


def test_a_preflight_is_told_more():
    asked = {
        b"origin": b"https://a",
        b"access-control-request-method": b"POST",
        b"access-control-request-headers": b"x-a, x-b",
    }
    said = cors.lines(asked, ("*",), 60)
    assert b"access-control-allow-headers: x-a, x-b\r\n" in said
    assert b"access-control-max-age: 60\r\n" in said
    methods = said.partition(b"access-control-allow-methods: ")[2].partition(b"\r\n")[0].split(b", ")
    known = {method for way in (*routes.EXACT.values(), *(branch.bare for branch in routes.BRANCHES)) for method in way}
    assert known <= set(methods), "a browser does not even try what is not among them"
