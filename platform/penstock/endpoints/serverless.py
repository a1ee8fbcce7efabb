"""Serverless endpoints in Postgres: a catalog model under a name, a URL and two keys of its own.

Everything here is asked for by an organisation and touches nothing but its own. What such an endpoint
promises: one model, no hardware to choose, no quota; tokens are paid by use, and a small fee for each minute
in which it is online.
"""

from __future__ import annotations

import datetime
import re
from enum import StrEnum
from typing import Any

import asyncpg
import msgspec

from penstock.access import keys, limits
from penstock.access.limits import RateLimits
from penstock_base import queries
from penstock_catalog.cards import EndpointKind, ModelCard

SQL = queries.load("penstock.endpoints", "serverless.sql")

NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
TAGS_MAX = 50
TAG_CHARACTERS_MAX = 256


class EndpointError(Exception):
    """An endpoint that cannot be made or changed so; `field` is what is wrong with it."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class NameTaken(EndpointError):
    """The organisation has an endpoint of this name."""


class UnknownEndpoint(Exception):
    """The organisation has no endpoint of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no serverless endpoint named {name[:40]!r} here")


class Slot(StrEnum):
    """Which of an endpoint's two keys."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One serverless endpoint, as its organisation sees it."""

    id: int
    project: str
    name: str
    model: str
    description: str
    tags: dict[str, str]
    limits: RateLimits
    suspended: str | None
    problem: str | None
    """Why its model has no pool."""
    created_at: datetime.datetime
    deleted_at: datetime.datetime | None
    """It is on its way out: takes nothing new, and its last minute is being ended."""


class Live(msgspec.Struct, frozen=True):
    """One serverless endpoint, as requests and minutes meet it."""

    id: int
    organisation_id: int
    project_id: int
    name: str
    model: str
    limits: RateLimits
    suspended: str | None
    suspended_at: datetime.datetime | None = None


class KeyShown(msgspec.Struct, frozen=True):
    """What can be said of a key whose secret was shown once."""

    slot: Slot
    id: str
    last_four: str
    created_at: datetime.datetime


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What of an endpoint may be changed."""

    description: str = ""
    tags: dict[str, str] = {}
    limits: RateLimits = limits.NONE
    suspended: str | None = None


async def create(
    connection: asyncpg.Connection,
    pepper: bytes,
    organisation_id: int,
    project_id: int,
    name: str,
    card: ModelCard,
    wish: Wish,
) -> dict[Slot, str]:
    """Make an endpoint and its two keys, whose texts cannot be had again.

    Raises EndpointError naming the field, NameTaken.
    """
    check_name(name)
    check_wish(wish)
    if EndpointKind.SERVERLESS not in card.endpoints:
        kinds = ", ".join(kind.value for kind in card.endpoints)
        raise EndpointError(f"{card.id} is not offered serverless; it is offered as: {kinds}", "model")
    async with connection.transaction():
        endpoint_id = await connection.fetchval(
            SQL["create"], organisation_id, project_id, name, card.id, *_written(wish)
        )
        if endpoint_id is None:
            raise NameTaken(f"there is an endpoint named {name!r} already: choose another name", "name")
        return {
            slot: await _make_key(connection, pepper, organisation_id, project_id, endpoint_id, name, slot)
            for slot in Slot
        }


async def change(connection: asyncpg.Connection, organisation_id: int, name: str, wish: Wish) -> Endpoint:
    """Change what may be changed; raises EndpointError, UnknownEndpoint."""
    check_wish(wish)
    values = (*_written(wish), wish.suspended)
    if await connection.fetchval(SQL["change"], organisation_id, name, *values) is None:
        raise UnknownEndpoint(name)
    return await find(connection, organisation_id, name)


async def delete(connection: asyncpg.Connection, organisation_id: int, name: str) -> None:
    """End an endpoint and its keys; raises UnknownEndpoint. Its name is free at once.

    Requests that run under it end as they would, and are billed; what was billed stays readable.
    """
    async with connection.transaction():
        endpoint_id = await connection.fetchval(SQL["delete"], organisation_id, name)
        if endpoint_id is None:
            raise UnknownEndpoint(name)
        await connection.execute(SQL["revoke_keys"], endpoint_id, None)


async def regenerate_key(
    connection: asyncpg.Connection, pepper: bytes, organisation_id: int, name: str, slot: Slot
) -> str:
    """Replace one of the two keys; the other works on. Returns its text; raises UnknownEndpoint."""
    async with connection.transaction():
        row = await connection.fetchrow(SQL["one"] + " for update of e", organisation_id, name)
        if row is None or row["deleted_at"] is not None:
            raise UnknownEndpoint(name)
        await connection.execute(SQL["revoke_keys"], row["id"], slot.value)
        return await _make_key(connection, pepper, organisation_id, row["project_id"], row["id"], name, slot)


async def find(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, name: str) -> Endpoint:
    """One endpoint; raises UnknownEndpoint."""
    row = await connection.fetchrow(SQL["one"], organisation_id, name)
    if row is None:
        raise UnknownEndpoint(name)
    return _endpoint(row)


async def listed(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int) -> list[Endpoint]:
    """Every endpoint of an organisation, by name."""
    return [_endpoint(row) for row in await connection.fetch(SQL["of_organisation"], organisation_id)]


async def credentials(connection: asyncpg.Connection | asyncpg.Pool, endpoint_id: int) -> list[KeyShown]:
    """What can be said of an endpoint's keys."""
    rows = await connection.fetch(SQL["keys"], endpoint_id)
    return [KeyShown(Slot(row["slot"]), row["id"], row["last_four"], row["created_at"]) for row in rows]


