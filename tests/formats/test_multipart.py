"""Forms: what their readers could take for something else is refused, and no reader sees a model that we did not write."""

from __future__ import annotations

import re
import tracemalloc
from email.parser import BytesParser

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats import _multipart, jobs

PLAIN = b'Content-Disposition: form-data; name="model"\r\n\r\ncheap'
SOUND = b'Content-Disposition: form-data; name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg\r\n\r\n\x00\xff\xfb'
TRICKS = {
    "within a file's name": b'Content-Disposition: form-data; filename="; name=x"; name="model"\r\n\r\ndear',
    "twice": b'Content-Disposition: form-data; name="x"; name="model"\r\n\r\ndear',
    "encoded": b"Content-Disposition: form-data; name=\"x\"; name*=utf-8''model\r\n\r\ndear",
    "in pieces": b'Content-Disposition: form-data; name="x"; name*0="mo"; name*1="del"\r\n\r\ndear',
    "escaped": b'Content-Disposition: form-data; name="\\model"\r\n\r\ndear',
    "in a second line": b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"\r\n\r\ndear',
    "in a folded line": b'Content-Disposition: form-data; name="x"\r\n ; name="model"\r\n\r\ndear',
    "in a line of its own kind": b'X: y\nContent-Disposition: form-data; name="model"\r\nContent-Disposition: form-data; name="x"\r\n\r\ndear',
    "behind a space": b'Content-Disposition: form-data; name="x"\r\nContent-Disposition : form-data; name="model"\r\n\r\ndear',
    "spaced": b'Content-Disposition: form-data; name="x"; name = "model"\r\n\r\ndear',
    "behind a bare line feed": b'Content-Disposition: form-data; name="x"\r\n\r\n\n--edge\nContent-Disposition: form-data; name="model"\n\ndear\n',
    "behind a bare return": b'Content-Disposition: form-data; name="x"\r\n\r\n\r--edge\rContent-Disposition: form-data; name="model"\r\rdear\r',
}


def written(*parts: bytes, before: bytes = b"") -> bytes:
    return before + b"".join(b"--edge\r\n%b\r\n" % part for part in parts) + b"--edge--\r\n"


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
@pytest.mark.parametrize("first", [True, False])
def test_a_model_that_only_others_could_see_is_refused(trick: bytes, *, first: bool) -> None:
    with pytest.raises(Fault) as caught:
        _multipart.read(written(trick, PLAIN, SOUND) if first else written(PLAIN, SOUND, trick))
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("head", [
    b'content-disposition:form-data;name="file";filename="a.mp3"', b"Content-Disposition: form-data; name=file; filename=a.mp3",
    b'Content-Type: audio/mpeg\r\nContent-Disposition: form-data; name="file"; filename="my "best" song.mp3"',
    b'Content-Disposition: form-data; filename="a.mp3"; name="file"', b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''h%C3%A4.mp3",
    b'Content-Disposition: form-data; name="file"; filename="C:\\name\\"', 'Content-Disposition: form-data; name="file"; filename="hä.mp3"'.encode(),
    b'Content-Disposition: form-data; name="file";\r\n filename="a.mp3"', b'Content-Disposition: form-data; name="file"; filename="content-disposition"',
])  # fmt: skip
def test_what_clients_write_is_read(head: bytes) -> None:
    form = _multipart.read(written(head + b"\r\n\r\n\x00\n--edg", PLAIN))
    assert [(part.name, part.body) for part in form.parts] == [("file", b"\x00\n--edg"), ("model", b"cheap")]
    assert form.parts[0].head == head


def test_a_line_end_may_stand_before_the_first_boundary_as_unity_writes_it() -> None:
    form = _multipart.read(written(PLAIN, SOUND, before=b"\r\n"))
    joined = _multipart.join(form, "model", "dear")
    assert joined == written(PLAIN.replace(b"cheap", b"dear"), SOUND)
    message = BytesParser().parsebytes(b"content-type: multipart/form-data; boundary=edge\r\n\r\n" + joined)
    assert [part.get_param("name", header="content-disposition") for part in message.get_payload()] == ["model", "file"]


@pytest.mark.parametrize("unit", [b"\r\n--a", b"\r\n--a.", b"\r\n--a\r\n"])
def test_a_body_of_nothing_but_boundaries_takes_no_memory(unit: bytes) -> None:
    body = b"--a\r\n" + unit * ((4 << 20) // len(unit)) + b"\r\n--a--\r\n"
    tracemalloc.start()
    with pytest.raises(Fault, match=r"parts|boundary"):
        _multipart.read(body)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3 * len(body)


def test_every_cut_of_a_form_is_refused_or_whole() -> None:
    body = written(PLAIN, SOUND)
    whole = {re.sub(rb"\r\n$", b"", body), body, body[:-1]}
    for at in range(len(body)):
        try:
            _multipart.read(body[:at])
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  most cuts are refused
        else:
            assert body[:at] in whole


def test_a_models_name_from_a_path_brings_no_parts_along() -> None:
    named = "cheap\r\n--edge\r\n" + TRICKS["spaced"].decode().replace('name="x"; name = ', "name=")
    for shape in jobs.shapes():
        if shape.multipart:
            peek = shape.peek(written(SOUND, SOUND.replace(b'"file"', b'"prompt"')), named)
            with pytest.raises(Fault) as caught:
                shape.forward(peek, named)
            assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "model")
