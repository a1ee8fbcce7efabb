"""Adapters and their versions in Postgres: added, found, changed, deleted, each by its organisation."""

from __future__ import annotations

import asyncio
import datetime
import re

import asyncpg
import msgspec

from penstock.adapters.errors import AdapterRefused, AdapterTooLarge, UnknownAdapter
from penstock.adapters.intake import Examined
from penstock.adapters.store import Incoming, Store
from penstock_base import queries

SQL = queries.load("penstock.adapters", "adapters.sql")

NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
ADAPTERS_MAX = 200
"""Of one organisation."""
DESCRIPTION_CHARACTERS_MAX = 1000


class Version(msgspec.Struct, frozen=True):
    """One upload; never changed."""

    number: int
    digest: str
    size_bytes: int
    rank: int
    target_modules: list[str]
    created_at: datetime.datetime


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter, as its organisation sees it."""

    id: int
    project: str
    base_model: str
    name: str
    description: str
    active_version: int
    created_at: datetime.datetime
    versions: list[Version]

    @property
    def model(self) -> str:
        """What requests call it."""
        return f"{self.base_model}:{self.name}"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an upload is to become."""

    organisation_id: int
    project_id: int
    name: str
    description: str | None = None
    """None: as it was."""
    activate: bool = True
    """Whether requests that name no version get this one from now on; the first version is active anyhow."""
    organisation_bytes_max: int
    """Most bytes of all the organisation's adapters together."""


class Kept(msgspec.Struct, frozen=True):
    """What became of an upload."""

    adapter: Adapter
    number: int
    """The version that it is."""
    new: bool
    """False: the adapter had the same content already, and keeps it under the number it had."""


class Live(msgspec.Struct, frozen=True):
    """One version, as requests meet it."""

    organisation_id: int
    base_model: str
    name: str
    number: int
    digest: str
    active: bool
    created_at: datetime.datetime

    @property
    def model(self) -> str:
        """What records and answers call it: base, adapter and version, whatever the request named."""
        return f"{self.base_model}:{self.name}@{self.number}"


async def keep(
    connection: asyncpg.Connection, store: Store, incoming: Incoming, examined: Examined, wanted: Wanted
) -> Kept:
    """Keep an upload that was found good, as the next version of its adapter; a repeated one changes nothing.

    Raises AdapterRefused for a name that is another base's, AdapterTooLarge, NoRoom.
    """
    check_name(wanted.name)
    check_description(wanted.description or "")
    async with connection.transaction():
        await connection.execute(SQL["lock_names"], wanted.organisation_id)
        row = await connection.fetchrow(SQL["one"], wanted.organisation_id, wanted.name)
        if row is not None and row["base_model"] != examined.base_model:
            raise AdapterRefused(
                f"{wanted.name!r} is an adapter of {row['base_model']}: choose another name for one of "
                f"{examined.base_model}",
                "name",
            )
        number = None
        if row is not None:
            number = await connection.fetchval(SQL["same_content"], row["id"], examined.digest)
        new = number is None
        if number is None:
            await _check_quota(connection, examined, wanted, new=row is None)
            await connection.execute(SQL["lock_content"], examined.digest)
            await asyncio.to_thread(store.keep, incoming, examined.config)
            number = 1 + await connection.fetchval(SQL["last_number"], wanted.organisation_id, wanted.name)
            adapter_id = await _adapter_id(connection, row, examined, wanted, number)
            values = (examined.digest, examined.size_bytes, examined.rank, examined.target_modules)
            await connection.execute(SQL["add_version"], adapter_id, number, *values)
        if row is not None:
            active = number if wanted.activate else None
            change = (row["id"], wanted.organisation_id, active, wanted.description)
            await connection.execute(SQL["change"], *change)
        return Kept(await find(connection, wanted.organisation_id, wanted.name), number, new)


async def find(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, name: str) -> Adapter:
    """One adapter with its versions; raises UnknownAdapter."""
    row = await connection.fetchrow(SQL["one"], organisation_id, name)
    if row is None:
        raise UnknownAdapter(name)
    return await _adapter(connection, row)


async def listed(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int) -> list[Adapter]:
    """Every adapter of an organisation, by name."""
    return [
        await _adapter(connection, row)
        for row in await connection.fetch(SQL["of_organisation"], organisation_id)
    ]


