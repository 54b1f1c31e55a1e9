"""Requests as attackers, old proxies and broken clients send them: name -> (bytes, what they get).

Law: a table. A number is the status of the one refusal that the client reads before the connection ends, and the upstream
sees nothing; OK means that it is served. Sources: RFC 9112 (sections in the names of groups), RFC 9110, and the request
smuggling literature (CL.TE, TE.CL, TE.TE, trailers, pipelined prefixes).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ingress.gateway import KEY

OK = 200
PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "good", "messages": [{"role": "user", "content": "hi"}]}).encode()
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
AUTH = f"Authorization: Bearer {KEY}"
HOST = "Host: gateway"
BASE = (HOST, AUTH)


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    status: int
    closes: bool = True  # a refusal ends the connection


def head(*lines: str | bytes, line: str | bytes = f"POST {PATH} HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    raw = [each if isinstance(each, bytes) else each.encode("latin-1") for each in (line, *lines)]
    return end.join(raw) + end + end


def post(*lines: str | bytes, line: str | bytes = f"POST {PATH} HTTP/1.1", body: bytes = BODY, base: tuple[str, ...] = BASE) -> bytes:
    return head(*base, *lines, line=line) + body


def chunks(body: bytes = BODY, *, size: str | None = None, after: bytes = b"\r\n", end: bytes = b"0\r\n\r\n") -> bytes:
    return (size if size is not None else f"{len(body):x}").encode("latin-1") + b"\r\n" + body + after + end


def sent(name: str, *lines: str | bytes, status: int = 400, **more: object) -> Case:
    return Case(name, post(*lines, **more), status)  # type: ignore[arg-type]


REQUEST_LINE = [  # RFC 9112 section 3
    sent("plain", LENGTH, status=OK),
    sent("lower-case method", LENGTH, line=f"post {PATH} HTTP/1.1"),
    sent("unknown method", LENGTH, line=f"BREW {PATH} HTTP/1.1"),
    Case("method nobody needs here", post(LENGTH, line=f"SUBSCRIBE {PATH} HTTP/1.1"), 405, closes=False),
    sent("method with NUL", LENGTH, line=f"PO\0ST {PATH} HTTP/1.1"),
    sent("empty method", LENGTH, line=f" {PATH} HTTP/1.1"),
    sent("two spaces before the path", LENGTH, line=f"POST  {PATH} HTTP/1.1"),
    sent("two spaces before the version", LENGTH, line=f"POST {PATH}  HTTP/1.1"),
    sent("tab instead of space", LENGTH, line=f"POST\t{PATH} HTTP/1.1"),
    sent("tab before the version", LENGTH, line=f"POST {PATH}\tHTTP/1.1"),
    sent("space after the version", LENGTH, line=f"POST {PATH} HTTP/1.1 "),
    sent("no version", LENGTH, line=f"POST {PATH}"),
    sent("HTTP/0.9", LENGTH, line=f"POST {PATH} HTTP/0.9"),
    sent("HTTP/1.2", LENGTH, line=f"POST {PATH} HTTP/1.2"),
    sent("HTTP/2.0", LENGTH, line=f"POST {PATH} HTTP/2.0"),
    sent("HTTP/11", LENGTH, line=f"POST {PATH} HTTP/11"),
    sent("HTTP/1.10", LENGTH, line=f"POST {PATH} HTTP/1.10"),
    sent("http in lower case", LENGTH, line=f"POST {PATH} http/1.1"),
    sent("HTTPS as the protocol", LENGTH, line=f"POST {PATH} HTTPS/1.1"),
    sent("ICE as the protocol", LENGTH, line=f"POST {PATH} ICE/1.0"),
    sent("RTSP as the protocol", LENGTH, line=f"POST {PATH} RTSP/1.0"),
    sent("path without slash", LENGTH, line="POST v1/chat/completions HTTP/1.1"),
    sent("fragment", LENGTH, line=f"POST {PATH}#x HTTP/1.1"),
    sent("fragment after query", LENGTH, line=f"POST {PATH}?a=b#x HTTP/1.1"),
    sent("fragment of an absolute target", LENGTH, line=f"POST http://gw{PATH}#x HTTP/1.1"),
    sent("query", LENGTH, line=f"POST {PATH}?a=b&c HTTP/1.1", status=OK),
    sent("raw UTF-8 in the path", LENGTH, line=f"POST {PATH}\xc3\xa4 HTTP/1.1"),
    sent("NUL in the path", LENGTH, line=f"POST {PATH}\0 HTTP/1.1"),
    sent("DEL in the path", LENGTH, line=f"POST {PATH}\x7f HTTP/1.1"),
    sent("absolute form", LENGTH, line=f"POST http://gateway{PATH} HTTP/1.1", status=OK),
    sent("absolute form, https, port, query", LENGTH, line=f"POST https://gateway:8443{PATH}?a HTTP/1.1", status=OK),
    sent("absolute form of another scheme", LENGTH, line=f"POST ftp://gateway{PATH} HTTP/1.1"),
    sent("absolute form without host", LENGTH, line=f"POST http://{PATH} HTTP/1.1"),
    sent("authority form", LENGTH, line="POST gateway:80 HTTP/1.1"),
    sent("asterisk form but no OPTIONS", LENGTH, line="POST * HTTP/1.1"),
    Case("CONNECT", head(HOST, line="CONNECT other:443 HTTP/1.1") + b"\x16\x03\x01tunnelled", 405),
    sent("CR alone ends the line", LENGTH, line=f"POST {PATH} HTTP/1.1\rX: y"),
    sent("HTTP/2 preface", line="PRI * HTTP/2.0", base=(), body=b"SM\r\n\r\n"),
    Case("TLS hello on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    Case("one empty line before", b"\r\n" + post(LENGTH), OK),
    Case("two empty lines before", b"\r\n\r\n" + post(LENGTH), 400),
    Case("bare LF everywhere", head(*BASE, LENGTH, end=b"\n") + BODY, 400),
    Case("bare CR everywhere", head(*BASE, LENGTH, end=b"\r") + BODY, 400),
    Case("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    Case("a PROXY head nobody configured", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + post(LENGTH), 400),
]  # fmt: skip

HOST_FIELD = [  # RFC 9112 section 3.2
    Case("no Host", head(AUTH, LENGTH) + BODY, 400),
    Case("empty Host", head("Host:", AUTH, LENGTH) + BODY, 400),
    Case("two Hosts", head(HOST, HOST, AUTH, LENGTH) + BODY, 400),
    Case("two Hosts that differ", head(HOST, "Host: other", AUTH, LENGTH) + BODY, 400),
    Case("Host with a space", head("Host: gate way", AUTH, LENGTH) + BODY, 400),
    Case("Host with a path", head("Host: gateway/x", AUTH, LENGTH) + BODY, 400),
    Case("Host with user info", head("Host: a@gateway", AUTH, LENGTH) + BODY, 400),
    Case("Host list", head("Host: gateway, other2/x", AUTH, LENGTH) + BODY, 400),
    Case("Host with a tab", head("Host: gate\tway", AUTH, LENGTH) + BODY, 400),
    Case("Host with high bytes", head("Host: g\xe4teway", AUTH, LENGTH) + BODY, 400),
    Case("Host as IPv6 with port", head("Host: [::1]:8080", AUTH, LENGTH) + BODY, OK),
    Case("HTTP/1.0 without Host", head(AUTH, LENGTH, line=f"POST {PATH} HTTP/1.0") + BODY, OK),
]

FIELDS = [  # RFC 9112 section 5
    sent("space before the colon", LENGTH, "X-A : b"),
    sent("tab before the colon", LENGTH, "X-A\t: b"),
    sent("space before the colon of Content-Length", f"Content-Length : {len(BODY)}"),
    sent("line folding", LENGTH, "X-A: b\r\n c"),
    sent("line folding with a tab", LENGTH, "X-A: b\r\n\tc"),
    sent("line folding in the first field", LENGTH, base=(" " + HOST, AUTH)),
    sent("folded Transfer-Encoding", "Transfer-Encoding:\r\n chunked", body=chunks()),
    sent("empty name", LENGTH, ": b"),
    sent("no colon", LENGTH, "nonsense"),
    sent("NUL in a name", LENGTH, "X\0A: b"),
    sent("NUL in a value", LENGTH, "X-A: b\0c"),
    sent("CR in a value", LENGTH, "X-A: b\rc"),
    sent("LF ends one field", LENGTH + "\nX-A: b"),
    sent("BEL in a value", LENGTH, "X-A: b\x07"),
    sent("DEL in a value", LENGTH, "X-A: b\x7f"),
    sent("high bytes in a name", LENGTH, "X-\xe4: b"),
    sent("brackets in a name", LENGTH, "X[A]: b"),
    sent("comma in a name", LENGTH, "X,A: b"),
    sent("at sign in a name", LENGTH, "X@A: b"),
    sent("quoted name", LENGTH, '"X-A": b'),
    sent("high bytes in a value", LENGTH, "X-A: b\xe4", status=OK),
    sent("empty value", LENGTH, "X-A:", status=OK),
    sent("spaces around a value", LENGTH, "X-A: \t b \t", status=OK),
    sent("same name twice", LENGTH, "X-A: b", "X-A: c", status=OK),
    sent("two Authorizations", LENGTH, AUTH),
    sent("two content types", LENGTH, "Content-Type: application/json", "Content-Type: text/plain"),
    sent("two Expects", LENGTH, "Expect: 100-continue", "Expect: 100-continue"),
    sent("two api keys", LENGTH, "x-api-key: a", "x-api-key: b"),
    sent("two idempotency keys", LENGTH, "Idempotency-Key: a", "Idempotency-Key: b"),
    sent("an expectation nobody knows", LENGTH, "Expect: 200-ok", status=417),
    Case("gzip body", post(LENGTH, "Content-Encoding: gzip"), 415, closes=False),
    Case("br body", post(LENGTH, "Content-Encoding: br"), 415, closes=False),
    sent("identity body", LENGTH, "Content-Encoding: identity", status=OK),
    sent("100 fields", LENGTH, *[f"X-{n}: a" for n in range(97)], status=OK),
    sent("101 fields", LENGTH, *[f"X-{n}: a" for n in range(98)], status=431),
    sent("101 fields of one name", LENGTH, *["X-A: a"] * 101, status=431),
    sent("5,000 empty fields", LENGTH, *["a:"] * 5000, status=431),
    sent("32 KiB of fields", LENGTH, *[f"X-{n}: {'a' * 1000}" for n in range(31)], status=OK),
    sent("over 32 KiB of fields", LENGTH, *[f"X-{n}: {'a' * 1000}" for n in range(33)], status=431),
    sent("one field of 64 KiB", LENGTH, "X-A: " + "a" * 65536, status=431),
    sent("one name of 64 KiB", LENGTH, "a" * 65536 + ": a", status=431),
    sent("8 KiB of URI", LENGTH, line=f"POST {PATH}?{'a' * 8100} HTTP/1.1", status=OK),
    sent("over 8 KiB of URI", LENGTH, line=f"POST {PATH}?{'a' * 8200} HTTP/1.1", status=414),
    sent("64 KiB of URI", LENGTH, line=f"POST {PATH}?{'a' * 65536} HTTP/1.1", status=414),
    sent("Upgrade to h2c", LENGTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    sent("Upgrade to websocket", LENGTH, "Connection: upgrade", "Upgrade: websocket"),
    sent("Upgrade without Connection", LENGTH, "Upgrade: h2c", status=OK),
]  # fmt: skip

LENGTHS = [  # RFC 9112 section 6.2, 6.3
    sent("signed length", f"Content-Length: +{len(BODY)}"),
    sent("negative length", "Content-Length: -1"),
    sent("padded length", f"Content-Length: {len(BODY)} x"),
    sent("length with a space inside", "Content-Length: 1 0"),
    sent("empty length", "Content-Length:"),
    sent("hexadecimal length", f"Content-Length: 0x{len(BODY):x}"),
    sent("decimal fraction", f"Content-Length: {len(BODY)}.0"),
    sent("digit separators", "Content-Length: 1_0"),
    sent("length with a trailing comma", f"Content-Length: {len(BODY)},"),
    sent("listed length", f"Content-Length: {len(BODY)}, {len(BODY)}"),
    sent("two equal lengths", LENGTH, LENGTH),
    sent("two lengths that differ", LENGTH, "Content-Length: 5"),
    sent("Arabic digits", "Content-Length: \xd9\xa1"),
    sent("length beyond 64 bits", f"Content-Length: {2**64 + len(BODY)}"),
    sent("a million digits of length", "Content-Length: " + "9" * 30000),
    sent("length over the limit", f"Content-Length: {(1 << 20) + 1}", status=413),
    sent("leading zeros", f"Content-Length: 000{len(BODY)}", status=OK),
    Case("no length at all is no body", post(body=b""), 400, closes=False),
]

CODINGS = [  # RFC 9112 section 6.1, 7.1
    sent("chunked", CHUNKED, body=chunks(), status=OK),
    sent("chunked in capitals", "TRANSFER-ENCODING: CHUNKED", body=chunks(), status=OK),
    sent("CL then TE", LENGTH, CHUNKED, body=chunks()),
    sent("TE then CL", CHUNKED, LENGTH, body=chunks()),
    sent("CL 0 and TE", "Content-Length: 0", CHUNKED, body=chunks()),
    sent("TE twice", CHUNKED, CHUNKED, body=chunks()),
    sent("TE listed twice", "Transfer-Encoding: chunked, chunked", body=chunks()),
    sent("TE not last", "Transfer-Encoding: chunked, gzip", body=chunks()),
    sent("gzip before chunked", "Transfer-Encoding: gzip, chunked", body=chunks()),
    sent("identity", "Transfer-Encoding: identity", LENGTH),
    sent("identity alone", "Transfer-Encoding: identity"),
    sent("identity, chunked", "Transfer-Encoding: identity, chunked", body=chunks()),
    sent("misspelt", "Transfer-Encoding: xchunked", body=chunks()),
    sent("with a parameter", "Transfer-Encoding: chunked;q=1", body=chunks()),
    sent("quoted", 'Transfer-Encoding: "chunked"', body=chunks()),
    sent("vertical tab before", "Transfer-Encoding: \x0bchunked", body=chunks()),
    sent("empty TE", "Transfer-Encoding:", LENGTH),
    sent("trailing comma", "Transfer-Encoding: chunked,", body=chunks()),
    sent("space before the colon of TE", "Transfer-Encoding : chunked", body=chunks()),
    sent("TE in HTTP/1.0", CHUNKED, line=f"POST {PATH} HTTP/1.0", body=chunks()),
    sent("chunk size signed", CHUNKED, body=chunks(size=f"+{len(BODY):x}")),
    sent("chunk size negative", CHUNKED, body=chunks(size="-1")),
    sent("chunk size prefixed", CHUNKED, body=chunks(size=f"0x{len(BODY):x}")),
    sent("chunk size with a space before", CHUNKED, body=chunks(size=f" {len(BODY):x}")),
    sent("chunk size with a space after", CHUNKED, body=chunks(size=f"{len(BODY):x} ")),
    sent("chunk size with a tab after", CHUNKED, body=chunks(size=f"{len(BODY):x}\t")),
    sent("chunk size empty", CHUNKED, body=chunks(size="")),
    sent("chunk size no number", CHUNKED, body=chunks(size="xyz")),
    sent("chunk size with underscore", CHUNKED, body=chunks(size="1_0")),
    sent("chunk size beyond 64 bits", CHUNKED, body=chunks(size="10000000000000000" + f"{len(BODY):x}")),
    sent("chunk size with 30 zeros", CHUNKED, body=chunks(size="0" * 30 + f"{len(BODY):x}"), status=OK),
    sent("chunk extension", CHUNKED, body=chunks(size=f"{len(BODY):x};a=b"), status=OK),
    sent("chunk extension quoted", CHUNKED, body=chunks(size=f'{len(BODY):x};a="b c"'), status=OK),
    sent("chunk extension with a bare LF", CHUNKED, body=chunks(size=f"{len(BODY):x};a\nb")),
    sent("chunk extension with a bare CR", CHUNKED, body=chunks(size=f"{len(BODY):x};a\rb")),
    sent("chunk extension with a NUL", CHUNKED, body=chunks(size=f"{len(BODY):x};\0")),
    sent("chunk extension of 100 KiB", CHUNKED, body=chunks(size=f"{len(BODY):x};" + "a" * 102400)),
    sent("chunk line ends in LF", CHUNKED, body=f"{len(BODY):x}\n".encode() + BODY + b"\r\n0\r\n\r\n"),
    sent("chunk data longer than said", CHUNKED, body=chunks(size=f"{len(BODY) - 1:x}")),
    sent("no CRLF after the data", CHUNKED, body=chunks(after=b"")),
    sent("LF after the data", CHUNKED, body=chunks(after=b"\n")),
    sent("bad bytes after the data", CHUNKED, body=chunks(after=b"XX")),
    sent("last chunk with LF", CHUNKED, body=chunks(end=b"0\n\n")),
    sent("a trailer", CHUNKED, body=chunks(end=b"0\r\nX-Checksum: 1\r\n\r\n")),
    sent("a trailer that frames", CHUNKED, body=chunks(end=b"0\r\nContent-Length: 5\r\n\r\n")),
    sent("a trailer that authorises", CHUNKED, body=chunks(end=b"0\r\nAuthorization: Bearer other\r\n\r\n")),
    sent("100 KiB of trailers", CHUNKED, body=chunks(end=b"0\r\n" + b"X-A: b\r\n" * 15000 + b"\r\n")),
    sent("chunks over the body limit", CHUNKED, body=chunks(b"a" * ((1 << 20) + 1), end=b""), status=413),
]  # fmt: skip

DEEP = b'{"model":"good","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


def said(name: str, body: bytes, status: int = 400) -> Case:
    return Case(name, post(f"Content-Length: {len(body)}", body=body), status, closes=False)


BODIES = [  # what JSON holds; the connection goes on
    said("empty", b""),
    said("no JSON", b"{"),
    said("an array", b"[]"),
    said("a number", b"1"),
    said("deep nesting in messages", DEEP),
    said("deep nesting elsewhere", b'{"model":"good","messages":[{"role":"user","content":"hi"}],"x":' + b'{"a":' * 60_000 + b"1" + b"}" * 60_000 + b"}"),
    said("deep nesting unclosed", b"[" * 100_000),
    said("invalid UTF-8", b'{"model":"\xff","messages":[{"role":"user","content":"hi"}]}'),
    said("UTF-16", '{"model":"good"}'.encode("utf-16")),
    said("NUL inside", b'{"model":"good",\0"messages":[]}'),
    said("NaN", b'{"model":"good","messages":[{"role":"user","content":"hi"}],"temperature":NaN}'),
    said("two documents", BODY + BODY),
    said("model missing", b'{"messages":[{"role":"user","content":"hi"}]}'),
    said("model a number", b'{"model":1,"messages":[{"role":"user","content":"hi"}]}'),
    said("model unknown", b'{"model":"nobody/x","messages":[{"role":"user","content":"hi"}]}', 404),
    said("messages empty", b'{"model":"good","messages":[]}'),
    said("stream a string", b'{"model":"good","messages":[{"role":"user","content":"hi"}],"stream":"yes"}'),
]  # fmt: skip

CASES = [*REQUEST_LINE, *HOST_FIELD, *FIELDS, *LENGTHS, *CODINGS, *BODIES]
