"""API keys as somebody with a role makes, changes and revokes them: never with more power than their own.

A key of more power is out of reach altogether: whoever could change or end it could do what it may.
"""

from __future__ import annotations

import asyncpg
import msgspec

from penstock.access import keys, limits, names, roles
from penstock.access.keys import ListedKey, UnknownKey
from penstock.access.limits import NONE, RateLimits
from penstock.access.roles import Role


class KeyRevoked(Exception):
    """The key is revoked: nothing of it can be changed."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is asked for."""

    name: str
    project: str = "default"
    role: Role = Role.DEVELOPER
    limits: RateLimits = NONE


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What of a key is to be another; None stays."""

    name: str | None = None
    role: Role | None = None


async def issue(
    connection: asyncpg.Connection, pepper: bytes, organisation_id: int, wanted: Wanted, by: Role
) -> tuple[ListedKey, str]:
    """Make a key; it, and its text, which cannot be had again.

    Raises RoleTooLow, NameRefused, UnknownProject.
    """
    roles.check(by, Role.DEVELOPER, "making a key")
    roles.check(by, wanted.role, f"making a key with the role {wanted.role.value}")
    name = names.checked(wanted.name)
    made = keys.make(pepper)
    async with connection.transaction():
        project_id = await keys.find_project(connection, organisation_id, wanted.project)
        await connection.execute(
            keys.SQL["insert_key"],
            made.id,
            organisation_id,
            project_id,
            name,
            made.digest,
            made.last_four,
            wanted.role.value,
            limits.written(wanted.limits),
        )
        return await find(connection, organisation_id, made.id), made.text


async def find(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, key_id: str) -> ListedKey:
    """One key, revoked or not; raises UnknownKey."""
    row = await connection.fetchrow(keys.SQL["find_key"], organisation_id, key_id)
    if row is None:
        raise UnknownKey(f"the organisation has no key {key_id[:40]!r}")
    return keys.listed_key(row)


async def change(
    connection: asyncpg.Connection, organisation_id: int, key_id: str, wanted: Change, by: Role
) -> ListedKey:
    """Rename a live key or give it another role; raises RoleTooLow, NameRefused, UnknownKey, KeyRevoked."""
    roles.check(by, Role.DEVELOPER, "changing a key")
    if wanted.role is not None:
        roles.check(by, wanted.role, f"giving a key the role {wanted.role.value}")
    async with connection.transaction():
        now = await _lock(connection, organisation_id, key_id, by)
        if now.revoked_at is not None:
            raise KeyRevoked(f"the key {key_id} is revoked, so it cannot be changed")
        name = now.name if wanted.name is None else names.checked(wanted.name)
        role = wanted.role or now.role
        await connection.execute(keys.SQL["change_key"], organisation_id, key_id, name, role.value)
        return await find(connection, organisation_id, key_id)


async def revoke(connection: asyncpg.Connection, organisation_id: int, key_id: str, by: Role) -> ListedKey:
    """End a key; raises RoleTooLow, UnknownKey. A key that is revoked stays so, since when it was."""
    roles.check(by, Role.DEVELOPER, "revoking a key")
    async with connection.transaction():
        now = await _lock(connection, organisation_id, key_id, by)
        if now.revoked_at is None:
            await keys.revoke(connection, organisation_id, key_id)
        return await find(connection, organisation_id, key_id)


async def _lock(connection: asyncpg.Connection, organisation_id: int, key_id: str, by: Role) -> ListedKey:
    await connection.execute(keys.SQL["lock_key"], organisation_id, key_id)
    now = await find(connection, organisation_id, key_id)
    roles.check(by, now.role, f"a key with the role {now.role.value}: changing or revoking it")
    return now