async def change(
    connection: asyncpg.Connection,
    organisation_id: int,
    name: str,
    *,
    active_version: int | None = None,
    description: str | None = None,
) -> Adapter:
    """Make another version the active one, or describe it anew; None: as it was.

    Raises UnknownAdapter, also for a version that there is not, and AdapterRefused.
    """
    check_description(description or "")
    async with connection.transaction():
        now = await find(connection, organisation_id, name)
        if active_version is not None and active_version not in {each.number for each in now.versions}:
            raise UnknownAdapter(name, active_version)
        await connection.execute(SQL["change"], now.id, organisation_id, active_version, description)
        return await find(connection, organisation_id, name)


async def delete(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, name: str) -> None:
    """End an adapter and all its versions; raises UnknownAdapter. What was billed under it stays readable."""
    if await connection.fetchval(SQL["delete"], organisation_id, name) is None:
        raise UnknownAdapter(name)


async def live(connection: asyncpg.Connection | asyncpg.Pool) -> list[Live]:
    """Every version of every organisation that can be called, for gateways."""
    return [Live(**row) for row in await connection.fetch(SQL["live"])]


class Leaving(msgspec.Struct, frozen=True):
    """A content that only deleted adapters have, and whose files are still here."""

    digest: str
    base_models: list[str]
    deleted_at: datetime.datetime


async def leaving(connection: asyncpg.Connection | asyncpg.Pool) -> list[Leaving]:
    """Every content that is to go."""
    return [Leaving(**row) for row in await connection.fetch(SQL["leaving"])]


async def is_known(connection: asyncpg.Connection | asyncpg.Pool, digest: str) -> bool:
    """Whether any version, of a deleted adapter too, has files of this content."""
    return bool(await connection.fetchval(SQL["is_known"], digest))


async def remove(connection: asyncpg.Connection, store: Store, digest: str) -> bool:
    """Remove a content's files, unless somebody uploaded the same again meanwhile; whether it did."""
    async with connection.transaction():
        await connection.execute(SQL["lock_content"], digest)
        if not await connection.fetchval(SQL["is_left"], digest):
            return False
        await asyncio.to_thread(store.remove, digest)
        await connection.execute(SQL["note_removed"], digest)
        return True


def check_name(name: str) -> None:
    """Raise AdapterRefused for a name that could not stand behind a model's."""
    if not NAME.fullmatch(name):
        raise AdapterRefused(
            f"the name {name[:40]!r} is not accepted: 2 to 40 small letters, digits and hyphens, beginning "
            "with a letter and not ending with a hyphen",
            "name",
        )


def check_description(description: str) -> None:
    """Raise AdapterRefused for one that is too long."""
    if len(description) > DESCRIPTION_CHARACTERS_MAX:
        raise AdapterRefused(
            f"the description is longer than {DESCRIPTION_CHARACTERS_MAX} characters", "description"
        )


async def _check_quota(
    connection: asyncpg.Connection, examined: Examined, wanted: Wanted, *, new: bool
) -> None:
    kept = await connection.fetchrow(SQL["kept"], wanted.organisation_id)
    assert kept is not None
    if new and kept["adapters"] >= ADAPTERS_MAX:
        raise AdapterRefused(
            f"there are {kept['adapters']} adapters, the most that an organisation may have: delete one",
            "name",
        )
    if kept["size_bytes"] + examined.size_bytes > wanted.organisation_bytes_max:
        raise AdapterTooLarge(
            f"all adapters of an organisation may have {wanted.organisation_bytes_max} bytes together; there "
            f"are {kept['size_bytes']} and this one has {examined.size_bytes}: delete one",
            "weights",
        )


async def _adapter_id(
    connection: asyncpg.Connection,
    row: asyncpg.Record | None,
    examined: Examined,
    wanted: Wanted,
    number: int,
) -> int:
    if row is not None:
        return int(row["id"])
    values = (examined.base_model, wanted.name, wanted.description or "", number)
    return int(await connection.fetchval(SQL["add"], wanted.organisation_id, wanted.project_id, *values))


async def _adapter(connection: asyncpg.Connection | asyncpg.Pool, row: asyncpg.Record) -> Adapter:
    versions = [Version(**each) for each in await connection.fetch(SQL["versions"], row["id"])]
    names = ("id", "project", "base_model", "name", "description", "active_version", "created_at")
    return Adapter(**{name: row[name] for name in names}, versions=versions)
