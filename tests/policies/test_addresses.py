"""Every known way to write an address that leads inside, and that what is public stays reachable."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.addresses import LONGEST, Place, Rules, is_address, place, reachable

ANY, PRIVATE = Rules(), Rules(private=True)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://example.com/a.png", Place("https", "example.com", 443, "/a.png")),
        ("HTTPS://EXAMPLE.com./a.png#top", Place("https", "example.com", 443, "/a.png")),
        ("http://example.com", Place("http", "example.com", 80, "/")),
        ("http://example.com?x=1", Place("http", "example.com", 80, "/?x=1")),
        ("https://example.com:443/", Place("https", "example.com", 443, "/")),
        ("http://example.com:443/", Place("http", "example.com", 443, "/")),
        ("https://cdn_1.example.com/a%20b?c=d%2F&e=f@g", Place("https", "cdn_1.example.com", 443, "/a%20b?c=d%2F&e=f@g")),
        ("https://example.com/größe 1.png", Place("https", "example.com", 443, "/gr%C3%B6%C3%9Fe%201.png")),
        ("https://example.com/a\\b", Place("https", "example.com", 443, "/a%5Cb")),
        ("https://xn--bcher-kva.example/", Place("https", "xn--bcher-kva.example", 443, "/")),
        ("https://93.184.215.14/", Place("https", "93.184.215.14", 443, "/")),
        ("https://[2606:2800:21F::1]/", Place("https", "2606:2800:21f::1", 443, "/")),
        ("https://1.2.3.4.example.com/", Place("https", "1.2.3.4.example.com", 443, "/")),
    ],
)
def test_what_can_be_fetched(address: str, wanted: Place) -> None:
    assert place(address, ANY) == wanted


@pytest.mark.parametrize(
    "address",
    [
        "", "example.com/a.png", "//example.com/", "http:/example.com", "http:example.com", "http:///a", "http://", "https://?a", "http://#",
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "data:image/png;base64,AAAA", "s3://bucket/key", "javascript:1",
        "http://user@example.com/", "http://user:pass@example.com/", "http://@example.com/", "http://example.com@127.0.0.1/",
        "http://127.0.0.1\\@example.com/", "http://example.com\\.evil.com/", "http://example.com:80@127.0.0.1/",
        "http://example.com:22/", "http://example.com:8080/", "http://example.com:0/", "http://example.com:00080/", "http://example.com:/",
        "http://example.com:65616/", "http://example.com:80:80/", "http://example.com:８０/", "http://example.com:-80/", "http://example.com:+80/",
        # one address, other spellings of it
        "http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0x7F.1/", "http://127.1/", "http://127.0.1/",
        "http://0177.0.0.1/", "http://127.0.0.01/", "http://0x7f.0.0.0x1/", "http://0/", "http://0x/", "http://127.0.0.1.0/", "http://1.2.3/",
        "http://256.0.0.1/", "http://127.0.0.1./a:b@c", "http://4294967297/", "http://example.0x1/", "http://00000177.1/",
        "http://①②⑦.⓪.⓪.①/", "http://１２７.０.０.１/", "http://127。0。0。1/", "http://ⓔxample.com/", "http://bücher.example/", "http://%31%32%37.0.0.1/",
        "http://127.0.0.1%00.example.com/", "http://127.0.0.1%2eexample.com/", "http://example.com%2f@127.0.0.1/",
        # IPv6
        "http://[::1", "http://::1/", "http://[::1]:22/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1]x/", "http://[]/",
        "http://[127.0.0.1]/", "http://[example.com]/", "http://[1:2:3:4:5:6:7:8:9]/", "http://[v1.fe80::a]/",
        # names that are none
        "http://.example.com/", "http://example..com/", "http://-a.example/", "http://a-.example/", "http://exa mple.com/", "http://./", "http://../",
        f"http://{'a' * 64}.example/", f"http://{'a.' * 127}example/", f"https://example.com/{'a' * LONGEST}",
        # bytes that end a header
        "http://example.com/\r\nHost: evil", "http://example.com/a\tb", " http://example.com/", "http://example.com/\x00", "http://exa\nmple.com/",
        "http://example.com/\ud800", "http://example.com/\x85",
    ],
)  # fmt: skip
def test_what_cannot(address: str) -> None:
    found = place(address, ANY)
    assert found is None or address == "http://127.0.0.1./a:b@c"
    if found is not None:  # an address in plain sight: parsed, then refused by what it is
        assert not reachable(found.host, ANY)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "100.100.100.200", "168.63.129.16",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808",
        "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1",
        "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0",
        "fec0::1", "ff02::1", "ff0e::1", "4000::1", "localhost", "", "127.1", "0x7f000001", "01.2.3.4",
    ],
)  # fmt: skip
def test_what_is_not_public_is_not_reached(address: str) -> None:
    assert not reachable(address, ANY)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "93.184.215.14", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
     "192.167.255.255", "192.169.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001:82f::200e", "2001:4860:4860::8888", "2003::1"],
)  # fmt: skip
def test_what_is_public_is(address: str) -> None:
    assert reachable(address, ANY)
    assert reachable(address, PRIVATE)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "172.20.0.1", "192.168.0.9", "100.64.0.9", "::1", "fd12:3456::1"])
def test_ones_own_networks_are_reached_on_request(address: str) -> None:
    assert reachable(address, PRIVATE)
    assert not reachable(address, ANY)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "ff02::1"],
)  # fmt: skip
def test_some_are_never_reached(address: str) -> None:
    assert not reachable(address, PRIVATE)


def test_ports_and_hosts_are_a_list() -> None:
    rules = Rules(ports=frozenset({443, 8443}), hosts=("cdn.example.com", "*.images.example"))
    assert place("https://cdn.example.com/a", rules)
    assert place("https://CDN.example.com.:8443/a", rules)
    assert place("https://a.b.images.example/", rules)
    for refused in (
        "http://cdn.example.com/", "https://images.example/", "https://evilimages.example/", "https://example.com/", "https://cdn.example.com.evil/",
        "https://x.cdn.example.com/", "https://93.184.215.14/",
    ):  # fmt: skip
        assert place(refused, rules) is None


@given(st.ip_addresses())
def test_no_address_that_python_calls_private_is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if reachable(str(ip), ANY):
        assert ip.is_global
        assert not ip.is_multicast
        assert not ip.is_link_local
        assert getattr(ip, "ipv4_mapped", None) is None
        assert getattr(ip, "sixtofour", None) is None
        assert getattr(ip, "teredo", None) is None


@given(st.text() | st.text("htps:/.@[]%\\#?0123456789abcdefx-_ \r\n").map(lambda rest: f"http://{rest}"))
def test_whatever_is_written_what_comes_out_can_be_sent(text: str) -> None:
    found = place(text, Rules(ports=frozenset(range(65536))))
    if found is not None:
        line = f"{found.target} {found.authority}"
        assert line.isascii()
        assert line.isprintable()
        assert " " not in found.target
        assert place(f"{found.scheme}://{found.authority}{found.target}", Rules(ports=frozenset(range(65536)))) == found


def test_the_host_field_is_the_names() -> None:
    assert Place("http", "a.example", 80, "/").authority == "a.example"
    assert Place("https", "a.example", 80, "/").authority == "a.example:80"
    assert Place("https", "2606::1", 443, "/").authority == "[2606::1]"


@pytest.mark.parametrize(("host", "known"), [("10.0.0.1", True), ("::1", True), ("example.com", False), ("1.2.3", False)])
def test_a_host_that_is_an_address_is_known_before_it_is_looked_up(host: str, known: bool) -> None:
    assert is_address(host) is known
