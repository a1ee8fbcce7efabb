"""What keys and projects are called, for pages that list what was done with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import asyncpg

from penstock_base import queries

SQL = queries.load("penstock.access", "labels.sql")

KEYS_MAX = 500
"""To choose from on one page; of others the id is typed."""


class Labels(NamedTuple):
    """Names by id, of one organisation."""

    keys: dict[str, str]
    """Live ones first, then by name."""
    projects: dict[int, str]


async def of(pool: asyncpg.Pool, organisation_id: int) -> Labels:
    """The names of an organisation's keys, those of its endpoints too, and of its projects."""
    rows = await pool.fetch(SQL["labels"], organisation_id, KEYS_MAX)
    return Labels(
        {row["id"]: row["name"] for row in rows if row["kind"] == "key"},
        {int(row["id"]): row["name"] for row in rows if row["kind"] == "project"},
    )


async def keys(pool: asyncpg.Pool, organisation_id: int, key_ids: Iterable[str]) -> dict[str, str]:
    """The names of some keys of an organisation, however many it has."""
    rows = await pool.fetch(SQL["keys"], organisation_id, sorted(set(key_ids)))
    return {row["id"]: row["name"] for row in rows}
