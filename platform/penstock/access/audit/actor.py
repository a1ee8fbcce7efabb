"""In whose name a change is made: known where somebody is recognised, told to Postgres with the change.

Triggers (`migrations/`) write the audit log and read the setting `penstock.actor` of their connection. A
connection that a pool hands out is told only while a request that changes something is answered: what reads,
and the way of tokens, pays nothing. Who tells nothing is still noted, as the process or account it is.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from contextvars import ContextVar
from enum import StrEnum

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

TELL = "select set_config('penstock.actor', $1, false)"
ADDRESS_MAX = 100


class ActorKind(StrEnum):
    """What somebody who changes something is."""

    PERSON = "person"
    """Somebody signed in to the portal."""
    KEY = "key"
    """A program, by its API key."""
    COMMAND = "command"
    """Whoever ran `penstock` on the machine."""
    VISITOR = "visitor"
    """A browser in which nobody is signed in."""
    SYSTEM = "system"
    """One of our processes, by itself."""
    DATABASE = "database"
    """Somebody who wrote SQL, by the account they did it with."""


class Deed(msgspec.Struct, omit_defaults=True):
    """A request that changes something, and who it is from as soon as that is known."""

    kind: ActorKind
    id: str = ""
    name: str = ""
    request_id: str = ""
    address: str = ""

    def by(self, kind: ActorKind, name_id: str, name: str = "") -> None:
        """Say who it is from; a key's name is looked up by whoever writes the entry."""
        self.kind, self.id, self.name = kind, name_id, name


_deed: ContextVar[Deed | None] = ContextVar("deed", default=None)


def current() -> Deed | None:
    """The request that is answered, if it may change something."""
    return _deed.get()


@contextlib.contextmanager
def answering(request_id: str, address: str) -> Iterator[Deed]:
    """Have changes made inside noted as this request's; `by` says later whose it is."""
    deed = Deed(ActorKind.VISITOR, request_id=request_id, address=address[:ADDRESS_MAX])
    token = _deed.set(deed)
    try:
        yield deed
    finally:
        _deed.reset(token)


async def tell(connection: asyncpg.Connection | PoolConnectionProxy) -> None:
    """Tell a connection that a pool hands out in whose name it is used; asyncpg forgets it on its return."""
    deed = _deed.get()
    if deed is not None:
        await connection.execute(TELL, msgspec.json.encode(deed).decode())


async def tell_command(connection: asyncpg.Connection) -> None:
    """Tell a command's connection which account of the machine runs it."""
    deed = Deed(ActorKind.COMMAND, name=_account())
    await connection.execute(TELL, msgspec.json.encode(deed).decode())


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A number that has no name, as in some containers.
        return "unknown account"
