"""Invitations: a link that makes whoever has an address a member; shown once, kept as a digest."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import cast

import asyncpg
import msgspec

from penstock.access import people
from penstock.access.people import Person, PersonError
from penstock.access.roles import Role
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "invitations.sql")

TOKEN_LENGTH = 40
"""Random characters: 200 bits."""
LASTS = timedelta(days=7)


class AlreadyMember(PersonError):
    """Whoever has this address belongs to the organisation."""


class InvitationOver(Exception):
    """No such invitation, or it was used, revoked or too old: `title` and the message say which."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title


class Invitation(msgspec.Struct, frozen=True):
    """An open invitation, as the person invited sees it."""

    id: int
    organisation_id: int
    organisation: str
    email: str
    role: Role
    invited_by: str
    """The name of who did; empty for a command beside the platform."""
    expires_at: datetime
    has_account: bool
    """Somebody has an account with this address: they join with it."""


class ListedInvitation(msgspec.Struct, frozen=True):
    """An invitation that waits, as owners see it."""

    id: int
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime
    expired: bool


def address(public_url: str, token: str) -> str:
    """The link to hand to who is invited."""
    return f"{public_url}/portal/invitation/{token}"


async def create(
    connection: asyncpg.Connection,
    *,
    organisation_id: int,
    email: str,
    role: Role,
    invited_by: int | None,
) -> str:
    """Invite an address and return the token of the link, which cannot be had again.

    An invitation that waits for the same address ends. Raises BadPerson, AlreadyMember.
    """
    email = people.check_email(email)
    token = ids.random_text(TOKEN_LENGTH)
    async with connection.transaction():
        if await connection.fetchval(SQL["is_member"], organisation_id, email):
            raise AlreadyMember(f"{email} belongs to this organisation already")
        # Two owners may invite the same address at once; the later link counts.
        await connection.execute(SQL["lock"], organisation_id)
        await connection.execute(SQL["revoke_open"], organisation_id, email)
        await connection.execute(
            SQL["create"], _digest(token), organisation_id, email, role.value, invited_by, LASTS
        )
    return token


async def listed(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int
) -> list[ListedInvitation]:
    """Those that wait to be accepted, newest first; expired ones too, until they are revoked."""
    rows = await connection.fetch(SQL["list"], organisation_id)
    return [msgspec.convert(dict(row), ListedInvitation) for row in rows]


async def revoke(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, invitation_id: int
) -> str | None:
    """End one that waits and return its address; None when none such waits here."""
    email: str | None = await connection.fetchval(SQL["revoke"], organisation_id, invitation_id)
    return email


async def find(connection: asyncpg.Connection | asyncpg.Pool, token: str) -> Invitation:
    """What a link invites to; raises InvitationOver."""
    row = await connection.fetchrow(SQL["find"], _digest(token))
    if row is None:
        raise InvitationOver(
            "This is no invitation", "Check that the whole link was copied, or ask for a new one."
        )
    fields = dict(row)
    accepted, revoked, expired = (fields.pop(name) for name in ("accepted", "revoked", "expired"))
    if accepted:
        raise InvitationOver(
            "This invitation was accepted", "It works once. Sign in with the account that joined."
        )
    if revoked:
        raise InvitationOver(
            "This invitation was taken back", "It was ended, or replaced by a newer one. Ask who invited you."
        )
    if expired:
        raise InvitationOver(
            "This invitation is too old",
            f"It was open for {LASTS.days} days. Ask who invited you for a new one.",
        )
    return msgspec.convert(fields, Invitation)


async def accept_new(pool: asyncpg.Pool, token: str, *, name: str, password: str) -> tuple[Invitation, int]:
    """Make the account and the membership; returns what was accepted and the person's id.

    Raises InvitationOver, PersonExists, BadPerson, WeakPassword, Busy; then nothing was made.
    """
    invitation = await find(pool, token)
    async with pool.acquire() as taken, taken.transaction():
        connection = cast("asyncpg.Connection", taken)
        await _take(connection, token)
        person_id = await people.create(connection, email=invitation.email, name=name, password=password)
        await _joins(connection, invitation, person_id)
    return invitation, person_id


async def accept(pool: asyncpg.Pool, token: str, person: Person) -> Invitation:
    """Join with an account there is, if the invitation is for its address; raises InvitationOver.

    Who belongs to the organisation already stays what they are.
    """
    invitation = await find(pool, token)
    if invitation.email.lower() != person.email.lower():
        raise InvitationOver(
            "This invitation is for somebody else",
            f"It is for {invitation.email}, and you are signed in as {person.email}.",
        )
    async with pool.acquire() as taken, taken.transaction():
        connection = cast("asyncpg.Connection", taken)
        await _take(connection, token)
        await _joins(connection, invitation, person.id)
    return invitation


async def _take(connection: asyncpg.Connection, token: str) -> None:
    """Hold the invitation until the transaction ends, so that it is accepted once."""
    if await connection.fetchval(SQL["take"], _digest(token)) is None:
        raise InvitationOver("This invitation is over", "It was accepted or taken back a moment ago.")


async def _joins(connection: asyncpg.Connection, invitation: Invitation, person_id: int) -> None:
    await connection.execute(SQL["accept"], invitation.id, person_id)
    await connection.execute(SQL["join"], person_id, invitation.organisation_id, invitation.role.value)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
