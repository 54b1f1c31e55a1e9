"""Marks of accounts: put on in any cut of a stream, taken off for who made them, the rest dropped and named."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import Raw

from formats.shapes import GEMINI, asked
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.marks import Marked, Marks, field

MARKS = Marks(b"pepper")
OURS, THEIRS = MARKS.of("openai", "a").decode(), MARKS.of("openai", "b").decode()


def cleared(members: dict[str, object], own: str = OURS) -> tuple[dict[str, object], tuple[str, ...]]:
    got, lost = MARKS.cleared({name: Raw(msgspec.json.encode(value)) for name, value in members.items()}, own.encode())
    return {name: json.loads(bytes(raw)) for name, raw in got.items()}, lost


def test_a_mark_is_letters_that_base64_keeps_and_every_replica_makes_the_same() -> None:
    assert len(OURS) == 20
    assert OURS.isalnum()
    assert MARKS.of("openai", "a") == Marks(b"pepper").of("openai", "a")
    assert len({OURS, THEIRS, MARKS.of("azure", "a").decode(), Marks(b"other").of("openai", "a").decode()}) == 4


def test_the_last_mark_counts_and_another_gateways_does_not() -> None:
    foreign = Marks(b"other").of("openai", "a").decode()
    body = json.dumps({"input": [{"encrypted_content": f"{THEIRS}x"}, {"encrypted_content": f"{OURS}y"}, {"encrypted_content": f"{foreign}z"}]}).encode()
    assert MARKS.last(body) == OURS.encode()
    assert MARKS.last(json.dumps({"text": f'see "{OURS}x" and {OURS}'}).encode()) == b""  # quoted in what somebody wrote
    got, lost = cleared({"input": [{"encrypted_content": f"{foreign}z"}]})
    assert (got, lost) == ({"input": [{"encrypted_content": f"{foreign}z"}]}, ())


def test_what_is_its_own_comes_back_to_the_letter() -> None:
    written = b'[ {"type":"reasoning" ,"encrypted_content": "%b+/A=="}, {"n": 1e2, "text":"\\u00e9"} ]'
    got, lost = MARKS.cleared({"input": Raw(written % OURS.encode()), "model": Raw(b'"m"')}, OURS.encode())
    assert (bytes(got["input"]), bytes(got["model"]), lost) == (written % b"", b'"m"', ())


def test_an_item_without_foreign_seals_keeps_its_bytes_beside_one_that_goes() -> None:
    written = b'[{"n": 1e2},{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"%b"},{"encrypted_content":"%b"}]'
    got, lost = MARKS.cleared({"input": Raw(written % (f"{THEIRS}x".encode(), f"{OURS}y".encode()))}, OURS.encode())
    assert bytes(got["input"]) == b'[{"n": 1e2},{"encrypted_content":"y"}]'
    assert lost == ("input[1].encrypted_content",)


@pytest.mark.parametrize(
    ("given", "left", "name"),
    [
        ({"role": "assistant", "content": [{"type": "redacted_thinking", "data": "%s"}, {"type": "text", "text": "hi"}]},
         {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}, "content[0].data"),
        ({"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "%s"}]}, None, "content[0].signature"),
        ({"role": "assistant", "content": "hi", "reasoning_details": [{"type": "reasoning.encrypted", "data": "%s"}]},
         {"role": "assistant", "content": "hi"}, "reasoning_details[0].data"),
        ({"role": "assistant", "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "%s"}]},
         {"role": "assistant", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}, "reasoning_details[0].signature"),
        ({"tool_calls": [{"id": "c", "extra_content": {"google": {"thought_signature": "%s"}}}]},
         {"tool_calls": [{"id": "c", "extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}}}]},
         "tool_calls[0].extra_content.google.thought_signature"),
        ({"role": "model", "parts": [{"text": "Hm.", "thought": True, "thoughtSignature": "%s"}]},
         {"role": "model", "parts": [{"text": "Hm.", "thought": True}]}, "parts[0].thoughtSignature"),
        ({"role": "model", "parts": [{"text": "hi"}, {"text": "", "thought_signature": "%s"}]},
         {"role": "model", "parts": [{"text": "hi"}]}, "parts[1].thought_signature"),
        ({"type": "reasoning", "encrypted_content": "llm-gateway-seal-1:gemini:part:%s"}, None, "encrypted_content"),
        ({"type": "reasoning", "content": [], "summary": [], "encrypted_content": "%s"}, None, "encrypted_content"),
    ],
)  # fmt: skip
def test_what_others_sealed_goes_with_what_makes_no_sense_without_it(given: dict[str, object], left: object, name: str) -> None:
    sealed = json.loads(json.dumps(given).replace("%s", f"{THEIRS}c2VhbA=="))
    got, lost = cleared({"messages": [{"role": "user"}, sealed], "system": "x"})
    assert got == {"messages": [{"role": "user"}, *([left] if left is not None else [])], "system": "x"}
    assert lost == (f"messages[1].{name}",)
    back = json.loads(json.dumps(given).replace("%s", f"{OURS}c2VhbA=="))
    assert cleared({"messages": [back]})[0] == {"messages": [json.loads(json.dumps(given).replace("%s", "c2VhbA=="))]}


SEALS = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"","thoughtSignature": "EtQJ+/=="},{"text":"\\"thoughtSignature\\":\\"no\\""}]}}]}\r\n\r\n'
    b'data: {"candidates":[{"content":{"parts":[{"thoughtSignature"  :  "AY89","text":"x"},{"thoughtSignature":""}]},"finishReason":"STOP"}]}\r\n\r\n'
)


def test_every_cut_of_a_stream_is_marked_alike_and_nothing_else_changes() -> None:
    mark = OURS.encode()
    wanted = SEALS.replace(b'"EtQJ', b'"' + mark + b"EtQJ").replace(b'"AY89', b'"' + mark + b"AY89")
    for cut in range(len(SEALS)):
        passage = Marked(GEMINI.splice(asked()), field("thoughtSignature"), mark)
        out = passage.feed(SEALS[:cut]) + passage.feed(SEALS[cut:]) + passage.close() + passage.tail(None)
        assert out == wanted, cut
        assert passage.ended
    passage = Marked(GEMINI.splice(asked()), field("thoughtSignature"), mark)
    assert b"".join(passage.feed(SEALS[at : at + 1]) for at in range(len(SEALS))) + passage.close() + passage.tail(None) == wanted


def test_a_piece_that_ends_within_a_key_is_not_lost_when_the_stream_is_cut() -> None:
    passage = Marked(GEMINI.splice(asked()), field("thoughtSignature"), OURS.encode())
    passage.feed(b'data: {"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}\r\n\r\ndata: {"thoughtSig')
    assert passage.meaningful
    passage.close()
    assert passage.failed is not None
    assert "failed" in repr(passage)


def test_what_is_too_deep_to_be_taken_apart_is_refused() -> None:
    written = b'[{"type":"reasoning","odd":%b,"encrypted_content":"%b"}]' % (b"[" * 800 + b"]" * 800, f"{THEIRS}x".encode())
    with pytest.raises(Fault) as caught:
        MARKS.cleared({"input": Raw(written)}, OURS.encode())
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "input")
