"""Plans, which are the operator's: what share of a busy model organisations get, and their limits."""

from __future__ import annotations

import math
import re

import asyncpg
import msgspec

from penstock.access import keys, limits
from penstock.access.limits import LimitError, RateLimits
from penstock_base import queries

SQL = queries.load("penstock.access", "plans.sql")

STANDARD = "standard"
"""The plan of whoever was given no other."""
WEIGHT_MIN, WEIGHT_MAX = 0.01, 1000.0
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")


class Plan(msgspec.Struct, frozen=True):
    """A plan, and how many organisations have it."""

    name: str
    weight: float
    """Share of a busy model: weight 2 is served twice as much as weight 1."""
    limits: RateLimits
    """Of each organisation that has it, all its keys together."""
    organisations: int


async def listed(connection: asyncpg.Connection) -> list[Plan]:
    """Every plan, by name."""
    return [_plan(row) for row in await connection.fetch(SQL["plans"], None)]


async def find(connection: asyncpg.Connection, name: str) -> Plan:
    """One plan; raises LimitError that names those there are."""
    row = await connection.fetchrow(SQL["plans"], name)
    if row is None:
        there = ", ".join(each.name for each in await listed(connection))
        raise LimitError(f"there is no plan {name[:50]!r}; there are: {there}")
    return _plan(row)


async def of_organisation(connection: asyncpg.Connection, organisation_id: int) -> Plan:
    """The plan that an organisation has."""
    return await find(connection, await connection.fetchval(SQL["of_organisation"], organisation_id))


async def members(connection: asyncpg.Connection, name: str) -> list[str]:
    """The organisations that have a plan, by name."""
    return [row["name"] for row in await connection.fetch(SQL["members"], name)]


async def create(connection: asyncpg.Connection, name: str, weight: float, given: RateLimits) -> None:
    """Make a plan; raises LimitError for a name that is taken or not accepted, and for such a weight."""
    if not NAME.fullmatch(name):
        raise LimitError(
            f"{name[:50]!r} cannot be a plan's name: 1 to 50 small letters, digits and hyphens, and no "
            "hyphen first or last"
        )
    check_weight(weight)
    if await connection.fetchval(SQL["create"], name, weight, limits.written(given)) is None:
        raise LimitError(f"there is a plan {name!r} already: change it by `penstock plans set {name}`")


async def change(connection: asyncpg.Connection, name: str, weight: float, given: RateLimits) -> None:
    """Give a plan this weight and these limits; raises LimitError. Organisations that have it follow."""
    check_weight(weight)
    async with connection.transaction():
        await find(connection, name)
        await connection.execute(SQL["change"], name, weight, limits.written(given))
        await connection.execute(SQL["touch_plan"], name)


async def assign(connection: asyncpg.Connection, organisation: str, name: str) -> None:
    """Give an organisation a plan; raises LimitError where there is no such plan, UnknownOrganisation."""
    async with connection.transaction():
        organisation_id = await keys.find_organisation(connection, organisation)
        await find(connection, name)
        await connection.execute(SQL["assign"], organisation_id, name)
        await connection.execute(SQL["touch_organisation"], organisation_id)


async def remove(connection: asyncpg.Connection, name: str) -> None:
    """End a plan that nobody has; raises LimitError for any other, and for the standard one."""
    if name == STANDARD:
        raise LimitError(f"{STANDARD} cannot be removed: it is the plan of new organisations")
    async with connection.transaction():
        await find(connection, name)
        # A key share lock by a new member's foreign key waits for this; then it finds no plan.
        await connection.execute(SQL["lock"], name)
        having = await members(connection, name)
        if having:
            some = ", ".join(having[:5]) + (", …" if len(having) > 5 else "")
            raise LimitError(
                f"{name} has organisations ({some}): give them another plan first, "
                f"`penstock plans assign {having[0]} {STANDARD}`"
            )
        await connection.execute(SQL["remove"], name)


def check_weight(weight: float) -> None:
    """Raise LimitError for a weight that is not accepted, with the nearest that is."""
    if WEIGHT_MIN <= weight <= WEIGHT_MAX:
        return
    nearest = WEIGHT_MAX if weight > WEIGHT_MAX else WEIGHT_MIN
    near = "" if math.isnan(weight) else f"; the nearest is {nearest:g}"
    raise LimitError(
        f"the weight {weight:g} is not accepted: it is from {WEIGHT_MIN:g} to {WEIGHT_MAX:g}{near}"
    )


def _plan(row: asyncpg.Record) -> Plan:
    return Plan(row["name"], row["weight"], limits.read(row["limits"]), row["organisations"])
