"""A model of Postgres in memory: transactions that see their own writes, row locks, and what goes wrong.

What each statement does is in `statements.py`, checked against the real SQL by `test_postgres_model.py`. Here
are transactions (read committed: a transaction's writes lie over the committed rows until it commits), locks
(held to the end of the transaction, waited for in order) and the ways in which a database fails its clients:
away, frozen, slow, cut before or after a commit took effect, restored from a backup.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import asyncpg
from world.loop import CURRENT, VirtualLoop, alive

Key = tuple[str, Any]
Row = Any

if TYPE_CHECKING:
    from world.connections import Connection, Pool

GONE = "the connection was closed in the middle of an operation"


class Blocked(Exception):
    """A statement has to wait for a lock; it is tried again, from its start, when the lock is free."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key


class Transaction:
    """Writes that nobody else sees yet, and the locks that keep others off them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.writes: dict[Key, Row] = {}
        self.locks: set[Key] = set()
        self.stage: list[tuple[Any, ...]] = []
        """The temporary table of shipping."""
        self.failed = False
        self.lock_timeout_s: float | None = None

    def get(self, table: str, key: Any) -> Row:
        """Read a row; None where there is none."""
        place = (table, key)
        if place in self.writes:
            return self.writes[place]
        return self.server.tables.get(table, {}).get(key)

    def rows(self, table: str) -> Iterator[tuple[Any, Row]]:
        """Every row of a table, in the order in which they came."""
        committed = self.server.tables.get(table, {})
        for key, before in committed.items():
            row = self.writes.get((table, key), before)
            if row is not None:
                yield key, row
        for (name, key), row in self.writes.items():
            if name == table and row is not None and key not in committed:
                yield key, row

    def put(self, table: str, key: Any, row: Row) -> None:
        """Write a row, which locks it."""
        self.lock(table, key)
        self.writes[table, key] = row

    def insert(self, table: str, key: Any, row: Row) -> None:
        """Write a row that must be new."""
        self.lock(table, key)
        if self.get(table, key) is not None:
            raise asyncpg.UniqueViolationError(f"{table} has {key} already")
        self.writes[table, key] = row

    def lock(self, table: str, key: Any, *, shared: bool = False) -> None:
        """Lock a row, or any other thing that has a name, until this transaction ends."""
        place = (table, key)
        holders = self.server.locks.setdefault(place, {})
        others = [other for other, exclusive in holders.items() if other is not self]
        if others and not (shared and not any(holders[other] for other in others)):
            raise Blocked(place)
        holders[self] = holders.get(self, False) or not shared
        self.locks.add(place)


class Request:
    """One statement on its way."""

    __slots__ = ("answer", "cancelled", "ends", "work")

    def __init__(self, work: Callable[[Transaction], Any], ends: bool, answer: asyncio.Future[Any]) -> None:
        self.work = work
        self.ends = ends
        """Whether its transaction is committed with it."""
        self.answer = answer
        self.cancelled = False

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever asked may be gone: nobody need look


class Server:
    """The database of a run."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, now: Callable[[], Any]) -> None:
        self.loop = loop
        self.rng = rng
        self.now = now
        self.tables: dict[str, dict[Any, Row]] = {}
        self.sequences: dict[str, int] = {}
        self.locks: dict[Key, dict[Transaction, bool]] = {}
        self._waiting: dict[Key, list[tuple[Connection, Request]]] = {}
        self.connections: dict[Connection, None] = {}
        self.away = False
        self.frozen: list[tuple[Connection, Request]] | None = None
        self.latency_s = (0.0002, 0.002)
        self.cut_after_commit = 0
        """That many commits take effect without their clients' hearing of it."""
        self.cut_before_commit = 0
        self.commits = 0
        self.after_commit: Callable[[Transaction], None] = lambda _: None

    def next(self, sequence: str) -> int:
        """Take a number; never given back, as Postgres does not either."""
        self.sequences[sequence] = self.sequences.get(sequence, 0) + 1
        return self.sequences[sequence]

    async def connect(self, name: str, command_timeout_s: float | None) -> Connection:
        """Open a connection as asyncpg does, with its errors."""
        alive()
        await asyncio.sleep(self.rng.uniform(*self.latency_s))
        if self.frozen is not None:
            await asyncio.sleep(5)
            raise TimeoutError
        if self.away:
            raise ConnectionRefusedError(111, "connection refused")
        from world.connections import Connection

        connection = Connection(self, name, command_timeout_s)
        self.connections[connection] = None
        process = CURRENT.get()
        if process is not None:
            process.at_death.append(
                lambda: self.loop.outside(self.rng.uniform(0, 0.05), self.end, connection)
            )
        return connection

    def pool(self, name: str, command_timeout_s: float) -> Pool:
        """Make a pool of connections; none is opened before it is needed."""
        from world.connections import Pool

        return Pool(self, name, command_timeout_s)

    # What connections ask.

    def take(self, connection: Connection, request: Request) -> None:
        """A statement arrives."""
        if self.frozen is not None:
            self.frozen.append((connection, request))
        else:
            self.execute(connection, request)

    def execute(self, connection: Connection, request: Request) -> None:
        """Run a statement, or have it wait for a lock."""
        if connection not in self.connections:
            request.fail(asyncpg.ConnectionDoesNotExistError(GONE))
            return
        if request.cancelled:
            request.fail(asyncpg.QueryCanceledError("canceling statement due to user request"))
            return
        transaction = connection.transaction_
        if transaction is None:
            transaction = Transaction(self)
        if transaction.failed:
            request.fail(asyncpg.InFailedSQLTransactionError("current transaction is aborted"))
            return
        before = dict(transaction.writes)
        try:
            result = request.work(transaction)
        except Blocked as blocked:
            transaction.writes = before
            self._waiting.setdefault(blocked.key, []).append((connection, request))
            if transaction.lock_timeout_s is not None:
                wait_s = transaction.lock_timeout_s
                self.loop.outside(wait_s, self._waited_too_long, blocked.key, connection, request)
            return
        except asyncpg.PostgresError as error:
            transaction.failed = True
            if connection.transaction_ is None:
                self.release(transaction)
            request.fail(error)
            return
        if request.ends or connection.transaction_ is None:
            if not self._commit(connection, transaction):
                request.fail(asyncpg.ConnectionDoesNotExistError(GONE))
                return
            connection.transaction_ = None
        if not request.answer.done():
            request.answer.set_result(result)

    def _waited_too_long(self, key: Key, connection: Connection, request: Request) -> None:
        """What `lock_timeout` does."""
        waiting = self._waiting.get(key, [])
        if (connection, request) in waiting:
            waiting.remove((connection, request))
            if connection.transaction_ is not None:
                connection.transaction_.failed = True
            request.fail(asyncpg.LockNotAvailableError("canceling statement due to lock timeout"))

    def _commit(self, connection: Connection, transaction: Transaction) -> bool:
        """Make a transaction's writes everybody's; False when the client does not hear of it."""
        counted = bool(transaction.writes)
        if counted and self.cut_before_commit:
            self.cut_before_commit -= 1
            connection.transaction_ = None
            self.release(transaction)
            self.end(connection)
            return False
        for (table, key), row in transaction.writes.items():
            rows = self.tables.setdefault(table, {})
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
        self.commits += counted
        self.after_commit(transaction)
        self.release(transaction)
        if counted and self.cut_after_commit:
            self.cut_after_commit -= 1
            connection.transaction_ = None
            self.end(connection)
            return False
        return True

    def release(self, transaction: Transaction) -> None:
        """End a transaction's locks, and let those go on who waited for one."""
        freed: list[tuple[Connection, Request]] = []
        for key in sorted(transaction.locks, key=repr) if len(transaction.locks) > 1 else transaction.locks:
            holders = self.locks[key]
            holders.pop(transaction, None)
            if not holders:
                del self.locks[key]
            freed += self._waiting.pop(key, [])
        transaction.locks.clear()
        transaction.writes = {}
        for connection, request in freed:
            self.execute(connection, request)

    def end(self, connection: Connection) -> None:
        """Close a connection from this side: what it had not committed is undone."""
        if connection not in self.connections:
            return
        del self.connections[connection]
        for waiting in self._waiting.values():
            for each in [each for each in waiting if each[0] is connection]:
                waiting.remove(each)
                each[1].fail(asyncpg.ConnectionDoesNotExistError(GONE))
        if connection.transaction_ is not None:
            transaction, connection.transaction_ = connection.transaction_, None
            self.release(transaction)
        for request in list(connection.pending):
            request.fail(asyncpg.ConnectionDoesNotExistError(GONE))

    # What goes wrong.

    def stop(self) -> None:
        """Go away, at once."""
        self.away = True
        self.cut_all()

    def cut_all(self) -> None:
        """End every connection."""
        for connection in list(self.connections):
            self.end(connection)

    def start(self) -> None:
        """Come back."""
        self.away = False

    def freeze(self) -> None:
        """Answer nothing, as a stopped process or a dead network does."""
        if self.frozen is None:
            self.frozen = []

    def thaw(self) -> None:
        """Go on, with what had arrived."""
        held, self.frozen = self.frozen or [], None
        for connection, request in held:
            self.execute(connection, request)

    def backup(self) -> dict[str, dict[Any, Row]]:
        """What is committed now."""
        return {table: dict(rows) for table, rows in self.tables.items()}

    def restore(self, backup: dict[str, dict[Any, Row]]) -> None:
        """Go back to a backup; every connection ends. Sequences go back too: a backup has those as well."""
        self.cut_all()
        self.tables = {table: dict(rows) for table, rows in backup.items()}


STATEMENTS: dict[str, Callable[..., Any]] = {}
"""What each query text does: a function of the transaction and the query's arguments."""


def run(transaction: Transaction, sql: str, args: Any) -> Any:
    """Execute a statement of the tested code."""
    statement = STATEMENTS.get(sql)
    if statement is None:
        raise NotImplementedError(f"the model of Postgres does not know this statement yet:\n{sql}")
    return statement(transaction, *args)
