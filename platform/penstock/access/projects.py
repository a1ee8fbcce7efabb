"""Projects: parts of an organisation that own keys and endpoints."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from penstock.access import limits
from penstock.access.limits import RateLimits
from penstock_base import queries

SQL = queries.load("penstock.access", "projects.sql")


class Project(msgspec.Struct, frozen=True):
    """One project, as its organisation sees it."""

    name: str
    keys: int
    """Live ones; an endpoint's own keys are not counted."""
    limits: RateLimits
    created_at: datetime


async def listed(connection: asyncpg.Connection, organisation_id: int) -> list[Project]:
    """Every project of an organisation, by name."""
    return [
        Project(row["name"], row["keys"], limits.read(row["limits"]), row["created_at"])
        for row in await connection.fetch(SQL["projects"], organisation_id)
    ]
