"""Who a person's own requests are from, made in the portal: a project's key that has no secret."""

from __future__ import annotations

import secrets

import asyncpg

from penstock.access import keys
from penstock.access.keyring import Principal, principal_of
from penstock.access.keys import UnknownProject
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "playground.sql")

DIGEST_BYTES = 32
DEFAULT_PROJECT = "default"
"""Made where an organisation has none yet."""


async def principal(pool: asyncpg.Pool, organisation_id: int, project: str) -> Principal:
    """The principal of a project's playground, with the project's limits and its organisation's plan.

    Its key is made on first use, and anew once it was revoked. Raises UnknownProject.
    """
    row = await pool.fetchrow(SQL["find"], organisation_id, project)
    if row is None:
        if project == DEFAULT_PROJECT:
            await pool.execute(keys.SQL["ensure_project"], organisation_id, project)
        # The digest of no secret: whoever knows the key's id can do nothing with it.
        made = (ids.random_text(keys.ID_LENGTH), secrets.token_bytes(DIGEST_BYTES))
        await pool.execute(SQL["make"], organisation_id, project, *made)
        row = await pool.fetchrow(SQL["find"], organisation_id, project)
    if row is None:
        raise UnknownProject(f"the organisation has no project named {project[:100]!r}")
    return principal_of(row)
