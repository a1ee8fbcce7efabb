"""The engines that there are, in Postgres: written by the controller, followed by every gateway."""

from __future__ import annotations

import datetime
from pathlib import Path

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_engines", "registry.sql")

Connection = asyncpg.Connection | asyncpg.Pool | asyncpg.pool.PoolConnectionProxy

NAME_CHARACTERS_MAX = 20
"""Of a model's name in its engine's: a socket's whole path has 107 bytes, and state folders lie deep."""


def engine_name(model: str, mark: str) -> str:
    """Name an engine, and so its folder: the model's own name, cut short, and a mark of this start."""
    return f"{model.rpartition('/')[2][:NAME_CHARACTERS_MAX]}-{mark}"


class Registered(msgspec.Struct, frozen=True):
    """One engine as gateways need it: what it serves and where it listens."""

    id: str
    model: str
    state: str
    socket: Path
    batch_max: int
    reason: str | None
    """Why it is not ready, where that is known."""
    version: int = 1
    """The pool's version that it runs."""
    since: datetime.datetime | None = None
    """When it came into this state; known of engines that were read."""


async def put(connection: asyncpg.Connection | asyncpg.Pool, replica: Registered, controller: str) -> None:
    """Write one engine's present state."""
    await connection.execute(
        SQL["put"],
        replica.id,
        replica.model,
        replica.state,
        str(replica.socket),
        replica.batch_max,
        replica.reason,
        controller,
        replica.version,
    )


async def clear_others(connection: asyncpg.Connection | asyncpg.Pool, controller: str) -> None:
    """Forget the engines of controllers before this one: they ended with their controller."""
    await connection.execute(SQL["clear_others"], controller)


async def remove(connection: asyncpg.Connection | asyncpg.Pool, replica_id: str) -> None:
    """Forget one engine."""
    await connection.execute(SQL["remove"], replica_id)


async def listed(connection: Connection) -> list[Registered]:
    """Every engine, in whatever state."""
    return [
        Registered(
            row["id"],
            row["model"],
            row["state"],
            Path(row["socket"]),
            row["batch_max"],
            row["reason"],
            row["version"],
            row["changed_at"],
        )
        for row in await connection.fetch(SQL["listed"])
    ]
