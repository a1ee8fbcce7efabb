"""A visit to a page as a browser makes it: the page, what it draws with, and where it leads."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from html import unescape

import httpx
from benchmarks.figures import Unmeasurable

PART = re.compile(r'(?:href|src)="(/portal/static/[^"]+)"')
STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)"')
IMPORT = re.compile(r'(?:import|from)\s*"(\.[^"]+)"')
LINK = re.compile(r'<a [^>]*?href="(/portal[^"#]*)"')


@dataclass(frozen=True)
class Visit:
    """What one visit to a page took."""

    page_ms: float
    """Until all of the page was there."""
    paint_ms: float
    """Until its stylesheets were, too: from here a browser can draw."""


async def visit(browser: httpx.AsyncClient, path: str) -> Visit:
    """Load a page and its stylesheets; raises Unmeasurable when there is no such page."""
    began_s = time.perf_counter()
    text = await read(browser, path)
    page_s = time.perf_counter()
    await asyncio.gather(*(browser.get(href) for href in STYLE.findall(text)))
    return Visit((page_s - began_s) * 1e3, (time.perf_counter() - began_s) * 1e3)


async def read(browser: httpx.AsyncClient, path: str, **headers: str) -> str:
    """The text of a page; raises Unmeasurable."""
    answer = await browser.get(path, headers=headers)
    if answer.status_code != httpx.codes.OK:
        raise Unmeasurable(f"{path} was answered with {answer.status_code}")
    return answer.text


async def weigh(browser: httpx.AsyncClient, path: str) -> int:
    """The bytes that a first visit to a page brings over the network, with all it loads by itself."""
    answer = await browser.get(path)
    wanted, had, sum_bytes = set(PART.findall(answer.text)), set[str](), answer.num_bytes_downloaded
    while wanted:
        had |= wanted
        parts = await asyncio.gather(*(browser.get(part) for part in wanted))
        sum_bytes += sum(part.num_bytes_downloaded for part in parts)
        scripts = [part for part in parts if part.url.path.endswith(".js")]
        found = {str(part.url.join(name).path) for part in scripts for name in IMPORT.findall(part.text)}
        wanted = found - had
    return sum_bytes


async def first_link(browser: httpx.AsyncClient, path: str, pattern: str) -> str | None:
    """Where a page leads to that matches; None when it leads to no such place."""
    links = (unescape(link) for link in LINK.findall(await read(browser, path)))
    return next((link for link in links if re.fullmatch(pattern, link)), None)
