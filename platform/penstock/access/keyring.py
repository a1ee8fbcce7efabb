"""The keys a gateway knows, in memory: no request waits for Postgres to be let in.

A key is learnt when it changes (the ring asks for what changed lately) or when it is first used; it is
forgotten as soon as it is revoked, at the next refresh or at once on a message that keys changed.
"""

from __future__ import annotations

import asyncio
import hmac
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from penstock.access import keys, limits
from penstock.access.limits import RateLimits
from penstock.access.roles import Role

OVERLAP = timedelta(seconds=30)
"""How far each refresh looks back behind the last: longer than any transaction that changes a key."""

MISSING_MAX = 10_000
"""How many unknown ids are remembered, so that a flood of one wrong key asks the database once."""


ASK_TIMEOUT_S = 5.0
"""Longest wait for the database about a key never seen."""

NOT_OURS = "the API key is not one of this platform: they begin with 'sk-penstock-'"


class InvalidKey(Exception):
    """The credential is missing, malformed, unknown or revoked; the message says which, and no more."""


class KeysUnavailable(Exception):
    """A key that this gateway has not seen yet cannot be checked now: the database does not answer."""


class Principal(msgspec.Struct, frozen=True):
    """Who a request is from: always out of the credential, never out of the request."""

    organisation_id: int
    project_id: int
    key_id: str
    weight: float = 1.0
    """The organisation's share of a busy model, by its plan."""
    key_limits: RateLimits = limits.NONE
    project_limits: RateLimits = limits.NONE
    """Of all the project's keys together."""
    plan_limits: RateLimits = limits.NONE
    """Of all the organisation's keys together, by its plan."""
    endpoint_id: int | None = None
    """The one endpoint that the key opens; None: everything of its project."""
    role: Role = Role.DEVELOPER
    """What it may do beside calling models."""


class Entry(msgspec.Struct, frozen=True):
    """A live key: what its secret must hash to, and whose it is."""

    digest: bytes
    principal: Principal


class Keyring:
    """Every live key, by id."""

    def __init__(self, pool: asyncpg.Pool, pepper: bytes) -> None:
        self._pool = pool
        self._pepper = pepper
        self._entries: dict[str, Entry] = {}
        self._missing: set[str] = set()
        self._salts: dict[int, str] = {}
        self._since = datetime.fromtimestamp(0, UTC)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.loaded = False

    def cache_salt(self, organisation_id: int) -> str:
        """What keeps an organisation's prompts apart from others' in a prefix cache; nobody can guess it."""
        salt = self._salts.get(organisation_id)
        if salt is None:
            text = b"prefix cache of organisation %d" % organisation_id
            salt = self._salts[organisation_id] = hmac.digest(self._pepper, text, "sha256")[:16].hex()
        return salt

    async def refresh(self) -> None:
        """Learn every key that changed since the last refresh."""
        clock: datetime = await self._pool.fetchval(keys.SQL["clock"])
        for row in await self._pool.fetch(keys.SQL["changed_keys"], self._since):
            self._learn(row)
        self._since = clock - OVERLAP
        self.loaded = True

    async def authenticate(self, text: str) -> Principal:
        """Let a key in or raise InvalidKey.

        Asks Postgres only for a well-formed key that this gateway has never seen.
        """
        if not text:
            raise InvalidKey("no API key was given: send it as 'Authorization: Bearer sk-penstock-…'")
        parsed = keys.take_apart(text)
        # Of a key that is known here its secret tells all: the look at its end is for others.
        if parsed is None or (parsed.id not in self._entries and not parsed.fits):
            raise InvalidKey(NOT_OURS)
        if parsed.id not in self._entries and parsed.id not in self._missing:
            await self._ask(parsed.id)
        entry = self._entries.get(parsed.id)
        given = keys.digest(self._pepper, parsed.secret)
        # Compare even when the key is unknown, so that both answers take the same time.
        if not hmac.compare_digest(given, entry.digest if entry else bytes(32)) or entry is None:
            raise InvalidKey("the API key is unknown or was revoked" if parsed.fits else NOT_OURS)
        return entry.principal

    async def _ask(self, key_id: str) -> None:
        """Ask the database for one key, once however many requests wait for it."""
        asking = self._asking.get(key_id)
        if asking is None:
            asking = self._asking[key_id] = asyncio.create_task(self._ask_once(key_id))
            asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
        try:
            await asyncio.shield(asking)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise KeysUnavailable("this key cannot be checked right now; try again shortly") from error

    async def _ask_once(self, key_id: str) -> None:
        row = await self._pool.fetchrow(keys.SQL["one_key"], key_id, timeout=ASK_TIMEOUT_S)
        if row is not None:
            self._learn(row)
        else:
            if len(self._missing) >= MISSING_MAX:
                self._missing.clear()
            self._missing.add(key_id)

    def _learn(self, row: asyncpg.Record) -> None:
        key_id: str = row["id"]
        if row["revoked"]:
            self._entries.pop(key_id, None)
            self._missing.add(key_id)
        else:
            self._missing.discard(key_id)
            self._entries[key_id] = Entry(row["digest"], principal_of(row))


def principal_of(row: asyncpg.Record) -> Principal:
    """Who a key's row stands for."""
    return Principal(
        row["organisation_id"],
        row["project_id"],
        row["id"],
        row["weight"],
        limits.read(row["key_limits"]),
        limits.read(row["project_limits"]),
        limits.read(row["plan_limits"]),
        row["endpoint_id"],
        Role(row["role"]),
    )
