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
from penstock.edge.api import request_questions, request_stages
from penstock.edge.api.request_questions import Asked
from penstock.edge.refusals import BadRequest, NotFound
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
        after: FromQuery[str | None] = None,
        limit: FromQuery[int] = request_questions.LIMIT_DEFAULT,
    ) -> dict[str, Any]:
        asked = Asked(since, until, model, key, endpoint, project, outcome, after, limit)
        seen = await _seen(pool, caller)
        wanted = request_questions.read(caller.organisation_id, asked, datetime.now(UTC), seen)
        try:
            found = await requests.latest(pool, wanted)
        except TimeoutError:
            raise BadRequest("that takes too long to find: ask for less time", param="since") from None
        return {
            "since": wanted.since,
            "until": wanted.until,
            "data": [request_stages.summary(one) for one in found],
            "next_after": request_questions.next_after(found, wanted.limit),
            "archived_days": await requests.filed_days(pool, wanted.since, wanted.until),
        }

    @get("/api/v1/requests/{request_id:str}")
    async def show_request(caller: NamedDependency[Principal], request_id: FromPath[str]) -> dict[str, Any]:
        if not request_questions.is_id(request_id):
            raise NotFound("there is no such request: an id is printable text of at most 256 characters")
        seen = await _seen(pool, caller)
        organisation_id = caller.organisation_id
        found = await requests.find(pool, organisation_id, request_id, datetime.now(UTC), seen)
        if found is None:
            bounds = requests.window(request_id)
            filed = bounds is not None and bool(await requests.filed_days(pool, *bounds))
            raise NotFound(request_questions.why_unknown(request_id, filed))
        price = await requests.price_of(pool, found)
        refunds = await requests.refunds_of(pool, organisation_id, found)
        return request_stages.explained(found, price, refunds)

    return [list_requests, show_request]


async def _seen(pool: asyncpg.Pool, caller: Principal) -> list[str] | None:
    """The keys whose requests a caller may see: an endpoint's own key sees those of that endpoint's keys.

    None: all of its organisation.
    """
    if caller.endpoint_id is None:
        return None
    return await serverless.key_ids(pool, caller.endpoint_id)
