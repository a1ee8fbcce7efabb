"""What keys and projects are limited to, and the plans that weigh organisations."""

from __future__ import annotations

from typing import Annotated, Any

import asyncpg
import msgspec
from msgspec import Meta

from penstock.access import keys
from penstock_base import queries

SQL = queries.load("penstock.access", "limits.sql")

Most = Annotated[int, Meta(ge=1, le=10**12, description="a whole number of 1 or more")]


class LimitError(Exception):
    """A limit or plan that cannot be set so; the message says what could be."""


class RateLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a key or a project is limited to; None is no limit."""

    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = None
    concurrent_requests: Most | None = None


NONE = RateLimits()


class Plan(msgspec.Struct, frozen=True):
    """A plan, and how many organisations have it."""

    name: str
    weight: float
    organisations: int


def read(text: str) -> RateLimits:
    """Read limits as Postgres keeps them."""
    return NONE if text == "{}" else msgspec.json.decode(text, type=RateLimits)


async def limit_key(
    connection: asyncpg.Connection, organisation_id: int, key_id: str, limits: RateLimits
) -> None:
    """Limit one key; raises UnknownKey."""
    if await connection.fetchval(SQL["limit_key"], organisation_id, key_id, _text(limits)) is None:
        raise keys.UnknownKey(f"no key {key_id!r} in this organisation: see `penstock keys list`")


async def limit_project(
    connection: asyncpg.Connection, organisation_id: int, project: str, limits: RateLimits
) -> None:
    """Limit a project, all its keys together; raises UnknownProject."""
    async with connection.transaction():
        project_id = await keys.find_project(connection, organisation_id, project)
        await connection.execute(SQL["limit_project"], project_id, _text(limits))
        await connection.execute(SQL["touch_project"], project_id)


async def plans(connection: asyncpg.Connection) -> list[Plan]:
    """Every plan."""
    return [Plan(*row.values()) for row in await connection.fetch(SQL["plans"])]


async def set_plan(connection: asyncpg.Connection, name: str, weight: float) -> None:
    """Make a plan or change its weight."""
    if not 0 < weight <= 1000:
        raise LimitError(f"the weight {weight:g} is not accepted: it must be above 0, up to 1000")
    async with connection.transaction():
        await connection.execute(SQL["set_plan"], name, weight)
        await connection.execute(SQL["touch_plan"], name)


async def assign_plan(connection: asyncpg.Connection, organisation_id: int, name: str) -> None:
    """Give an organisation a plan; raises LimitError where there is no such plan."""
    async with connection.transaction():
        known: list[Any] = [plan.name for plan in await plans(connection)]
        if name not in known:
            raise LimitError(f"no plan {name!r}; there are: {', '.join(known)}")
        await connection.execute(SQL["assign_plan"], organisation_id, name)
        await connection.execute(SQL["touch_organisation"], organisation_id)


def _text(limits: RateLimits) -> str:
    return msgspec.json.encode(limits).decode()
