"""What an organisation calls its projects and keys, for people to read and to choose from."""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from penstock_base import queries

SQL = queries.load("penstock.access", "naming.sql")

CHOICES_MAX = 500
"""Names offered in one list of choices; beyond it people type."""


async def projects(pool: asyncpg.Pool | asyncpg.Connection, organisation_id: int) -> dict[int, str]:
    """Every project of an organisation by id, in the order of names."""
    rows = await pool.fetch(SQL["projects"], organisation_id)
    return {row["id"]: row["name"] for row in rows}


async def some_keys(pool: asyncpg.Pool | asyncpg.Connection, organisation_id: int) -> dict[str, str]:
    """An organisation's newest keys by id, at most CHOICES_MAX; those of endpoints are left out."""
    rows = await pool.fetch(SQL["some_keys"], organisation_id, CHOICES_MAX)
    return {row["id"]: row["name"] for row in rows}


async def keys(
    pool: asyncpg.Pool | asyncpg.Connection, organisation_id: int, key_ids: Iterable[str]
) -> dict[str, str]:
    """The names of some keys of an organisation, revoked ones and those of endpoints too."""
    rows = await pool.fetch(SQL["keys"], organisation_id, sorted(set(key_ids)))
    return {row["id"]: row["name"] for row in rows}
