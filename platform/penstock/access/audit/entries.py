"""Reading the audit log: page by page, the newest first, by who, what and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from penstock.access.audit.actor import ActorKind
from penstock_base import queries

SQL = queries.load("penstock.access.audit", "entries.sql")

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 1, 1, tzinfo=UTC)
ID_MAX = 2**63 - 1

THINGS = (
    "API key",
    "adapter",
    "adapter version",
    "budget",
    "endpoint",
    "invitation",
    "ledger transaction",
    "member",
    "organisation",
    "person",
    "plan",
    "pool",
    "pool version",
    "price",
    "price list",
    "price list of an organisation",
    "price of a minute",
    "project",
    "promotional credit",
    "second factor",
    "wallet",
)
"""Every kind of thing that the triggers watch, in the words they use."""
ACTIONS = ("created", "changed", "removed", "revoked")


class Place(msgspec.Struct, frozen=True):
    """Where a page begins: behind this entry."""

    at: datetime
    id: int

    def __str__(self) -> str:
        return f"{self.at.isoformat()}/{self.id}"


FIRST = Place(END, ID_MAX)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are asked for; what is None or empty is not asked about."""

    organisation_id: int | None
    """None: of every organisation, and the installation's own; for operators alone."""
    since: datetime = BEGINNING
    until: datetime = END
    who: str = ""
    """Part of the name of whoever did it, or their whole id."""
    thing: str = ""
    action: str = ""
    name: str = ""
    """Part of the name of what was changed, or its whole id."""


class Entry(msgspec.Struct, frozen=True):
    """One change to one thing."""

    id: int
    at: datetime
    organisation_id: int | None
    actor_kind: ActorKind
    actor_id: str
    actor_name: str
    request_id: str
    address: str
    action: str
    object: str
    object_id: str
    object_name: str
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def place(self) -> Place:
        """Where the page after this entry begins."""
        return Place(self.at, self.id)


class UnreadablePlace(Exception):
    """A place that none of our pages named."""


def read_place(text: str) -> Place:
    """The place that a page before named as the next; raises UnreadablePlace."""
    if not text:
        return FIRST
    moment, _, number = text.partition("/")
    try:
        at = datetime.fromisoformat(moment.replace(" ", "+"))
        if at.tzinfo is not None and 0 <= int(number) <= ID_MAX:
            return Place(at, int(number))
    except ValueError:
        pass
    raise UnreadablePlace("a page begins at the place that the page before named as the next")


async def page(
    pool: asyncpg.Pool | asyncpg.Connection, asked: Asked, before: Place, limit: int
) -> list[Entry]:
    """Up to `limit` entries that come after a place."""
    rows = await pool.fetch(
        SQL["page"],
        asked.organisation_id,
        asked.since,
        asked.until,
        before.at,
        before.id,
        _part(asked.who),
        asked.who,
        asked.thing or None,
        asked.action or None,
        _part(asked.name),
        asked.name,
        limit,
    )
    return [_entry(row) for row in rows]


async def organisations(pool: asyncpg.Pool | asyncpg.Connection, found: list[Entry]) -> dict[int, str]:
    """Names of the organisations that entries are about."""
    ids = {each.organisation_id for each in found if each.organisation_id is not None}
    return {row["id"]: row["name"] for row in await pool.fetch(SQL["organisations"], list(ids))}


async def names(pool: asyncpg.Pool | asyncpg.Connection, found: list[Entry]) -> dict[str, dict[str, str]]:
    """What the ids in fields are called, by field and id as text."""
    called: dict[str, dict[str, str]] = {}
    for field, query in (("project_id", "projects"), ("key_id", "keys"), ("price_list_id", "price_lists")):
        sides = [side.get(field) for entry in found for side in (entry.before, entry.after)]
        if ids := list({side for side in sides if side}):
            called[field] = {str(row["id"]): row["name"] for row in await pool.fetch(SQL[query], ids)}
    return called


def _part(text: str) -> str | None:
    if not text:
        return None
    return "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"


def _entry(row: asyncpg.Record) -> Entry:
    fields = dict(row)
    fields["actor_kind"] = ActorKind(fields["actor_kind"])
    for side in ("before", "after"):
        fields[side] = msgspec.json.decode(fields[side])
    return Entry(**fields)
