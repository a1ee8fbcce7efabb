"""How far an organisation has come: what its first page leads newcomers through."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from penstock_base import queries

SQL = queries.load("penstock.access", "first_steps.sql")


class Beginnings(NamedTuple):
    """What there is of an organisation."""

    keys: bool
    """A live key that opens more than an endpoint."""
    playground_keys: list[str]
    """What its people try in the portal is counted under these; made when they first do."""
    company: bool
    """Other people belong to it, or were invited."""


async def of(pool: asyncpg.Pool, organisation_id: int) -> Beginnings:
    """Look at what there is."""
    row = await pool.fetchrow(SQL["beginnings"], organisation_id)
    assert row is not None
    return Beginnings(row["keys"], row["playground_keys"], row["company"])
