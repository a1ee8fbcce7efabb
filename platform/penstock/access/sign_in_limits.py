"""How often signing in may be tried: kept in Postgres, so for all gateways together and across restarts.

Each rule is a bucket of tries for a subject, which fills again with time. A wrong password takes from three:
the address's, that of this address for this account, and the account's. The last refills fast enough that one
stranger cannot empty it for everybody, and a browser that was signed in to the account before has a bucket of
its own: strangers slow its person down nowhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from datetime import timedelta

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock.access", "sign_in_limits.sql")


class TooManyTries(Exception):
    """Not now; `retry_after_s` says when there is a try again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong tries: try again in {in_words(retry_after_s)}")
        self.retry_after_s = retry_after_s


class Rule(msgspec.Struct, frozen=True):
    """A bucket of `tries`, into which one more falls after each `every`."""

    kind: str
    tries: int
    every: timedelta


ADDRESS = Rule("address", 30, timedelta(seconds=10))
"""Of one machine or home network, whatever accounts it tries."""
PAIR = Rule("pair", 5, timedelta(seconds=30))
"""Of one address for one account."""
ACCOUNT = Rule("account", 20, timedelta(seconds=5))
"""Of everybody for one account, but browsers that it knows."""
DEVICE = Rule("device", 10, timedelta(seconds=20))
"""Of one browser that was signed in to the account before."""
CODE = Rule("code", 5, timedelta(minutes=3))
"""Of codes of a second factor, after the password: guessing at this pace takes two years on average."""
PASSWORD = Rule("password", 5, timedelta(seconds=30))
"""Of the password asked again from who is signed in."""


async def take(pool: asyncpg.Pool, rule: Rule, subject: str) -> None:
    """Take a try before anything is verified; raises TooManyTries."""
    room = rule.every * rule.tries
    key = _digest(subject)
    if await pool.fetchval(SQL["take"], rule.kind, key, rule.every, room):
        return
    wait_s = await pool.fetchval(SQL["wait_s"], rule.kind, key, rule.every, room)
    raise TooManyTries(max(1, math.ceil(wait_s or 0)))


async def give_back(pool: asyncpg.Pool, rule: Rule, subject: str) -> None:
    """Put one try back: it was no wrong one."""
    await pool.execute(SQL["give_back"], rule.kind, _digest(subject), rule.every)


async def forgive(pool: asyncpg.Pool, rule: Rule, subject: str) -> None:
    """Fill a bucket: whoever emptied it proved to be the right person."""
    await pool.execute(SQL["forgive"], rule.kind, _digest(subject))


async def sweep(pool: asyncpg.Pool) -> None:
    """Remove buckets that are full; each sign-in does so."""
    await pool.execute(SQL["sweep"])


def network(address: str) -> str:
    """Whom an address stands for: an IPv6 one is one of very many that its network has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def in_words(seconds: int) -> str:
    """A wait as people say it."""
    if seconds < 100:
        return f"{seconds} second{'s' if seconds != 1 else ''}"
    return f"{math.ceil(seconds / 60)} minutes"


def _digest(subject: str) -> bytes:
    return hashlib.sha256(subject.encode(errors="replace")).digest()
