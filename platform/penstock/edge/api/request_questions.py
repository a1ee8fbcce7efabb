"""Questions about single requests as they stand in a URL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from penstock.edge.api import usage_questions
from penstock.edge.refusals import BadRequest
from penstock_billing.record import Outcome
from penstock_billing.requests import CLIENT_ID_DAYS, OUR_PREFIX, RecordedRequest, Wanted, window

DAYS_DEFAULT = 2
"""Today and yesterday."""
DAYS_MAX = 31
LIMIT_DEFAULT, LIMIT_MAX = 20, 200
NAME_MAX = 256


class Asked(NamedTuple):
    """The query parameters, as they came; None where there is none."""

    since: str | None = None
    until: str | None = None
    model: str | None = None
    key: str | None = None
    endpoint: str | None = None
    project: str | None = None
    outcome: str | None = None
    after: str | None = None
    limit: int = LIMIT_DEFAULT


def read(organisation_id: int, asked: Asked, now: datetime, key_ids: list[str] | None = None) -> Wanted:
    """Understand a question; raises BadRequest naming the parameter and what would be accepted.

    Days and moments as in questions about usage. `key_ids`: only these keys' requests may be seen.
    """
    since, until = usage_questions.bounded(asked.since, asked.until, now, DAYS_DEFAULT)
    if until - since > timedelta(days=DAYS_MAX):
        raise BadRequest(f"at most {DAYS_MAX} days at once", param="since")
    if not 1 <= asked.limit <= LIMIT_MAX:
        raise BadRequest(f"limit is {asked.limit}: 1 to {LIMIT_MAX} are shown at once", param="limit")
    return Wanted(
        organisation_id=organisation_id,
        since=since,
        until=until,
        key_ids=key_ids,
        key_id=usage_questions.named("key", asked.key),
        model=usage_questions.named("model", asked.model),
        endpoint=usage_questions.named("endpoint", asked.endpoint),
        project_id=usage_questions.project(asked.project),
        outcomes=_outcomes(asked.outcome),
        before=_place(asked.after, since, until),
        limit=asked.limit,
    )


def next_after(found: list[RecordedRequest], limit: int) -> str | None:
    """Where the next page begins; None behind the last one."""
    if len(found) < limit:
        return None
    # Short, and nothing in it to be escaped: people copy it, and URLs bear it.
    ended = f"{found[-1].ended_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return f"{ended}/{found[-1].event_id.hex}"


def is_id(text: str) -> bool:
    """Whether something may be the name of a request, ours or a client's."""
    return 0 < len(text) <= NAME_MAX and text.isprintable()


def why_unknown(name: str, filed: bool) -> str:
    """Say why there may be no record of a request."""
    shown = repr(name[:100])
    if filed:
        return (
            f"the requests of the day of {shown} are in an archive file only; whoever runs this platform "
            "brings them back with `penstock billing restore DAY`"
        )
    if window(name) is None:
        return (
            f"no request {shown} is recorded for this organisation. What a client called its request is "
            f"looked for among the last {CLIENT_ID_DAYS} days; our own ids, which answers have in "
            f"x-request-id, begin with {OUR_PREFIX}"
        )
    return (
        f"no request {shown} is recorded for this organisation. A record is there a second after the answer "
        "ended (later while the database is away); a request that was refused, or left before an engine "
        "took it, has none"
    )


def _outcomes(text: str | None) -> list[Outcome] | None:
    if text is None:
        return None
    known = [each.value for each in Outcome]
    words = [word for word in text.split(",") if word]
    if not words or (unknown := [word for word in words if word not in known]):
        shown = unknown[0][:40] if words else text[:40]
        raise BadRequest(f"outcome has {shown!r}: it may have {', '.join(known)}, by commas", param="outcome")
    return [Outcome(word) for word in words]


def _place(after: str | None, since: datetime, until: datetime) -> tuple[datetime, UUID] | None:
    """Where a page begins, from the `next_after` of the one before."""
    if after is None:
        return None
    moment, _, event_id = after.partition("/")
    try:
        found, identity = datetime.fromisoformat(moment), UUID(event_id)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not since <= found < until:
        raise BadRequest("after is the next_after of the page before, in the same window", param="after")
    return found, identity
