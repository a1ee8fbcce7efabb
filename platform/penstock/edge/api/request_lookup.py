"""One request by its name, with all that is said of it; or why there is none, in words."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from penstock.edge.api import request_questions, request_stages
from penstock_billing import requests
from penstock_billing.prices import PriceVersion
from penstock_billing.requests import Database, RecordedRequest

YOUNG = timedelta(minutes=15)
"""A request of ours that came so lately may not have ended, or its record not have arrived."""


class Missing(StrEnum):
    """Why there is no record of a request."""

    UNKNOWN = "unknown"
    """There is none under this name, as far as whoever asks may see."""
    COMING = "coming"
    """Its id tells that it came just now: its record may be on its way."""
    ARCHIVED = "archived"
    """Its day is in a file only."""
    NO_NAME = "no_name"
    """Nothing could be called so."""


class Found(NamedTuple):
    """A request, the prices fixed at its admission, and what gave its cost back."""

    request: RecordedRequest
    price: PriceVersion | None
    refunds: list[int]

    def explained(self) -> dict[str, Any]:
        """All of it, as `GET /api/v1/requests/{id}` answers."""
        return request_stages.explained(self.request, self.price, self.refunds)


class NotFound(NamedTuple):
    """No such request, and what can be said of that."""

    why: Missing
    text: str


async def look_up(
    database: Database, organisation_id: int, name: str, now: datetime, key_ids: list[str] | None = None
) -> Found | NotFound:
    """Find a request by our id, or by what its client called it; `key_ids` as in requests.Wanted.

    What is said of a name that is not found says nothing of what other organisations have.
    """
    if not request_questions.is_id(name):
        return NotFound(
            Missing.NO_NAME, "there is no such request: an id is printable text of at most 256 characters"
        )
    found = await requests.find(database, organisation_id, name, now, key_ids)
    if found is not None:
        price = await requests.price_of(database, found)
        return Found(found, price, await requests.refunds_of(database, organisation_id, found))
    bounds = requests.window(name)
    filed = bounds is not None and bool(await requests.filed_days(database, *bounds))
    text = request_questions.why_unknown(name, filed)
    if filed:
        return NotFound(Missing.ARCHIVED, text)
    young = bounds is not None and abs(now - (bounds[0] + requests.CLOCK_BACK)) < YOUNG
    return NotFound(Missing.COMING if young else Missing.UNKNOWN, text)
