"""Projects: parts of an organisation that own keys and endpoints."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from penstock.access import keys, limits, names
from penstock.access.keys import UnknownProject
from penstock.access.limits import RateLimits
from penstock_base import queries

SQL = queries.load("penstock.access", "projects.sql")


class ProjectExists(Exception):
    """The organisation has a project of this name already."""


class Project(msgspec.Struct, frozen=True):
    """One project, as its organisation sees it."""

    id: int
    name: str
    keys: int
    """Live ones; an endpoint's own keys are not counted."""
    limits: RateLimits
    created_at: datetime


async def listed(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int) -> list[Project]:
    """Every project of an organisation, by name."""
    return [_project(row) for row in await connection.fetch(SQL["projects"], organisation_id, None)]


async def find(connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, name: str) -> Project:
    """One project by its name; raises UnknownProject."""
    row = await connection.fetchrow(SQL["projects"], organisation_id, name)
    if row is None:
        raise UnknownProject(f"the organisation has no project named {name[:100]!r}")
    return _project(row)


async def create(connection: asyncpg.Connection, organisation_id: int, name: str) -> Project:
    """Make a project; raises NameRefused, ProjectExists."""
    name = names.checked(name, path=True)
    try:
        await connection.execute(SQL["create"], organisation_id, name)
    except asyncpg.UniqueViolationError:
        raise _exists(name) from None
    return await find(connection, organisation_id, name)


async def rename(connection: asyncpg.Connection, organisation_id: int, name: str, wanted: str) -> Project:
    """Give a project another name; its keys, endpoints and bills go with it.

    Raises UnknownProject, NameRefused, ProjectExists.
    """
    wanted = names.checked(wanted, path=True)
    project_id = await keys.find_project(connection, organisation_id, name)
    try:
        await connection.execute(SQL["rename"], project_id, wanted)
    except asyncpg.UniqueViolationError:
        raise _exists(wanted) from None
    return await find(connection, organisation_id, wanted)


def _exists(name: str) -> ProjectExists:
    return ProjectExists(f"there is a project named {name!r} already")


def _project(row: asyncpg.Record) -> Project:
    return Project(row["id"], row["name"], row["keys"], limits.read(row["limits"]), row["created_at"])
