"""Before the first request: the schemas of every room, and the first organisation with key and owner."""

from __future__ import annotations

import asyncpg
import msgspec

from penstock.access import keys, passwords, people
from penstock.access.roles import Role
from penstock_base import database, migrations

ROOMS = {
    "access": "penstock.access",
    "endpoints": "penstock.endpoints",
    "adapters": "penstock.adapters",
    "billing": "penstock_billing",
    "engines": "penstock_engines",
    "admission": "penstock.admission",
    # Last: its triggers stand on the tables of all the others.
    "audit": "penstock.access.audit",
}
"""Every room that owns a schema, with the package that holds its migrations."""

ORGANISATION = "default"
FIRST_EMAIL, FIRST_NAME = "admin@localhost", "Administrator"


class FirstAccount(msgspec.Struct, frozen=True):
    """With what the first person signs in to the portal; the password is nowhere else."""

    email: str
    password: str


async def migrate(database_url: str) -> int:
    """Bring every room's schema up to date and return how many migrations ran.

    Raises MigrationError when the database is newer than the code, OSError or asyncpg's errors when it
    cannot be reached.
    """
    connection = await asyncpg.connect(database_url)
    try:
        wanted = [step for room, package in ROOMS.items() for step in migrations.read(room, package)]
        return len(await migrations.apply(connection, wanted))
    finally:
        await connection.close()


async def first_key(database_url: str, pepper: bytes) -> str | None:
    """Make the first organisation and its key; None when any key was ever made here."""
    connection = await database.connect(database_url, "first run")
    try:
        if await connection.fetchval("select exists (select from access.api_key)"):
            return None
        return await keys.create(connection, pepper, name="first key", organisation=ORGANISATION)
    finally:
        await connection.close()


async def script_key(database_url: str, pepper: bytes) -> str:
    """Make one more key, for a script that started us and can keep what it reads."""
    connection = await database.connect(database_url, "first run")
    try:
        return await keys.create(connection, pepper, name="up --json", organisation=ORGANISATION)
    finally:
        await connection.close()


async def first_account(database_url: str) -> FirstAccount | None:
    """Make the account that runs the installation and owns the first organisation.

    None when anybody has an account here already.
    """
    made = FirstAccount(FIRST_EMAIL, passwords.random())
    connection = await database.connect(database_url, "first run")
    try:
        async with connection.transaction():
            if await people.anybody(connection):
                return None
            organisation_id = await keys.ensure_organisation(connection, ORGANISATION)
            person_id = await people.create(
                connection, email=made.email, name=FIRST_NAME, password=made.password, operator=True
            )
            await people.join(connection, person_id, organisation_id, Role.OWNER)
        return made
    finally:
        await connection.close()