async def names(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int) -> set[str]:
    """Every name that is taken in an organisation."""
    return {row["name"] for row in await connection.fetch(SQL["names"], organisation_id)}


async def borne_before(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, since: datetime.datetime
) -> set[str]:
    """Names under which there is also usage, since a moment, of an earlier endpoint."""
    return {row["name"] for row in await connection.fetch(SQL["borne_before"], organisation_id, since)}


async def key_ids(connection: asyncpg.Connection | asyncpg.Pool, endpoint_id: int) -> list[str]:
    """Every key that an endpoint has or had."""
    return [row["id"] for row in await connection.fetch(SQL["key_ids"], endpoint_id)]


async def live(connection: Any) -> list[Live]:
    """Every endpoint of every organisation, for gateways and controllers."""
    return [
        Live(
            row["id"],
            row["organisation_id"],
            row["project_id"],
            row["name"],
            row["model"],
            limits.read(row["limits"]),
            row["suspended"],
            row["suspended_at"],
        )
        for row in await connection.fetch(SQL["live"])
    ]


async def note_problem(connection: asyncpg.Connection, model: str, problem: str | None) -> None:
    """Say why a model's endpoints cannot be served; None when they can."""
    await connection.execute(SQL["note_problem"], model, problem)


async def leaving(connection: asyncpg.Connection) -> dict[int, datetime.datetime]:
    """Endpoints that were deleted and whose minutes may run on, with when they were deleted."""
    return {row["id"]: row["deleted_at"] for row in await connection.fetch(SQL["leaving"])}


async def ended(connection: asyncpg.Connection, endpoint_ids: list[int]) -> None:
    """Say that nothing of these runs on; they are shown no more."""
    await connection.execute(SQL["ended"], endpoint_ids)


def check_name(name: str) -> None:
    """Raise EndpointError for a name that could not stand in a URL."""
    if not NAME.fullmatch(name):
        raise EndpointError(
            f"the name {name[:40]!r} is not accepted: 3 to 32 small letters, digits and hyphens, beginning "
            "with a letter and not ending with a hyphen",
            "name",
        )


def check_wish(wish: Wish) -> None:
    """Raise EndpointError naming the field that is not accepted."""
    if len(wish.description) > 1000:
        raise EndpointError("the description is longer than 1000 characters", "description")
    if len(wish.tags) > TAGS_MAX:
        raise EndpointError(f"there are more than {TAGS_MAX} tags", "tags")
    for name, value in wish.tags.items():
        if not name or len(name) > TAG_CHARACTERS_MAX or len(value) > TAG_CHARACTERS_MAX:
            raise EndpointError(
                f"the tag {name[:40]!r} is not accepted: names and values have 1 to {TAG_CHARACTERS_MAX} "
                "characters",
                "tags",
            )


def _written(wish: Wish) -> tuple[str, str, str]:
    return (
        wish.description,
        msgspec.json.encode(wish.tags).decode(),
        msgspec.json.encode(wish.limits).decode(),
    )


async def _make_key(
    connection: asyncpg.Connection,
    pepper: bytes,
    organisation_id: int,
    project_id: int,
    endpoint_id: int,
    name: str,
    slot: Slot,
) -> str:
    made = keys.make(pepper)
    await connection.execute(
        SQL["insert_key"],
        made.id,
        organisation_id,
        project_id,
        f"{slot.value} key of {name}",
        made.digest,
        made.last_four,
        endpoint_id,
        slot.value,
    )
    return made.text


def _endpoint(row: asyncpg.Record) -> Endpoint:
    return Endpoint(
        id=row["id"],
        project=row["project"],
        name=row["name"],
        model=row["model"],
        description=row["description"],
        tags=msgspec.json.decode(row["tags"], type=dict[str, str]),
        limits=limits.read(row["limits"]),
        suspended=row["suspended"],
        problem=row["problem"],
        created_at=row["created_at"],
        deleted_at=row["deleted_at"],
    )
