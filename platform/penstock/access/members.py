"""Members: who belongs to an organisation, as what. An organisation always has an owner who can sign in."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from penstock.access.people import UnknownPerson
from penstock.access.roles import Role
from penstock_base import queries

SQL = queries.load("penstock.access", "members.sql")


class UnknownMember(Exception):
    """The organisation has no such member."""


class AlreadyMember(Exception):
    """The person belongs to the organisation."""


class LastOwner(Exception):
    """Without this owner nobody could change who belongs to the organisation."""


class Member(msgspec.Struct, frozen=True):
    """A person in an organisation."""

    person_id: int
    name: str
    email: str
    role: Role
    joined_at: datetime
    seen_at: datetime | None
    """When they last looked at a page, of any organisation; None: not lately."""
    disabled: bool
    """Their account is switched off: they cannot sign in."""


async def listed(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int) -> list[Member]:
    """Every member of an organisation: owners first, then by name."""
    return [_member(row) for row in await connection.fetch(SQL["members"], organisation_id, None)]


async def find(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, person_id: int) -> Member:
    """One member; raises UnknownMember."""
    row = await connection.fetchrow(SQL["members"], organisation_id, person_id)
    if row is None:
        raise UnknownMember(f"the organisation has no member {person_id}")
    return _member(row)


async def person_of(connection: asyncpg.Connection | asyncpg.Pool, email: str) -> int:
    """The account under an address; raises UnknownPerson."""
    found = await connection.fetchval(SQL["person_of"], email.strip())
    if found is None:
        raise UnknownPerson(f"nobody has an account under {email.strip()[:100]!r}")
    return int(found)


async def check_new(connection: asyncpg.Connection, organisation_id: int, person_id: int) -> None:
    """Raise AlreadyMember for somebody who belongs to the organisation: their role is changed, not added."""
    try:
        found = await find(connection, organisation_id, person_id)
    except UnknownMember:
        return
    raise AlreadyMember(f"{found.email} belongs to the organisation already, as {found.role.value}")


async def change_role(
    connection: asyncpg.Connection, organisation_id: int, person_id: int, role: Role
) -> Member:
    """Make a member something else; raises UnknownMember, LastOwner."""
    async with connection.transaction():
        now = await _lock(connection, organisation_id, person_id)
        if role is not Role.OWNER:
            await _check_owners(connection, organisation_id, now)
        await connection.execute(SQL["change_role"], organisation_id, person_id, role.value)
        return await find(connection, organisation_id, person_id)


async def remove(connection: asyncpg.Connection, organisation_id: int, person_id: int) -> Member:
    """End a membership; the account stays, and what the member did. Raises UnknownMember, LastOwner."""
    async with connection.transaction():
        now = await _lock(connection, organisation_id, person_id)
        await _check_owners(connection, organisation_id, now)
        await connection.execute(SQL["remove"], organisation_id, person_id)
        await connection.execute(SQL["leave"], organisation_id, person_id)
    return now


async def _lock(connection: asyncpg.Connection, organisation_id: int, person_id: int) -> Member:
    # One at a time changes who owns an organisation: of two owners who remove each other, one stays.
    await connection.execute(SQL["lock"], organisation_id)
    return await find(connection, organisation_id, person_id)


async def _check_owners(connection: asyncpg.Connection, organisation_id: int, member: Member) -> None:
    if member.role is not Role.OWNER:
        return
    if not await connection.fetchval(SQL["other_owner"], organisation_id, member.person_id):
        raise LastOwner(
            f"{member.email} is the only owner who can sign in: make somebody else an owner first"
        )


def _member(row: asyncpg.Record) -> Member:
    return Member(**(dict(row) | {"role": Role(row["role"])}))
