"""Forward-only migrations: numbered SQL files per room, each applied once, under a lock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

import asyncpg

LOCK = 7_306_001_113
"""Any constant: the advisory lock that lets one process migrate at a time."""

TABLE = """
create schema if not exists penstock;
create table if not exists penstock.migration (
  room       text        not null,
  number     integer     not null,
  name       text        not null,
  digest     text        not null,
  applied_at timestamptz not null default now(),
  primary key (room, number)
)"""


class MigrationError(Exception):
    """The database holds a history that these files cannot continue."""


@dataclass(frozen=True)
class Migration:
    """One file `NNNN_name.sql` in the folder `migrations` of a room's package."""

    room: str
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 of the file: an applied migration must never change."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read(room: str, package: str) -> list[Migration]:
    """Read a package's `migrations/NNNN_name.sql` in order; raises MigrationError on a gap in the numbers."""
    found: list[Migration] = []
    for entry in sorted(resources.files(package).joinpath("migrations").iterdir(), key=lambda e: e.name):
        if not entry.name.endswith(".sql"):
            continue
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        found.append(Migration(room, int(number), name, entry.read_text(encoding="utf-8")))
        if found[-1].number != len(found):
            raise MigrationError(f"{package}: {entry.name} should bear the number {len(found):04d}")
    return found


async def apply(connection: asyncpg.Connection, migrations: list[Migration]) -> list[Migration]:
    """Apply what is missing, all in one transaction, and return it.

    Raises MigrationError when an applied file was edited, or the database is newer than the code.
    """
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(TABLE)
        rows = await connection.fetch("select room, number, digest from penstock.migration")
        applied = {(row["room"], row["number"]): row["digest"] for row in rows}
        known = {(m.room, m.number) for m in migrations}
        rooms = {m.room for m in migrations}
        if newer := sorted(key for key in applied if key[0] in rooms and key not in known):
            raise MigrationError(f"the database is newer than this Penstock: it has {newer}; upgrade")
        missing = []
        for migration in migrations:
            digest = applied.get((migration.room, migration.number))
            if digest is None:
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into penstock.migration (room, number, name, digest) values ($1, $2, $3, $4)",
                    migration.room,
                    migration.number,
                    migration.name,
                    migration.digest,
                )
                missing.append(migration)
            elif digest != migration.digest:
                raise MigrationError(f"migration {migration.room} {migration.number} was edited after it ran")
        return missing
