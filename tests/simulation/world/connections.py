"""The client's end of the model of Postgres: connections, transactions and pools as asyncpg's look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
from world.loop import alive
from world.postgres import GONE, Key, Request, Row, Server, Transaction, run


class Connection:
    """A connection, as asyncpg's looks to those who use it."""

    def __init__(self, server: Server, name: str, command_timeout_s: float | None) -> None:
        self._server = server
        self._loop = server.loop
        self.name = name
        self._command_timeout_s = command_timeout_s
        self.transaction_: Transaction | None = None
        self.pending: dict[Request, None] = {}
        self._closed = False

    def is_closed(self) -> bool:
        return self._closed or self not in self._server.connections

    def terminate(self) -> None:
        """Close without a word; the other side notices a little later."""
        self._closed = True
        for request in list(self.pending):
            request.fail(asyncpg.ConnectionDoesNotExistError(GONE))
        self._loop.outside(self._server.rng.uniform(0, 0.02), self._server.end, self)

    async def close(self, *, timeout: float | None = None) -> None:
        alive()
        self._closed = True
        self._server.end(self)

    async def ask(
        self, work: Callable[[Transaction], Any], *, ends: bool = False, timeout_s: float | None = None
    ) -> Any:
        """Send a statement and wait for its answer."""
        alive()
        if self._closed:
            raise asyncpg.InterfaceError("connection is closed")
        if self.is_closed():
            self._closed = True
            raise asyncpg.ConnectionDoesNotExistError(GONE)
        server = self._server
        request = Request(work, ends, self._loop.create_future())
        self.pending[request] = None
        server.loop.outside(server.rng.uniform(*server.latency_s), server.take, self, request)
        limit_s = self._command_timeout_s if timeout_s is None else timeout_s
        timer = None if limit_s is None else self._loop.call_later(limit_s, self._give_up, request)
        try:
            return await request.answer
        finally:
            self.pending.pop(request, None)
            if timer is not None:
                timer.cancel()
            if request.answer.cancelled():
                request.cancelled = True

    def _give_up(self, request: Request) -> None:
        if not request.answer.done():
            # The word that it is to be cancelled comes too late, or in time.
            request.cancelled = self._server.rng.random() < 0.5
            request.fail(TimeoutError())

    def transaction(self, **_: Any) -> Block:
        """As asyncpg's: a transaction, or within one a savepoint."""
        return Block(self)

    def is_in_transaction(self) -> bool:
        return self.transaction_ is not None

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> str:
        done = await self.ask(lambda transaction: run(transaction, sql, args), timeout_s=timeout)
        return done if isinstance(done, str) else "OK"

    async def executemany(self, sql: str, rows: Any, *, timeout: float | None = None) -> None:
        given = list(rows)
        await self.ask(lambda transaction: [run(transaction, sql, each) for each in given], timeout_s=timeout)

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await self.ask(
            lambda transaction: run(transaction, sql, args), timeout_s=timeout
        )
        return rows

    async def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> dict[str, Any] | None:
        rows = await self.fetch(sql, *args, timeout=timeout)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        rows = await self.fetch(sql, *args, timeout=timeout)
        return next(iter(rows[0].values())) if rows else None

    async def copy_records_to_table(self, table: str, *, records: Any, **_: Any) -> None:
        assert table == "usage_stage", table
        given = list(records)
        await self.ask(lambda transaction: transaction.stage.extend(given))


class Block:
    """`async with connection.transaction()`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outer: dict[Key, Row] | None = None

    async def __aenter__(self) -> Block:
        alive()
        connection = self._connection
        if connection.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        if connection.transaction_ is None:
            connection.transaction_ = Transaction(connection._server)
        else:
            self._outer = dict(connection.transaction_.writes)
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        alive()
        connection = self._connection
        if self._outer is not None:
            if kind is not None and connection.transaction_ is not None:
                connection.transaction_.writes = self._outer
                connection.transaction_.failed = False
            return
        if kind is None:
            await connection.ask(lambda _: None, ends=True)
            return
        if connection.is_closed():
            raise asyncpg.InterfaceError("connection was closed in the middle of a transaction")
        if connection.transaction_ is not None:
            transaction, connection.transaction_ = connection.transaction_, None
            connection._server.release(transaction)


class Pool:
    """As much of asyncpg's pool as is used: a connection for each taking."""

    def __init__(self, server: Server, name: str, command_timeout_s: float | None) -> None:
        self._server = server
        self._name = name
        self._command_timeout_s = command_timeout_s
        self._idle: list[Connection] = []

    def acquire(self, **_: Any) -> Taking:
        return Taking(self)

    async def take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._server.connect(self._name, self._command_timeout_s)

    def give_back(self, connection: Connection) -> None:
        if connection.transaction_ is None and not connection.is_closed():
            self._idle.append(connection)
        else:
            connection.terminate()

    async def execute(self, sql: str, *args: Any, **options: Any) -> str:
        async with self.acquire() as connection:
            return await connection.execute(sql, *args, **options)

    async def fetch(self, sql: str, *args: Any, **options: Any) -> list[dict[str, Any]]:
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args, **options)

    async def fetchrow(self, sql: str, *args: Any, **options: Any) -> dict[str, Any] | None:
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args, **options)

    async def fetchval(self, sql: str, *args: Any, **options: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args, **options)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()


class Taking:
    """`async with pool.acquire()`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        alive()
        self._pool.give_back(self._connection)
