"""What the commands that look into the database share: the connection, and errors that say what to do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import asyncpg
import click

from penstock import settings
from penstock.access.audit import actor
from penstock.access.issuing import KeyRevoked
from penstock.access.keys import UnknownKey, UnknownOrganisation, UnknownProject
from penstock.access.limits import LimitError
from penstock.access.members import AlreadyMember, LastOwner, UnknownMember
from penstock.access.names import NameRefused
from penstock.access.people import PersonError
from penstock.access.projects import ProjectExists
from penstock.adapters.errors import AdapterError
from penstock.changes import Change, Changes
from penstock.endpoints.files import FileRefused
from penstock.endpoints.serverless import EndpointError, UnknownEndpoint
from penstock.settings import Settings
from penstock_base import database
from penstock_billing.errors import BillingError
from penstock_engines.pools import PoolError

T = TypeVar("T")
FORESEEN = (
    settings.SettingsError,
    UnknownKey,
    UnknownOrganisation,
    UnknownProject,
    BillingError,
    PoolError,
    AdapterError,
    EndpointError,
    FileRefused,
    UnknownEndpoint,
    LimitError,
    KeyRevoked,
    AlreadyMember,
    LastOwner,
    NameRefused,
    ProjectExists,
    UnknownMember,
    PersonError,
)
Work: TypeAlias = Callable[[Settings, asyncpg.Connection], Awaitable[T]]


def run(work: Work[T]) -> T:
    """Do `work` with the settings and a connection; a foreseen error ends in one sentence and status 1."""
    try:
        told = settings.read()
        return asyncio.run(_with_connection(told, work))
    except FORESEEN as error:
        message = str(error)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        message = "the database has no Penstock schemas yet: start it once with `bash ops/up`"
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        message = f"the database cannot be used ({error}): is `penstock up` running?"
    click.echo(f"penstock: {message}", err=True)
    sys.exit(1)


async def announce(told: Settings, *changed: Change) -> None:
    """Tell gateways and controllers what changed, so that they need not wait for their next look."""
    changes = Changes(told.redis_url)
    for change in changed:
        await changes.tell(change)
    await changes.close()


async def _with_connection(told: Settings, work: Work[T]) -> T:
    connection = await database.connect(told.database_url, "command")
    try:
        await actor.tell_command(connection)
        return await work(told, connection)
    finally:
        await connection.close()
