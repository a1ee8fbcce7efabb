"""Where a request comes from: the address of the machine, and the browser in words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from litestar import Request

from penstock.settings import IPNetwork

BROWSERS = (
    ("Edge", re.compile(r"\bEdg(?:e|A|iOS)?/")),
    ("Opera", re.compile(r"\bOPR/|\bOpera/")),
    ("Samsung Internet", re.compile(r"\bSamsungBrowser/")),
    ("Firefox", re.compile(r"\b(?:Firefox|FxiOS)/")),
    ("Chrome", re.compile(r"\b(?:Headless)?Chrome/|\bCriOS/|\bChromium/")),
    ("Safari", re.compile(r"\bVersion/[\d.]+.*\bSafari/")),
    ("curl", re.compile(r"^curl/")),
)
"""In this order: most of them also say that they are those that follow."""
SYSTEMS = (
    ("iPhone", re.compile(r"\biPhone\b")),
    ("iPad", re.compile(r"\biPad\b")),
    ("Android", re.compile(r"\bAndroid\b")),
    ("Windows", re.compile(r"\bWindows\b")),
    ("macOS", re.compile(r"\bMac OS X\b")),
    ("ChromeOS", re.compile(r"\bCrOS\b")),
    ("Linux", re.compile(r"\bLinux\b")),
)


def address(request: Request[Any, Any, Any], proxies: Sequence[IPNetwork]) -> str:
    """The machine that asks: the peer, or whom the nearest proxy of ours speaks for.

    `X-Forwarded-For` is believed from the right, as far as the names in it are our own proxies: what stands
    further left anybody can write.
    """
    peer = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "")
    if not proxies or not forwarded:
        return peer
    way = [part.strip() for part in forwarded.split(",")[-20:]]
    while way and _among(peer, proxies):
        peer = way.pop()
    return peer[:100]


def browser(agent: str) -> str:
    """What a User-Agent header calls itself, in words: "Firefox on Linux"."""
    if not agent:
        return "An unnamed browser"
    name = next((name for name, sign in BROWSERS if sign.search(agent)), "")
    system = next((name for name, sign in SYSTEMS if sign.search(agent)), "")
    if name and system:
        return f"{name} on {system}"
    return name or system or agent[:40]


def _among(text: str, networks: Sequence[IPNetwork]) -> bool:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in networks)
