"""The management API of usage: `/api/v1/usage`. The tenant comes from the credential only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.access.keyring import Principal
from penstock.edge.api import usage_questions
from penstock.edge.refusals import BadRequest
from penstock_billing import minutes, usage
from penstock_billing.errors import UsageQuestionRefused


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get("/api/v1/usage")
    async def show_usage(
        principal: NamedDependency[Principal],
        since: FromQuery[str | None] = None,
        until: FromQuery[str | None] = None,
        by: FromQuery[str | None] = None,
        project: FromQuery[str | None] = None,
        key: FromQuery[str | None] = None,
        model: FromQuery[str | None] = None,
        endpoint: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        asked = usage_questions.Asked(since, until, by, project, key, model, endpoint)
        question = usage_questions.read(principal.organisation_id, asked, datetime.now(UTC))
        try:
            lines = await usage.read(pool, question)
        except UsageQuestionRefused as error:
            raise BadRequest(str(error), param="by") from error
        fresh = await usage.freshness(pool, principal.organisation_id)
        charged = await minutes.charged(pool, question.organisation_id, question.since, question.until)
        return usage_questions.answer(question, lines, charged, fresh)

    return [show_usage]
