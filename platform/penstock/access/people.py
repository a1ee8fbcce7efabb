"""People with a local account: made, and known again by their password."""

from __future__ import annotations

import asyncio

import argon2
import asyncpg
import msgspec

from penstock.access.roles import Role
from penstock_base import queries

SQL = queries.load("penstock.access", "people.sql")

PASSWORD_MIN, PASSWORD_MAX = 12, 256
"""Characters; length is what counts (NIST SP 800-63B, 3.1.1.2), and a bound keeps hashing cheap."""
_hasher = argon2.PasswordHasher()
_NOBODY = _hasher.hash("nobody has this password")
"""Verified where there is no such account, so that both answers take the same time."""


class PersonExists(Exception):
    """Somebody has this address already."""


class WeakPassword(Exception):
    """The password is too short or too long."""


class Person(msgspec.Struct, frozen=True):
    """Somebody who may sign in."""

    id: int
    name: str
    email: str
    operator: bool


async def create(
    connection: asyncpg.Connection, *, email: str, name: str, password: str, operator: bool = False
) -> int:
    """Make an account and return its id; raises PersonExists, WeakPassword."""
    person_id = await connection.fetchval(
        SQL["create"], email.strip(), name.strip(), await hash_password(password), operator
    )
    if person_id is None:
        raise PersonExists(f"there is an account for {email!r} already")
    return int(person_id)


async def join(connection: asyncpg.Connection, person_id: int, organisation_id: int, role: Role) -> None:
    """Make a person a member of an organisation, or change as what."""
    await connection.execute(SQL["join"], person_id, organisation_id, role.value)


async def recognise(pool: asyncpg.Pool, email: str, password: str) -> Person | None:
    """The person with this address and password; None for either being wrong, after the same time."""
    row = await pool.fetchrow(SQL["by_email"], email.strip())
    right = await asyncio.to_thread(_verify, row["password_hash"] if row else _NOBODY, password)
    if row is None or not right:
        return None
    if _hasher.check_needs_rehash(row["password_hash"]):
        await pool.execute(SQL["rehash"], row["id"], await hash_password(password))
    return Person(row["id"], row["name"], row["email"], row["operator"])


async def hash_password(password: str) -> str:
    """Hash a new password, off the event loop; raises WeakPassword."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise WeakPassword(f"a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters")
    return await asyncio.to_thread(_hasher.hash, password)


def _verify(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password[:PASSWORD_MAX])
    except argon2.exceptions.VerifyMismatchError:
        return False
