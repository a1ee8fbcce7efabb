"""Organisations, as the operator of an installation sees them."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from penstock.access import keys
from penstock_base import queries

SQL = queries.load("penstock.access", "organisations.sql")
NAME_MAX = 100
FIRST_PROJECT = "default"


class NameRefused(Exception):
    """An organisation cannot be called so."""


class Organisation(msgspec.Struct, frozen=True):
    """One tenant."""

    id: int
    name: str
    plan: str
    created_at: datetime
    members: int
    projects: int
    keys: int
    """Live ones that open more than an endpoint."""


async def listed(pool: asyncpg.Pool) -> list[Organisation]:
    """Every organisation, by name."""
    return [Organisation(*row.values()) for row in await pool.fetch(SQL["all"])]


async def create(connection: asyncpg.Connection, name: str) -> bool:
    """Make an organisation with a first project; False when the name is taken. Raises NameRefused."""
    if not (1 <= len(name) <= NAME_MAX and name.isprintable()):
        raise NameRefused(f"a name has 1 to {NAME_MAX} characters, none of them a control character")
    async with connection.transaction():
        made = await connection.fetchval(SQL["create"], name)
        if made is None:
            return False
        await connection.execute(keys.SQL["ensure_project"], made, FIRST_PROJECT)
    return True
