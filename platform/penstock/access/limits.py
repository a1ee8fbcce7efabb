"""What keys, projects and organisations are limited to: requests and tokens a minute, and requests at once.

An organisation limits its own keys and projects; what it is limited to itself is its plan's (plans.py).
"""

from __future__ import annotations

from typing import Annotated

import asyncpg
import msgspec
from msgspec import Meta

from penstock.access import keys
from penstock_base import queries

SQL = queries.load("penstock.access", "limits.sql")

MOST = 10**12
"""No limit is higher: it would be none."""

Most = Annotated[int, Meta(ge=1, le=MOST, description="a whole number of 1 or more")]


class LimitError(Exception):
    """A limit or plan that cannot be set so; the message says what could be."""


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What something is limited to; None is no limit."""

    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = None
    concurrent_requests: Most | None = None

    def __str__(self) -> str:
        """Put them in words."""
        words = (
            (self.requests_per_minute, "requests a minute"),
            (self.tokens_per_minute, "tokens a minute"),
            (self.concurrent_requests, "requests at once"),
        )
        return ", ".join(f"{most:,} {what}" for most, what in words if most is not None) or "none"


NONE = RateLimits()


class Limited(msgspec.Struct, frozen=True):
    """A key or a project that has limits."""

    id: str
    """Of a key; a project's name."""
    name: str
    limits: RateLimits


def read(text: str) -> RateLimits:
    """Read limits as Postgres keeps them."""
    return NONE if text == "{}" else msgspec.json.decode(text, type=RateLimits)


def written(limits: RateLimits) -> str:
    """Write limits as Postgres keeps them."""
    return msgspec.json.encode(limits).decode()


async def of_key(connection: asyncpg.Connection, organisation_id: int, key_id: str) -> RateLimits:
    """What one key is limited to; raises UnknownKey."""
    text = await connection.fetchval(SQL["of_key"], organisation_id, key_id)
    if text is None:
        raise _no_key(key_id)
    return read(text)


async def of_project(connection: asyncpg.Connection, organisation_id: int, project: str) -> RateLimits:
    """What a project is limited to, all its keys together; raises UnknownProject."""
    project_id = await keys.find_project(connection, organisation_id, project)
    return read(await connection.fetchval(SQL["of_project"], project_id))


async def limited_keys(connection: asyncpg.Connection, organisation_id: int) -> list[Limited]:
    """Every live key of an organisation that has limits, the newest first."""
    return [_limited(row) for row in await connection.fetch(SQL["limited_keys"], organisation_id)]


async def limited_projects(connection: asyncpg.Connection, organisation_id: int) -> list[Limited]:
    """Every project of an organisation that has limits, by name."""
    return [_limited(row) for row in await connection.fetch(SQL["limited_projects"], organisation_id)]


async def limit_key(
    connection: asyncpg.Connection, organisation_id: int, key_id: str, limits: RateLimits
) -> None:
    """Limit one key to exactly this; raises UnknownKey.

    An endpoint's two keys are limited together, by their endpoint.
    """
    if await connection.fetchval(SQL["limit_key"], organisation_id, key_id, written(limits)) is None:
        raise _no_key(key_id)


async def limit_project(
    connection: asyncpg.Connection, organisation_id: int, project: str, limits: RateLimits
) -> None:
    """Limit a project, all its keys together, to exactly this; raises UnknownProject."""
    async with connection.transaction():
        project_id = await keys.find_project(connection, organisation_id, project)
        await connection.execute(SQL["limit_project"], project_id, written(limits))
        await connection.execute(SQL["touch_project"], project_id)


def _no_key(key_id: str) -> keys.UnknownKey:
    return keys.UnknownKey(f"no live key {key_id[:40]!r} in this organisation: see `penstock keys list`")


def _limited(row: asyncpg.Record) -> Limited:
    return Limited(row["id"], row["name"], read(row["limits"]))
