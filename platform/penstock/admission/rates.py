"""Limits for those who want them: requests and tokens a minute, and requests at once, of a key or a project.

A minute slides: what counts is this minute's sum and the share of the last one's that is still within sixty
seconds. Sums are shared between gateways through `shared_counters`, a tenth of a second late.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.access.keyring import Principal
from penstock.access.limits import NONE, RateLimits
from penstock.admission.shared_counters import SharedCounters

MINUTE_S = 60
KEEP_S = 3 * MINUTE_S


class RateLimited(Exception):
    """A limit is reached; nothing was billed, there is room again after `retry_after_s`."""

    def __init__(self, scope: str, limit: str, used: int, most: int, retry_after_s: int) -> None:
        super().__init__(
            f"{scope} is limited to {most} {limit} and has {used}; nothing was billed, "
            f"try again in {retry_after_s} s"
        )
        self.limit = limit
        self.most = most
        self.remaining = max(0, most - used)
        self.retry_after_s = retry_after_s


REQUESTS, TOKENS, CONCURRENT = "requests per minute", "tokens per minute", "requests at once"


class Rates:
    """What limited scopes have used lately."""

    def __init__(self, counters: SharedCounters, clock: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._clock = clock
        self._running: dict[str, int] = {}

    def enter(self, scopes: list[tuple[str, RateLimits]]) -> Pass:
        """Count a request in, or raise RateLimited; then nothing is counted. Leave the pass when it is over.

        Tokens are counted when they are known: a request is let in as long as any are left.
        """
        for scope, limits in scopes:
            if limits.concurrent_requests is not None:
                running = self._running.get(scope, 0)
                if running >= limits.concurrent_requests:
                    raise RateLimited(scope, CONCURRENT, running, limits.concurrent_requests, 1)
            self._check(scope, TOKENS, limits.tokens_per_minute)
            self._check(scope, REQUESTS, limits.requests_per_minute)
        for scope, limits in scopes:
            if limits.requests_per_minute is not None:
                self._count(scope, REQUESTS, 1)
            self._running[scope] = self._running.get(scope, 0) + 1
        return Pass(self, scopes)

    def _leave(self, scopes: list[tuple[str, RateLimits]], tokens: int) -> None:
        for scope, limits in scopes:
            left = self._running[scope] - 1
            if left:
                self._running[scope] = left
            else:
                del self._running[scope]
            if limits.tokens_per_minute is not None and tokens:
                self._count(scope, TOKENS, tokens)

    def _check(self, scope: str, limit: str, most: int | None) -> None:
        if most is None:
            return
        minute, into_s = divmod(self._clock(), MINUTE_S)
        before = self._counters.sum(_name(scope, limit, minute - 1))
        now = self._counters.sum(_name(scope, limit, minute))
        used = now + before * (MINUTE_S - into_s) / MINUTE_S
        if used >= most:
            if now < most:
                # The last minute's share fades evenly.
                wait_s = (used - most) / before * MINUTE_S
            else:
                # This minute has to become the last one first, and then fade.
                wait_s = MINUTE_S - into_s + MINUTE_S * (1 - most / now)
            raise RateLimited(scope, limit, int(used), most, int(wait_s) + 1)

    def _count(self, scope: str, limit: str, amount: int) -> None:
        self._counters.add(_name(scope, limit, self._clock() // MINUTE_S), amount, KEEP_S)


class Pass:
    """A request that limits let in; a context that counts it out again."""

    __slots__ = ("_rates", "_scopes", "tokens")

    def __init__(self, rates: Rates, scopes: list[tuple[str, RateLimits]]) -> None:
        self._rates = rates
        self._scopes = scopes
        self.tokens = 0
        """What it used, as soon as that is known."""

    def __enter__(self) -> Pass:
        """Nothing yet: it was counted in when it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Count it out, and its tokens in."""
        self._rates._leave(self._scopes, self.tokens)


def limited_scopes(principal: Principal) -> list[tuple[str, RateLimits]]:
    """What of a principal is limited, each with its name in counters and messages."""
    if principal.key_limits is NONE and principal.project_limits is NONE:
        return []
    every = (
        (f"key {principal.key_id}", principal.key_limits),
        (f"project {principal.project_id}", principal.project_limits),
    )
    return [(scope, limits) for scope, limits in every if limits != NONE]


def _name(scope: str, limit: str, minute: float) -> str:
    return f"{scope}:{limit}:{minute:.0f}"
