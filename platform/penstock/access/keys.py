"""API keys: how they look, how they are made, listed and revoked. The secret is shown once and never stored.

A key reads `sk-penstock-<id>-<secret><check>`: the id finds its row, 40 random characters (200 bits) are the
secret, and 6 characters of CRC-32 let a mistyped or invented key be refused without asking anything.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from datetime import datetime

import asyncpg
import msgspec

from penstock.access.roles import Role
from penstock_base import ids, queries

SQL = queries.load("penstock.access", "keys.sql")

PREFIX = "sk-penstock-"
ID_LENGTH, SECRET_LENGTH, CHECK_LENGTH = 12, 40, 6


class UnknownOrganisation(Exception):
    """No organisation bears this name."""


class UnknownProject(Exception):
    """The organisation has no project of this name."""


class UnknownKey(Exception):
    """The organisation has no key with this id."""


class ParsedKey(msgspec.Struct, frozen=True):
    """A key as it came in a header: its public id, the secret part to be hashed, and what ends it."""

    id: str
    secret: bytes
    check: str

    @property
    def fits(self) -> bool:
        """Whether its end is that of its beginning: where it is not, somebody mistyped or invented it."""
        return hmac.compare_digest(self.check.encode(), _check(self.id, self.secret.decode()).encode())


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was just drawn: what is shown of it once, and what is kept."""

    id: str
    text: str
    digest: bytes
    last_four: str


class ListedKey(msgspec.Struct, frozen=True):
    """A key as people may see it after the first time."""

    id: str
    name: str
    project: str
    last_four: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


def take_apart(text: str) -> ParsedKey | None:
    """Take apart what looks like a key of ours, whether it `fits` or not; None for anything else."""
    key_id, _, rest = text.removeprefix(PREFIX).partition("-")
    if not text.startswith(PREFIX) or len(key_id) != ID_LENGTH:
        return None
    return ParsedKey(key_id, rest[:SECRET_LENGTH].encode(), rest[SECRET_LENGTH:])


def parse(text: str) -> ParsedKey | None:
    """Take a key apart; None when it cannot be one of ours."""
    parsed = take_apart(text)
    return parsed if parsed is not None and parsed.fits else None


def digest(pepper: bytes, secret: bytes) -> bytes:
    """Hash a secret as it is stored. It has 200 random bits, so a slow hash would add cost and no safety."""
    return hmac.digest(pepper, secret, hashlib.sha256)


def make(pepper: bytes) -> MadeKey:
    """Draw a new key; nothing knows it until it is stored."""
    key_id, secret = ids.random_text(ID_LENGTH), ids.random_text(SECRET_LENGTH)
    text = f"{PREFIX}{key_id}-{secret}{_check(key_id, secret)}"
    return MadeKey(key_id, text, digest(pepper, secret.encode()), secret[-4:])


async def create(
    connection: asyncpg.Connection,
    pepper: bytes,
    *,
    name: str,
    organisation: str,
    project: str = "default",
    role: Role = Role.DEVELOPER,
) -> str:
    """Make a key and return its text, which cannot be had again.

    The organisation and project are made when they do not exist yet. Asks nobody's role: see `issuing`.
    """
    made = make(pepper)
    async with connection.transaction():
        organisation_id = await connection.fetchval(SQL["ensure_organisation"], organisation)
        project_id = await connection.fetchval(SQL["ensure_project"], organisation_id, project)
        await connection.execute(
            SQL["insert_key"],
            made.id,
            organisation_id,
            project_id,
            name,
            made.digest,
            made.last_four,
            role.value,
            "{}",
        )
    return made.text


async def ensure_organisation(connection: asyncpg.Connection, organisation: str) -> int:
    """Find or make an organisation by name; its id."""
    return int(await connection.fetchval(SQL["ensure_organisation"], organisation))


async def find_organisation(connection: asyncpg.Connection, organisation: str) -> int:
    """Name to id; raises UnknownOrganisation."""
    found = await connection.fetchval(SQL["find_organisation"], organisation)
    if found is None:
        raise UnknownOrganisation(f"there is no organisation named {organisation!r}")
    return int(found)


async def find_project(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, project: str
) -> int:
    """Name to id; raises UnknownProject."""
    found = await connection.fetchval(SQL["find_project"], organisation_id, project)
    if found is None:
        raise UnknownProject(f"the organisation has no project named {project!r}")
    return int(found)


async def names(
    connection: asyncpg.Connection | asyncpg.Pool, organisations: set[int], projects: set[int]
) -> tuple[dict[int, str], dict[int, str]]:
    """Ids to names, of organisations and of projects, for people to read."""
    found = await connection.fetch(SQL["organisation_names"], list(organisations))
    parts = await connection.fetch(SQL["project_names"], list(projects))
    return {row["id"]: row["name"] for row in found}, {row["id"]: row["name"] for row in parts}


async def listed(connection: asyncpg.Connection, organisation_id: int) -> list[ListedKey]:
    """Every key of an organisation, newest first, revoked ones too."""
    rows = await connection.fetch(SQL["list_keys"], organisation_id)
    return [listed_key(row) for row in rows]


async def revoke(connection: asyncpg.Connection, organisation_id: int, key_id: str) -> None:
    """End a key; raises UnknownKey. Gateways follow within seconds (see keyring)."""
    if await connection.fetchval(SQL["revoke_key"], organisation_id, key_id) is None:
        raise UnknownKey(f"there is no key {key_id!r} here")


def listed_key(row: asyncpg.Record) -> ListedKey:
    """Read what `list_keys` and its likes found."""
    return ListedKey(**(dict(row) | {"role": Role(row["role"])}))


def _check(key_id: str, secret: str) -> str:
    value = zlib.crc32(f"{key_id}-{secret}".encode())
    digits = []
    for _ in range(CHECK_LENGTH):
        value, digit = divmod(value, len(ids.ALPHABET))
        digits.append(ids.ALPHABET[digit])
    return "".join(digits)
