"""Browsers that are signed in: a random token in a cookie, of which only a digest is kept."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import asyncpg
import msgspec

from penstock.access.people import Person
from penstock.access.roles import Role
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "sessions.sql")

TOKEN_LENGTH = 40
"""Random characters: 200 bits, so that a fast digest is as good as a slow one."""
LASTS = timedelta(days=14)
IDLE = timedelta(days=2)
"""How long a browser may stay away."""
SEEN_EVERY = timedelta(minutes=1)
"""That it was seen is written down this often: a page is otherwise read only."""
HALF_LASTS = timedelta(minutes=10)
"""How long a browser may owe the code after the password."""


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


class Session(msgspec.Struct, frozen=True):
    """A browser that is signed in, as its person sees it."""

    id: int
    address: str
    browser: str
    created_at: datetime
    seen_at: datetime
    """To a minute."""
    here: bool
    """The one that asks."""


async def start(
    pool: asyncpg.Pool, person_id: int, *, address: str, browser: str, instead_of: str = ""
) -> str:
    """Sign a browser in; the token for its cookie, which cannot be had again.

    The token is always a new one, whatever the browser had before; `instead_of` ends. Sessions of anybody
    that are over are swept.
    """
    token = ids.random_text(TOKEN_LENGTH)
    if instead_of:
        await end(pool, instead_of)
    await pool.execute(
        SQL["open"], _digest(token), person_id, LASTS, _kept(address, 100), _kept(browser, 300)
    )
    await pool.execute(SQL["sweep"], IDLE)
    await pool.execute(SQL["sweep_halves"])
    return token


async def visitor(pool: asyncpg.Pool, token: str) -> Visitor | None:
    """Who a token belongs to; None when it is unknown, has ended, or its person may not sign in any more."""
    row = await pool.fetchrow(SQL["visitor"], _digest(token), IDLE, SEEN_EVERY)
    if row is None:
        return None
    return Visitor(
        row["person_id"],
        row["name"],
        row["email"],
        row["operator"],
        row["organisation_id"] or 0,
        row["organisation"] or "",
        # An operator looks at organisations that they are no member of, and changes nothing there.
        Role(row["role"]) if row["role"] else Role.VIEWER,
        tuple(row["organisations"]),
    )


async def enter(pool: asyncpg.Pool, token: str, organisation: str) -> bool:
    """Look at another organisation; False when the person does not belong to it."""
    return await pool.fetchval(SQL["enter"], _digest(token), organisation) is not None


async def end(pool: asyncpg.Pool, token: str) -> None:
    """Sign a browser out."""
    await pool.execute(SQL["close"], _digest(token))


async def listed(pool: asyncpg.Pool, person_id: int, token: str) -> list[Session]:
    """Where a person is signed in: the browser that asks first, then those seen last."""
    rows = await pool.fetch(SQL["list"], person_id, _digest(token), IDLE)
    return [Session(**dict(row)) for row in rows]


async def end_one(pool: asyncpg.Pool, person_id: int, session_id: int) -> bool:
    """Sign one of a person's browsers out; False when none of theirs is it."""
    return await pool.fetchval(SQL["end_one"], person_id, session_id) is not None


async def end_others(pool: asyncpg.Pool, person_id: int, token: str) -> int:
    """Sign a person out everywhere but here, and say of how many browsers."""
    return int(await pool.fetchval(SQL["end_others"], person_id, _digest(token)))


async def start_half(pool: asyncpg.Pool, person_id: int) -> str:
    """Note that a browser gave the password and owes the code; the token for its cookie."""
    token = ids.random_text(TOKEN_LENGTH)
    await pool.execute(SQL["open_half"], _digest(token), person_id, HALF_LASTS)
    return token


async def half_person(pool: asyncpg.Pool, token: str) -> Person | None:
    """Whose password a browser gave; None when that is too long ago, or never was."""
    row = await pool.fetchrow(SQL["half_person"], _digest(token))
    return Person(**dict(row)) if row else None


async def end_half(pool: asyncpg.Pool, token: str) -> None:
    """It is signed in by now, or gave up."""
    await pool.execute(SQL["close_half"], _digest(token))


def _kept(text: str, length: int) -> str:
    """What a stranger says of themselves, as it may be stored and shown."""
    return "".join(letter for letter in text if letter.isprintable())[:length]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
