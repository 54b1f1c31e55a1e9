"""Recorded requests and replies with something wrong in them: a Fault, never another exception."""

from __future__ import annotations

import copy
import json
import random
from itertools import islice

import pytest

from formats.sampling import each
from formats.shapes import ALL, CALL, MODELS, NOW, asked, other, recorded, request_body, shape_of
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.crossing import Crossing
from llm_gateway.wiring import formats

WRONG = [
    None,
    5,
    -1,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    [{}],
    {"type": "x"},
    {"type": 5},
    10**30,
    "\u0000",
    "data:;base64,",
]
REQUESTS = [
    one
    for one in recorded()
    if one.status < 400 and isinstance(one.request, dict) and len(json.dumps(one.request)) < 8000
]
REPLIES = [one for one in recorded() if one.status < 400 and len(one.body) < 8000]


def broken(tree, dice):
    """The tree with one value, anywhere in it, replaced or removed."""
    tree = copy.deepcopy(tree)
    places = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = dice.choice(places)
    if dice.random() < 0.2:
        del node[key]
    else:
        node[key] = dice.choice(WRONG)
    return tree


@each(REQUESTS)
def test_requests(interaction):
    dice = random.Random(interaction.id)
    shape = shape_of(interaction)
    whole = json.loads(request_body(interaction) or b"{}")
    for _ in range(25):
        try:
            call = shape.read_request(shape.peek(json.dumps(broken(whole, dice)).encode()))
            for target in ALL.values():
                json.loads(target.write_request(call, MODELS[target.name]).body)
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


SHORTEST = {
    "openai_chat": '"messages":[{"role":"user","content":"hi"}]', "anthropic_messages": '"max_tokens":9,"messages":[{"role":"user","content":"hi"}]',
    "gemini": '"contents":[{"role":"user","parts":[{"text":"hi"}]}]', "bedrock_converse": '"messages":[{"role":"user","content":[{"text":"hi"}]}]',
    "ollama_chat": '"stream":false,"messages":[{"role":"user","content":"hi"}]', "openai_responses": '"input":"hi"',
}  # fmt: skip


@pytest.mark.parametrize("name", SHORTEST)
@pytest.mark.parametrize("member", ["generationConfig", "inferenceConfig", "options", "response_format", "stream_options", "tool_config", "unknown"])
def test_however_deep_a_member_is_it_is_read_or_refused(name, member):
    shape = formats()[name]
    for depth in range(300, 1100):
        body = b'{"model":"m",%b,"%b":%b1%b}' % (SHORTEST[name].encode(), member.encode(), b'{"a":' * depth, b"}" * depth)
        try:
            shape.read_request(shape.peek(body, "m", stream=False))
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


WITHIN = {
    "openai_chat": [
        b'"messages":[{"role":"user","content":"hi","odd":%b}]', b'"messages":[{"role":"user","content":[{"type":"text","text":"hi","odd":%b}]}]',
        b'"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"web_search","odd":%b}]',
        b'"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"custom","custom":{"name":"c","format":%b}}]',
    ],
    "openai_responses": [b'"input":"hi","tools":[{"type":"custom","name":"c","format":%b}]'],
}  # fmt: skip


def down(steps, function, *given):
    """A call from further down the stack, as a request is read and written: what could be nested when it came may be too deep there."""
    return down(steps - 1, function, *given) if steps else function(*given)


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, bodies in WITHIN.items() for body in bodies])
def test_however_deep_it_is_within_a_member_it_is_crossed_or_refused(name, body):
    shape, known = formats()[name], formats()
    for depth in range(900, 1000):
        try:
            peek = shape.peek(b'{"model":"m",%b}' % (body % (b'{"a":' * depth + b"1" + b"}" * depth)), "m")
            call = down(depth % 4 * 10, shape.read_request, peek)
            down(30 + depth % 4 * 10, known["openai_responses"].write_request, call, "gpt-5")
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


@pytest.mark.parametrize("name", SHORTEST)
@pytest.mark.parametrize("number", [b"1e400", b"9" * 30, b"-" + b"9" * 5000])
@pytest.mark.parametrize("member", [b"top_p", b"max_tokens", b"max_output_tokens", b"n", b"seed", b"response_format", b"unknown"])
def test_however_large_a_number_is_it_is_read_or_refused(name, member, number):
    shape = formats()[name]
    try:
        shape.read_request(shape.peek(b'{"model":"m",%b,"%b":%b}' % (SHORTEST[name].encode(), member, number), "m", stream=False))
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


@each(REPLIES)
def test_replies(interaction):
    dice = random.Random(interaction.id)
    shape = shape_of(interaction)
    if interaction.row["streaming"]:
        crossed_streams(interaction.body, shape, dice)
        return
    whole = json.loads(interaction.body)
    for _ in range(25):
        body = json.dumps(broken(whole, dice)).encode()
        for view in (shape.summarise, shape.read_reply):
            try:
                told = view(body)
            except Fault as fault:
                assert fault.kind.blame != "caller" or fault.kind is Kind.CONTENT_FILTER  # noqa: PT017
            else:
                if view == shape.read_reply:
                    json.loads(other(shape).write_reply(told, CALL, NOW).body)


def crossed_streams(body, shape, dice):
    events = body.replace(b"\r\n", b"\n").split(b"\n\n")
    spots = [at for at, event in enumerate(events) if b"data: {" in event]
    for at in islice((dice.choice(spots) for _ in iter(int, 1)), 25):
        head, data = events[at].split(b"data: ", 1)
        wrong = head + b"data: " + json.dumps(broken(json.loads(data), dice)).encode()
        stream = b"\n\n".join([*events[:at], wrong, *events[at + 1 :]])
        for passage in (
            shape.splice(asked(usage=False)),
            Crossing(shape.stream_reader(), other(shape).stream_writer(CALL, NOW)),
        ):
            passage.feed(stream)
            passage.close()
            assert passage.ended != (passage.failed is not None)
