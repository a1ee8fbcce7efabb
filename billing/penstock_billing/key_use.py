"""What each key and project did lately: when last, and what it cost in this month."""

from __future__ import annotations

from datetime import UTC, date, datetime

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "key_use.sql")


class Use(msgspec.Struct, frozen=True):
    """What was used, by key and by project."""

    month: date
    """The UTC month that the costs are of, by its first day."""
    last_used_at: dict[str, datetime]
    """By key: the minute, the hour or the day, the finer the later; not at all in a year: missing."""
    key_cost_nano_usd: dict[str, int]
    project_cost_nano_usd: dict[int, int]
    """By project id: all its keys, those of its endpoints and revoked ones too."""


async def of_organisation(pool: asyncpg.Pool, organisation_id: int) -> Use:
    """What an organisation's keys did; the costs are the ledger's, as far as shipped."""
    month = datetime.now(UTC).date().replace(day=1)
    by_key: dict[str, int] = {}
    by_project: dict[int, int] = {}
    for row in await pool.fetch(SQL["spent"], organisation_id, month):
        cost_nano_usd: int = row["cost_nano_usd"]
        by_key[row["key_id"]] = by_key.get(row["key_id"], 0) + cost_nano_usd
        by_project[row["project_id"]] = by_project.get(row["project_id"], 0) + cost_nano_usd
    last = {row["key_id"]: row["at"] for row in await pool.fetch(SQL["last_used"], organisation_id)}
    return Use(month, last, by_key, by_project)
