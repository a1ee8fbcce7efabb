"""Limits for those who want them: requests and tokens a minute, and requests at once.

A minute slides: what counts is this minute's sum and the share of the last one's that is still within sixty
seconds. Sums are shared between gateways through `shared_counters`: what another gateway counted is known
here `LAG_S` later, and that is all by which a limit can be passed; with Redis away each gateway counts alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import msgspec

from penstock.access.keyring import Principal
from penstock.access.limits import NONE, RateLimits
from penstock.admission.at_once import AtOnce
from penstock.admission.shared_counters import EVERY_S, SharedCounters

MINUTE_S = 60
KEEP_S = 3 * MINUTE_S
LAG_S = 2 * EVERY_S
"""How long it takes at most until one gateway knows what another counted, as long as Redis answers."""

REQUESTS, TOKENS, CONCURRENT = "requests per minute", "tokens per minute", "requests at once"


class Scope(msgspec.Struct, frozen=True):
    """What is limited, and to what."""

    id: str
    """In counters: of one scope in the whole installation."""
    words: str
    """In messages."""
    limits: RateLimits


class Room(msgspec.Struct, frozen=True):
    """How much of one limit a minute there is left."""

    most: int
    remaining: int
    reset_s: float
    """Until all of it is there again, if nothing more is used."""


class RateLimited(Exception):
    """A limit is reached; nothing was billed, there is room again after `retry_after_s`."""

    def __init__(self, scope: Scope, limit: str, used: int, most: int, retry_after_s: int) -> None:
        super().__init__(
            f"{scope.words} is limited to {most} {limit} and has {used}; nothing was billed, "
            f"try again in {retry_after_s} s"
        )
        self.scope = scope.words
        self.limit = limit
        self.used = used
        self.most = most
        self.retry_after_s = retry_after_s
        self.rooms: dict[str, Room] = {}
        """What there is of the limits a minute, by limit."""


class Rates:
    """What limited scopes have used lately."""

    def __init__(self, counters: SharedCounters, clock: Callable[[], float] = time.time) -> None:
        self._counters = counters
        self._clock = clock
        self._at_once = AtOnce(counters, clock)
        self._minutes: dict[int, set[str]] = {}
        """Names of sums, by the minute they are of, so that they are forgotten."""

    def enter(self, scopes: Sequence[Scope]) -> Pass:
        """Count a request in, or raise RateLimited; then nothing is counted. Leave the pass when it is over.

        Tokens are counted when they are known: a request is let in as long as any are left.
        """
        try:
            for scope in scopes:
                self._check(scope)
        except RateLimited as error:
            error.rooms = self._rooms(scopes)
            raise
        for scope in scopes:
            if scope.limits.requests_per_minute is not None:
                self._count(scope, REQUESTS, 1)
            if scope.limits.concurrent_requests is not None:
                self._at_once.enter(scope.id)
        return Pass(self, scopes, self._rooms(scopes))

    async def run(self) -> None:
        """Keep what is told of requests at once alive, and forget minutes that are over, until cancelled."""
        while True:
            await asyncio.sleep(self._at_once.until_next_s())
            self.tidy()

    def tidy(self) -> None:
        """Go on to the present counter of requests at once; forget the sums of minutes that count no more."""
        self._at_once.turn()
        now = int(self._clock() // MINUTE_S)
        for minute in [minute for minute in self._minutes if minute < now - 1]:
            for name in self._minutes.pop(minute):
                self._counters.forget(name)

    def _leave(self, scopes: Sequence[Scope], tokens: int) -> None:
        for scope in scopes:
            if scope.limits.concurrent_requests is not None:
                self._at_once.leave(scope.id)
            if scope.limits.tokens_per_minute is not None and tokens:
                self._count(scope, TOKENS, tokens)

    def _check(self, scope: Scope) -> None:
        """Raise RateLimited where a scope has no room."""
        most = scope.limits.concurrent_requests
        if most is not None:
            running = self._at_once.count(scope.id)
            if running >= most:
                raise RateLimited(scope, CONCURRENT, running, most, 1)
        for limit, most in _minute_limits(scope):
            before, now, used = self._used(scope, limit)
            if used < most:
                continue
            into_s = self._clock() % MINUTE_S
            if now < most:
                # The last minute's share fades evenly.
                wait_s = (used - most) / before * MINUTE_S
            else:
                # This minute has to become the last one first, and then fade.
                wait_s = MINUTE_S - into_s + MINUTE_S * (1 - most / now)
            raise RateLimited(scope, limit, int(used), most, int(wait_s) + 1)

    def _rooms(self, scopes: Sequence[Scope]) -> dict[str, Room]:
        """What is left of each limit a minute; of several scopes', the one with the least."""
        rooms: dict[str, Room] = {}
        for scope in scopes:
            for limit, most in _minute_limits(scope):
                _, now, used = self._used(scope, limit)
                into_s = self._clock() % MINUTE_S
                # This minute's sum is gone when the next minute is over, the last one's with this minute.
                reset_s = 2 * MINUTE_S - into_s if now else MINUTE_S - into_s if used else 0.0
                room = Room(most, max(0, most - math.ceil(used)), reset_s)
                if limit not in rooms or room.remaining < rooms[limit].remaining:
                    rooms[limit] = room
        return rooms

    def _used(self, scope: Scope, limit: str) -> tuple[float, float, float]:
        """Sums of the last minute and of this one, and what counts of both now."""
        minute, into_s = divmod(self._clock(), MINUTE_S)
        before = self._sum(scope, limit, int(minute) - 1)
        now = self._sum(scope, limit, int(minute))
        return before, now, now + before * (MINUTE_S - into_s) / MINUTE_S

    def _sum(self, scope: Scope, limit: str, minute: int) -> float:
        name = self._name(scope, limit, minute)
        self._counters.look(name)
        return self._counters.sum(name)

    def _count(self, scope: Scope, limit: str, amount: int) -> None:
        self._counters.add(self._name(scope, limit, int(self._clock() // MINUTE_S)), amount, KEEP_S)

    def _name(self, scope: Scope, limit: str, minute: int) -> str:
        name = f"{scope.id}:{limit}:{minute}"
        self._minutes.setdefault(minute, set()).add(name)
        return name


class Pass:
    """A request that limits let in; a context that counts it out again."""

    __slots__ = ("_rates", "_scopes", "rooms", "tokens")

    def __init__(self, rates: Rates, scopes: Sequence[Scope], rooms: dict[str, Room]) -> None:
        self._rates = rates
        self._scopes = scopes
        self.rooms = rooms
        """What was left of the limits a minute when it was let in, this request counted."""
        self.tokens = 0
        """What it used, as soon as that is known."""

    def __enter__(self) -> Pass:
        """Nothing yet: it was counted in when it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """Count it out, and its tokens in."""
        self._rates._leave(self._scopes, self.tokens)


def limited_scopes(principal: Principal) -> list[Scope]:
    """What of a principal is limited."""
    if principal.key_limits is principal.project_limits is principal.plan_limits is NONE:
        return []
    every = (
        Scope(f"key {principal.key_id}", f"key {principal.key_id}", principal.key_limits),
        Scope(f"project {principal.project_id}", "the key's project", principal.project_limits),
        Scope(f"organisation {principal.organisation_id}", "the organisation", principal.plan_limits),
    )
    return [scope for scope in every if scope.limits != NONE]


def endpoint_scope(endpoint_id: int, name: str, limits: RateLimits) -> Scope:
    """An endpoint, all its callers together; names are an organisation's own, ids are not."""
    return Scope(f"endpoint {endpoint_id}", f"endpoint {name}", limits)


def _minute_limits(scope: Scope) -> list[tuple[str, int]]:
    """The limits a minute that a scope has."""
    both = ((TOKENS, scope.limits.tokens_per_minute), (REQUESTS, scope.limits.requests_per_minute))
    return [(limit, most) for limit, most in both if most is not None]
