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


ROLE = """
do $$
begin
  create role penstock_app nologin;
exception
  when duplicate_object or unique_violation then null;  -- roles belong to the server, not to the database
end $$;
do $$
begin
  if not pg_has_role(current_user, 'penstock_app', 'member') then
    execute format('grant penstock_app to %I', current_user);
  end if;
end $$;
alter default privileges grant usage on schemas to penstock_app;
alter default privileges grant select, insert, update, delete on tables to penstock_app;
alter default privileges grant usage, select on sequences to penstock_app"""
"""Running processes are this role (see `database`): what a migration makes is theirs, unless it says else."""


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
    """Read a package's `migrations/NNNN_name.sql` in order; raises MigrationError on a number used twice.

    A gap is a number that another change has reserved.
    """
    found: list[Migration] = []
    for entry in sorted(resources.files(package).joinpath("migrations").iterdir(), key=lambda e: e.name):
        if not entry.name.endswith(".sql"):
            continue
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        if found and found[-1].number == int(number):
            raise MigrationError(f"{package}: {entry.name} and {found[-1].name} bear the same number")
        found.append(Migration(room, int(number), name, entry.read_text(encoding="utf-8")))
    return found


async def apply(connection: asyncpg.Connection, migrations: list[Migration]) -> list[Migration]:
    """Apply what is missing, all in one transaction, and return it.

    Raises MigrationError when an applied file was edited, the database is newer than the code, or the
    account may not make the role of running processes.
    """
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        try:
            await connection.execute(ROLE)
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(
                "the database account may not make the role penstock_app, which running processes take; have "
                "an administrator run: create role penstock_app nologin; grant penstock_app to <this account>"
            ) from error
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
