"""What the state machines share: a database for machines that have event loops of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from penstock.local import postgres

NAME = "property"


@pytest.fixture
def url(postgres_server: postgres.Postgres) -> Iterator[str]:
    """An empty, migrated database; plain, unlike `database_url`, which belongs to the loop of a test."""

    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(postgres_server.url.replace("@/penstock?", "@/postgres?"))
        await connection.execute(sql)
        await connection.close()

    asyncio.run(execute(f"create database {NAME} template penstock_template"))
    yield postgres_server.url.replace("@/penstock?", f"@/{NAME}?")
    asyncio.run(execute(f"drop database {NAME} with (force)"))
