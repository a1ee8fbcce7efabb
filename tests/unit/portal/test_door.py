"""Where a sign-in may lead, who asks, and what a browser calls itself."""

from __future__ import annotations

import ipaddress

import pytest
from litestar import Request

from penstock.portal import callers
from penstock.portal.guard import HOME, safe_next


@pytest.mark.parametrize(
    "text",
    ["/portal", "/portal/", "/portal?x=1", "/portal/usage?month=2026-01&by=model#top", "/portal/models/né/ü"],
)
def test_a_page_of_the_portal_is_where_one_goes(text: str) -> None:
    assert safe_next(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://evil.example/portal",
        "//evil.example/portal",
        "/\\evil.example",
        "/portal\\@evil.example",
        "/portal/\\..\\evil",
        "/portalevil",
        "/portal@evil.example",
        "/portal.evil.example",
        "/portal\r\nSet-Cookie: a=b",
        "/portal/x\n",
        "/portal/\tx",
        "\t//evil.example",
        "javascript:alert(1)",
        "/portal/" + "x" * 2000,
        "/portal/\x00",
    ],
)
def test_nothing_else_is(text: str) -> None:
    assert safe_next(text) == HOME


def asks(peer: str, forwarded: str | None) -> Request:  # type: ignore[type-arg]
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    return Request({"type": "http", "headers": headers, "client": (peer, 1), "state": {}})  # type: ignore[arg-type, typeddict-item]


PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "caller"),
    [
        ("192.0.2.1", None, (), "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", (), "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", PROXIES, "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", PROXIES, "198.51.100.7"),
        ("::1", "198.51.100.7, 10.0.0.9", PROXIES, "198.51.100.7"),
        ("::ffff:10.0.0.1", "198.51.100.7", PROXIES, "198.51.100.7"),
        # Whoever is in front of our proxy may write what they like: only its own word counts.
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", PROXIES, "198.51.100.7"),
        ("10.0.0.1", "", PROXIES, "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", PROXIES, "10.0.0.2"),
        ("10.0.0.1", "x" * 500, PROXIES, "x" * 100),
    ],
)
def test_a_proxy_is_believed_only_where_it_is_ours(
    peer: str, forwarded: str | None, proxies: tuple[ipaddress.IPv4Network, ...], caller: str
) -> None:
    assert callers.address(asks(peer, forwarded), proxies) == caller


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 "
            "Safari/537.36 Edg/142.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) "
            "Version/18.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
        ),
        ("python-httpx/0.28", "python-httpx/0.28"),
        ("", "An unnamed browser"),
    ],
)
def test_a_browser_is_named_in_words(agent: str, words: str) -> None:
    assert callers.browser(agent) == words
