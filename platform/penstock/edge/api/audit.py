"""The management API of the audit log: `/api/v1/audit`. The tenant comes from the credential only."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.access.audit import entries
from penstock.access.audit.entries import Asked, Entry, UnreadablePlace
from penstock.access.keyring import Principal
from penstock.edge.api.usage_questions import midnight
from penstock.edge.refusals import BadRequest

PATH = "/api/v1/audit"
LIMIT_DEFAULT, LIMIT_MAX = 50, 200


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get(PATH)
    async def show_audit(
        principal: NamedDependency[Principal],
        who: FromQuery[str] = "",
        what: FromQuery[str] = "",
        action: FromQuery[str] = "",
        name: FromQuery[str] = "",
        since: FromQuery[str] = "",
        until: FromQuery[str] = "",
        after: FromQuery[str] = "",
        limit: FromQuery[int] = LIMIT_DEFAULT,
    ) -> dict[str, Any]:
        asked = question(
            principal.organisation_id, who=who, what=what, action=action, name=name, since=since, until=until
        )
        if not 1 <= limit <= LIMIT_MAX:
            raise BadRequest(f"limit is {limit}: 1 to {LIMIT_MAX} are shown at once", param="limit")
        try:
            place = entries.read_place(after)
        except UnreadablePlace as error:
            raise BadRequest(str(error), param="after") from None
        found = await entries.page(pool, asked, place, limit)
        more = str(found[-1].place) if len(found) == limit else None
        return {"data": [shown(each) for each in found], "next_after": more}

    return [show_audit]


def question(
    organisation_id: int | None,
    *,
    who: str = "",
    what: str = "",
    action: str = "",
    name: str = "",
    since: str = "",
    until: str = "",
) -> Asked:
    """What is asked for; raises BadRequest with the words there are, and for what is no day or moment."""
    for param, text, choices in (("what", what, entries.THINGS), ("action", action, entries.ACTIONS)):
        if text and text not in choices:
            raise BadRequest(f"{param} is {text[:40]!r}: it may be {', '.join(choices)}", param=param)
    return Asked(
        organisation_id=organisation_id,
        since=_moment("since", since, entries.BEGINNING, days=0),
        until=_moment("until", until, entries.END, days=1),
        who=who[:200],
        thing=what,
        action=action,
        name=name[:200],
    )


def shown(entry: Entry) -> dict[str, Any]:
    """An entry as programs read it."""
    return {
        "id": entry.id,
        "at": entry.at,
        "actor": {"kind": entry.actor_kind.value, "id": entry.actor_id, "name": entry.actor_name},
        "request_id": entry.request_id or None,
        "address": entry.address or None,
        "action": entry.action,
        "object": {"kind": entry.object, "id": entry.object_id, "name": entry.object_name},
        "before": entry.before,
        "after": entry.after,
    }


def _moment(param: str, text: str, missing: datetime, *, days: int) -> datetime:
    """A UTC day, of which `until` is the last that counts, or a moment with its zone; raises BadRequest."""
    if not text:
        return missing
    try:
        if len(text) == len("2026-11-21"):
            return midnight(date.fromisoformat(text) + timedelta(days=days))
        found = datetime.fromisoformat(text.replace(" ", "+"))
        if found.tzinfo is not None:
            return found
    except (ValueError, OverflowError):
        pass
    raise BadRequest(
        f"{param} is {text[:40]!r}: write a UTC day as 2026-11-21, or a moment as 2026-11-21T09:00:00Z",
        param=param,
    )
