"""What the fault tests share: a PostgreSQL and a Valkey that may be hurt, and a room for each test."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

# There are no packages under tests/: the rig is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))

from rig import shim
from rig.redis_server import RedisServer
from rig.room import Room, open_room
from rig.server import Server

from penstock.local import first_run


@pytest.fixture(scope="session")
def fault_server() -> Iterator[Server]:
    """One PostgreSQL for all rooms; a test may stop it, freeze it and cut its sessions."""
    server = Server(Path(tempfile.mkdtemp(prefix="pf-pg-")) / "postgres")
    asyncio.run(server.prepare(first_run.migrate))
    yield server
    asyncio.run(server.remove())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Valkey for all rooms; a test may kill it."""
    with tempfile.TemporaryDirectory(prefix="pf-vk-") as folder:
        server = RedisServer(Path(folder) / "valkey")
        asyncio.run(server.mend())
        yield server
        asyncio.run(server.kill())


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
async def room(fault_server: Server, redis_server: RedisServer, shim_library: Path) -> AsyncIterator[Room]:
    async with open_room(fault_server, redis_server, shim_library) as room:
        yield room
