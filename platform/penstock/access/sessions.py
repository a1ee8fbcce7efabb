"""Browsers that are signed in: a random token in a cookie, of which only a digest is kept."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import asyncpg
import msgspec

from penstock.access.roles import Role
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "sessions.sql")

TOKEN_LENGTH = 40
"""Random characters: 200 bits, so that a fast digest is as good as a slow one."""
LASTS = timedelta(days=14)
IDLE = timedelta(days=2)
"""How long a browser may stay away."""


class Visitor(msgspec.Struct, frozen=True):
    """Who looks at a page: always out of the session, never out of the request."""

    person_id: int
    name: str
    email: str
    operator: bool
    organisation_id: int
    """The tenant of every query; 0, which no organisation has, for an operator who looks at none."""
    organisation: str
    role: Role
    organisations: tuple[str, ...]
    """Those that the person belongs to, by name."""

    def may(self, needed: Role) -> bool:
        """Whether the role here is enough for something."""
        return self.organisation_id != 0 and self.role.may(needed)


async def start(pool: asyncpg.Pool, person_id: int, *, address: str, browser: str) -> str:
    """Sign a browser in; the token for its cookie, which cannot be had again."""
    token = ids.random_text(TOKEN_LENGTH)
    await pool.execute(SQL["open"], _digest(token), person_id, LASTS, address[:100], browser[:200])
    return token


async def visitor(pool: asyncpg.Pool, token: str) -> Visitor | None:
    """Who a token belongs to; None when it is unknown, has ended, or its person may not sign in any more."""
    row = await pool.fetchrow(SQL["visitor"], _digest(token), IDLE)
    if row is None:
        return None
    # An operator looks at organisations that they are no member of, and changes nothing there.
    role = Role(row["role"]) if row["role"] else Role.VIEWER
    inside = row["role"] is not None or row["operator"]
    return Visitor(
        row["person_id"],
        row["name"],
        row["email"],
        row["operator"],
        (row["organisation_id"] or 0) if inside else 0,
        (row["organisation"] or "") if inside else "",
        role,
        tuple(row["organisations"]),
    )


async def enter(pool: asyncpg.Pool, token: str, organisation: str) -> bool:
    """Look at another organisation; False when the person does not belong to it."""
    return await pool.fetchval(SQL["enter"], _digest(token), organisation) is not None


async def end(pool: asyncpg.Pool, token: str) -> None:
    """Sign a browser out."""
    await pool.execute(SQL["close"], _digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
