"""The management API of single requests: `/api/v1/requests`. The tenant comes from the credential only.

Endpoints' own keys are let in too: who calls an endpoint may know what became of its requests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access.keyring import Principal
from penstock.edge.api import request_lookup, request_questions, request_stages
from penstock.edge.api.request_questions import Asked
from penstock.edge.refusals import NotFound
from penstock.endpoints import serverless
from penstock_billing import requests


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get("/api/v1/requests")
    async def list_requests(
        caller: NamedDependency[Principal],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        model: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        endpoint: FromQuery[str | None] = None,
        project: FromQuery[str | None] = None,
        outcome: FromQuery[str | None] = None,
        status: FromQuery[str | None] = None,
        longer_than: FromQuery[str | None] = None,
        id: FromQuery[str | None] = None,  # noqa: A002 - its name in the URL
        within: FromQuery[str | None] = None,
        after: FromQuery[str | None] = None,
        limit: FromQuery[int] = request_questions.LIMIT_DEFAULT,
    ) -> dict[str, Any]:
        asked = Asked(
            since=since,
            until=until,
            model=model,
            key=key,
            endpoint=endpoint,
            project=project,
            outcome=outcome,
            status=status,
            longer_than=longer_than,
            id=id,
            within=within,
            after=after,
            limit=limit,
        )
        seen = await _seen(pool, caller)
        wanted = request_questions.read(caller.organisation_id, asked, datetime.now(UTC), seen)
        found = await request_questions.answer(pool, wanted)
        return {
            "since": wanted.since,
            "until": wanted.until,
            "data": [request_stages.summary(one) for one in found],
            "next_after": request_questions.next_after(found, wanted.limit),
            "archived_days": await requests.filed_days(pool, wanted.since, wanted.until),
        }

    @get("/api/v1/requests/{request_id:str}")
    async def show_request(caller: NamedDependency[Principal], request_id: FromPath[str]) -> dict[str, Any]:
        seen = await _seen(pool, caller)
        now = datetime.now(UTC)
        found = await request_lookup.look_up(pool, caller.organisation_id, request_id, now, seen)
        if isinstance(found, request_lookup.NotFound):
            raise NotFound(found.text)
        return found.explained()

    return [list_requests, show_request]


async def _seen(pool: asyncpg.Pool, caller: Principal) -> list[str] | None:
    """The keys whose requests a caller may see: an endpoint's own key sees those of that endpoint's keys.

    None: all of its organisation.
    """
    if caller.endpoint_id is None:
        return None
    return await serverless.key_ids(pool, caller.endpoint_id)
