"""People with a local account: made, changed, and known again by their password."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

import asyncpg
import msgspec

from penstock.access import passwords
from penstock.access.passwords import WeakPassword
from penstock.access.roles import Role
from penstock_base import queries

__all__ = ["WeakPassword"]

SQL = queries.load("penstock.access", "people.sql")

EMAIL_MIN, EMAIL_MAX = 3, 254
"""Characters (RFC 5321, 4.5.3.1.3, less the angle brackets)."""
EMAIL = re.compile(r"[^\s@<>\"(),:;\\]{1,64}@[^\s@<>\"(),:;\\]+")
NAME_MAX = 100


class PersonError(Exception):
    """What cannot be done with an account; `field` is what is wrong."""

    field = "email"


class PersonExists(PersonError):
    """Somebody has this address already."""


class UnknownPerson(PersonError):
    """Nobody has this address."""


class BadPerson(PersonError):
    """An address or name that cannot be one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Person(msgspec.Struct, frozen=True):
    """Somebody who may sign in."""

    id: int
    name: str
    email: str
    operator: bool


class ListedPerson(msgspec.Struct, frozen=True):
    """An account, as whoever runs the installation sees it."""

    id: int
    email: str
    name: str
    operator: bool
    second_factor: bool
    organisations: dict[str, Role]
    created_at: datetime
    seen_at: datetime | None
    """When a browser of theirs was last here; None when none is signed in."""
    disabled_at: datetime | None


class Account(msgspec.Struct, frozen=True):
    """An account, as its owner sees it."""

    created_at: datetime
    password_changed_at: datetime
    memberships: dict[str, Role]
    """By organisation."""


def check_email(text: str) -> str:
    """The address without spaces around it; raises BadPerson."""
    email = text.strip()
    if not EMAIL_MIN <= len(email) <= EMAIL_MAX:
        raise BadPerson("email", f"an address has {EMAIL_MIN} to {EMAIL_MAX} characters")
    if not EMAIL.fullmatch(email) or not email.isprintable():
        raise BadPerson("email", "this is no address: one reads like name@example.org")
    return email


def check_name(text: str) -> str:
    """The name with single spaces; raises BadPerson."""
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in text):
        raise BadPerson("name", "a name has no control characters")
    name = " ".join(text.split())
    if not 1 <= len(name) <= NAME_MAX:
        raise BadPerson("name", f"a name has 1 to {NAME_MAX} characters")
    return name


async def create(
    connection: asyncpg.Connection, *, email: str, name: str, password: str, operator: bool = False
) -> int:
    """Make an account and return its id; raises PersonExists, BadPerson, WeakPassword, Busy."""
    email, name = check_email(email), check_name(name)
    hashed = await passwords.hash_new(password, email, name)
    person_id = await connection.fetchval(SQL["create"], email, name, hashed, operator)
    if person_id is None:
        raise PersonExists(f"there is an account for {email} already")
    return int(person_id)


async def join(connection: asyncpg.Connection, person_id: int, organisation_id: int, role: Role) -> None:
    """Make a person a member of an organisation, or change as what."""
    await connection.execute(SQL["join"], person_id, organisation_id, role.value)


async def find(connection: asyncpg.Connection | asyncpg.Pool, email: str) -> Person:
    """The account of an address, disabled or not; raises UnknownPerson."""
    row = await connection.fetchrow(SQL["find"], email.strip())
    if row is None:
        raise UnknownPerson(f"there is no account for {email.strip()[:EMAIL_MAX]!r}")
    return Person(**dict(row))


async def anybody(connection: asyncpg.Connection) -> bool:
    """Whether there is any account yet."""
    return bool(await connection.fetchval(SQL["any"]))


async def listed(
    connection: asyncpg.Connection | asyncpg.Pool,
    organisation: str | None = None,
    *,
    part: str = "",
    limit: int | None = None,
) -> list[ListedPerson]:
    """Every account, or those of an organisation's members, by address; `part` is of its address or name."""
    rows = await connection.fetch(SQL["list"], organisation, part.strip().lower() or None, limit, None)
    return [msgspec.convert(_with_roles(row), ListedPerson) for row in rows]


async def one(connection: asyncpg.Connection | asyncpg.Pool, person_id: int) -> ListedPerson:
    """One account; raises UnknownPerson."""
    row = await connection.fetchrow(SQL["list"], None, None, 1, person_id)
    if row is None:
        raise UnknownPerson(f"there is no account {person_id}")
    return msgspec.convert(_with_roles(row), ListedPerson)


async def recognise(pool: asyncpg.Pool, email: str, password: str) -> Person | None:
    """The person with this address and password; None for either being wrong, after the same time.

    Raises Busy.
    """
    row = await pool.fetchrow(SQL["by_email"], email.strip())
    right = await passwords.verify(row["password_hash"] if row else None, password)
    if row is None or not right:
        return None
    if passwords.is_dated(row["password_hash"]):
        await pool.execute(SQL["rehash"], row["id"], await passwords.hash_again(password))
    return Person(row["id"], row["name"], row["email"], row["operator"])


async def account(pool: asyncpg.Pool, person_id: int) -> Account:
    """What a person may know of their account beside their name."""
    row = await pool.fetchrow(SQL["account"], person_id)
    assert row is not None, "people are never deleted"
    roles = await pool.fetch(SQL["memberships"], person_id)
    memberships = {each["name"]: Role(each["role"]) for each in roles}
    return Account(row["created_at"], row["password_changed_at"], memberships)


async def rename(pool: asyncpg.Pool, person_id: int, name: str) -> None:
    """Call somebody otherwise; raises BadPerson."""
    await pool.execute(SQL["rename"], person_id, check_name(name))


async def set_password(connection: asyncpg.Connection | asyncpg.Pool, person: Person, password: str) -> None:
    """Give an account another password and end all its sessions; raises WeakPassword, Busy."""
    hashed = await passwords.hash_new(password, person.email, person.name)
    await connection.execute(SQL["set_password"], person.id, hashed)


async def disable(connection: asyncpg.Connection, person: Person) -> None:
    """Let somebody in no more, and end all their sessions."""
    await connection.execute(SQL["disable"], person.id)


async def enable(connection: asyncpg.Connection, person: Person) -> None:
    """Let somebody in again."""
    await connection.execute(SQL["enable"], person.id)


async def set_operator(connection: asyncpg.Connection, person: Person, *, operator: bool) -> None:
    """Let somebody run the installation, or no more."""
    await connection.execute(SQL["set_operator"], person.id, operator)


def _with_roles(row: asyncpg.Record) -> dict[str, object]:
    fields = dict(row)
    fields["organisations"] = dict(zip(fields.pop("belongs_to"), fields.pop("roles"), strict=True))
    return fields
