"""The load client, a process of its own: reads one `Plan` from standard input and prints one `Loaded`.

Written straight on the event loop's protocols, so that it takes little of the cores it shares with what it
measures.
"""

from __future__ import annotations

import asyncio
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
import uvloop
from benchmarks.rig import processes

DONE = b"data: [DONE]"


class Plan(msgspec.Struct, kw_only=True):
    """What to ask, where, and whose CPU time to watch meanwhile."""

    socket: str = ""
    """A unix socket; otherwise `port` of the loopback."""
    port: int = 0
    model: str = ""
    key: str = ""
    requests: int
    connections: int = 16
    tokens: int
    """Of every answer: `max_tokens`."""
    streamed: bool
    extra: dict[str, Any] = {}
    """More fields of the request's body."""
    warm_up: int = 16
    """Requests before anything is counted."""
    spread_s: float = 0.0
    """Connections begin this far apart from first to last, so that paced streams do not tick together."""
    settle_s: float = 0.0
    """Goes on watching after the last answer, for work that a gateway does later (shipping records)."""
    watch: list[int] = []
    """Roots of the process trees whose CPU time counts."""
    rate_per_s: float = 0.0
    """Requests begin at this pace, whatever came of those before; 0: as soon as a connection is free."""
    count_failures: bool = False
    """An answer that is not as asked is counted, and does not end the load."""
    keep_firsts: bool = False
    """Hand back every time to the first byte of an answer, for percentiles over several clients."""
    lasts_s: float = 0.0
    """No request begins after so long, however many are left; 0: until all were asked."""


class Loaded(msgspec.Struct):
    """What came of it."""

    requests: int
    wall_s: float
    cpu_s: float
    first_p50_ms: float
    first_p99_ms: float
    failed: int = 0
    failure: str = ""
    """What the first one said."""
    answered: int = 0
    refused: int = 0
    """With status 429."""
    refused_p50_ms: float = 0.0
    refused_p99_ms: float = 0.0
    firsts_ms: list[float] = []


class LoadError(Exception):
    """An answer was not what was asked for."""


class Exchange(asyncio.Protocol):
    """One kept-alive connection: asks, reads, asks again as long as `more` says so."""

    def __init__(
        self, request: bytes, streamed: bool, more: Callable[[], bool], over: Callable[[str], None]
    ) -> None:
        self._request = request
        self._streamed = streamed
        self._more = more
        self._over = over
        self._transport: asyncio.Transport | None = None
        self.first_ns: list[int] = []
        self.refused_ns: list[int] = []
        self.pause_s: Callable[[], float] = lambda: 0.0
        """How long to wait before the next request; infinite where there is to be none."""
        self.failures: list[str] | None = None
        """Where to count failures; otherwise the first ends it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def go(self) -> None:
        """Ask once more, or be over."""
        if not self._more() or (pause_s := self.pause_s()) == math.inf:
            self._over("")
        elif pause_s > 0:
            asyncio.get_running_loop().call_later(pause_s, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = True
        self._last = b""
        assert self._transport is not None
        self._asked_ns = time.perf_counter_ns()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if self._waiting:
            self._waiting = False
            refused = self._parser.get_status_code() == 429
            (self.refused_ns if refused else self.first_ns).append(time.perf_counter_ns() - self._asked_ns)
        self._last = body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200 or (self._streamed and DONE not in self._last):
            problem = f"status {status}: {self._last[-500:].decode(errors='replace')}"
            if self.failures is None:
                self._over(problem)
                return
            self.failures.append(problem)
            asyncio.get_running_loop().call_soon(self.go)
        else:
            asyncio.get_running_loop().call_soon(self.go)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(f"the connection was closed ({exc})")


def request(plan: Plan) -> bytes:
    """The one request that is asked again and again."""
    body = {
        "model": plan.model,
        "messages": [
            {"role": "system", "content": "You answer briefly and plainly."},
            {
                "role": "user",
                "content": "Explain how a penstock feeds a turbine, and what happens when it closes.",
            },
        ],
        "max_tokens": plan.tokens,
        "temperature": 0.7,
        "stream": plan.streamed,
    }
    text = msgspec.json.encode(body | plan.extra)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {plan.key or 'none'}\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def _the(exchange: Exchange) -> Exchange:
    return exchange


async def _phase(exchanges: list[Exchange], left: list[int], requests: int, spread_s: float) -> float:
    """Ask this many times over all connections; the seconds it took."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    running = len(exchanges)

    def one_over(problem: str) -> None:
        nonlocal running
        running -= 1
        if problem and not over.done():
            over.set_exception(LoadError(problem))
        elif running == 0 and not over.done():
            over.set_result(None)

    left[0] = requests
    began = time.perf_counter()
    for number, exchange in enumerate(exchanges):
        exchange._over = one_over
        exchange.first_ns.clear()
        exchange.refused_ns.clear()
        loop.call_later(spread_s * number / len(exchanges), exchange.go)
    await over
    for exchange in exchanges:
        exchange._over = lambda _: None
    return time.perf_counter() - began


async def load(plan: Plan) -> Loaded:
    """Do what the plan says; raises LoadError or OSError."""
    loop = asyncio.get_running_loop()
    left = [0]

    until_s = [math.inf]

    def more() -> bool:
        left[0] -= 1
        return left[0] >= 0 and time.monotonic() < until_s[0]

    text = request(plan)
    exchanges: list[Exchange] = []
    for _ in range(plan.connections):
        exchange = Exchange(text, plan.streamed, more, lambda _: None)
        made = functools.partial(_the, exchange)
        if plan.socket:
            await loop.create_unix_connection(made, plan.socket)
        else:
            await loop.create_connection(made, "127.0.0.1", plan.port)
        exchanges.append(exchange)
    await _phase(exchanges, left, plan.warm_up, 0.0)
    failures: list[str] = []
    began_s = time.monotonic()
    if plan.lasts_s:
        until_s[0] = began_s + plan.lasts_s

    def pause_s() -> float:
        asked = plan.requests - left[0] - 1
        due_s = began_s + asked / plan.rate_per_s
        return due_s - time.monotonic() if due_s < until_s[0] else math.inf

    for exchange in exchanges:
        exchange.failures = failures if plan.count_failures else None
        exchange.pause_s = pause_s if plan.rate_per_s else exchange.pause_s
    before = processes.cpu_s(plan.watch)
    wall_s = await _phase(exchanges, left, plan.requests, plan.spread_s)
    await asyncio.sleep(plan.settle_s)
    cpu_s = processes.cpu_s(plan.watch) - before
    first_ms = sorted(ns / 1e6 for exchange in exchanges for ns in exchange.first_ns)
    refused_ms = sorted(ns / 1e6 for exchange in exchanges for ns in exchange.refused_ns)
    return Loaded(
        plan.requests,
        wall_s,
        cpu_s,
        statistics.median(first_ms),
        first_ms[int(len(first_ms) * 0.99)],
        len(failures),
        failures[0] if failures else "",
        answered=len(first_ms),
        refused=len(refused_ms),
        refused_p50_ms=statistics.median(refused_ms) if refused_ms else 0.0,
        refused_p99_ms=refused_ms[int(len(refused_ms) * 0.99)] if refused_ms else 0.0,
        firsts_ms=first_ms if plan.keep_firsts else [],
    )


def main() -> None:
    """Read, load, print; an error is one line on standard error and status 1."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    try:
        loaded = uvloop.run(load(plan))
    except (LoadError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    sys.stdout.buffer.write(msgspec.json.encode(loaded))


if __name__ == "__main__":
    main()
