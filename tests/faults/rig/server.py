"""A PostgreSQL of the fault tests' own: stopped at once, frozen, started again, restored."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil

from penstock.local import postgres

TEMPLATE = "penstock_template"
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Server:
    """One server for all rooms; whatever a test does to it, `mend` makes good."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: postgres.Postgres | None = None
        self._frozen: list[psutil.Process] = []
        self._numbers = itertools.count(1)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        assert self._running is not None
        query = parse_qs(urlsplit(self._running.url).query)
        return Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        if self._running is None or not self._running.child.running:
            self._running = await postgres.start(self._folder)

    async def stop_immediately(self) -> None:
        """`pg_ctl stop -m immediate`: every session is cut, and the next start recovers from the log."""
        assert self._running is not None
        # This signal is what pg_ctl sends for it (PostgreSQL's manual, "Shutting Down the Server").
        await self._running.child.stop(with_signal=signal.SIGQUIT, patience_s=30)

    def freeze(self) -> None:
        """SIGSTOP to all of it: it holds its connections and says nothing."""
        assert self._running is not None
        server = psutil.Process(self._running.child.pid)
        self._frozen = [server, *server.children(recursive=True)]
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """SIGCONT."""
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    async def mend(self) -> None:
        """Make it run again, whatever was done to it."""
        self.thaw()
        await self.start()

    async def remove(self) -> None:
        """End it for good."""
        self.thaw()
        if self._running is not None:
            await self._running.child.stop(with_signal=signal.SIGQUIT, patience_s=15)
        shutil.rmtree(self._folder.parent)

    def url(self, database: str, *, at: Path | None = None) -> str:
        """How to reach one of its databases, directly or through a folder with another socket."""
        folder = self.socket.parent if at is None else at
        return f"postgresql://penstock@/{database}?host={folder}&port=5432"

    async def execute(self, statement: str) -> None:
        """Run a statement outside any database of ours."""
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def prepare(self, migrate: Callable[[str], Coroutine[Any, Any, int]]) -> None:
        """Make the template that every room's database is a copy of."""
        await self.start()
        await self.execute(f"create database {TEMPLATE}")
        await migrate(self.url(TEMPLATE))

    async def new_database(self) -> str:
        """Make an empty, migrated database; returns its name."""
        name = f"room_{next(self._numbers)}"
        await self.execute(f"create database {name} template {TEMPLATE}")
        return name


async def until(condition: Callable[[], Coroutine[Any, Any, Any]], what: str, *, within_s: float = 60) -> Any:
    """Wait until `condition` gives something true, and return it; a database that is away counts as false."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        with contextlib.suppress(*AWAY):
            if found := await condition():
                return found
        assert asyncio.get_running_loop().time() < end, (
            f"within {within_s:.0f} s it did not come true: {what}"
        )
        await asyncio.sleep(0.05)
