"""The portal over HTTP: a real gateway and PostgreSQL, a simulated engine, and people who sign in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from benches.portal import Site, open_site


@pytest.fixture
async def site(database_url: str, database: asyncpg.Pool) -> AsyncIterator[Site]:
    async with open_site(database_url, database) as site:
        yield site
