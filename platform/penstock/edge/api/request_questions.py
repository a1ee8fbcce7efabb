"""Questions about single requests as they stand in a URL."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from penstock.edge.api import usage_questions
from penstock.edge.refusals import BadRequest
from penstock_billing import requests
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.record import Outcome
from penstock_billing.requests import (
    CLIENT_ID_DAYS,
    OUR_PREFIX,
    Database,
    RecordedRequest,
    Wanted,
    bounds_of,
    window,
)

DAYS_DEFAULT = 2
"""Today and yesterday."""
DAYS_MAX = 31
LIMIT_DEFAULT, LIMIT_MAX = 20, 200
NAME_MAX = 256
A_DAY = timedelta(days=1)
"""A window that ends now has moved on when its next page is asked for."""
AHEAD = timedelta(minutes=5)
"""A window that ends now has room for records of gateways whose clocks are ahead."""
LONGER_THAN_MAX = timedelta(days=2)
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(ms|s|m|h|d)")
_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_STATUS = re.compile(r"[0-9]{3}|[1-5]xx")


class Asked(NamedTuple):
    """The query parameters, as they came; None where there is none."""

    since: str | None = None
    until: str | None = None
    model: str | None = None
    key: str | None = None
    endpoint: str | None = None
    project: str | None = None
    outcome: str | None = None
    status: str | None = None
    longer_than: str | None = None
    id: str | None = None
    within: str | None = None
    after: str | None = None
    limit: int = LIMIT_DEFAULT


def read(organisation_id: int, asked: Asked, now: datetime, key_ids: list[str] | None = None) -> Wanted:
    """Understand a question; raises BadRequest naming the parameter and what would be accepted.

    Days and moments as in questions about usage; an id is looked for wherever it can be, unless a time is
    named. `key_ids`: only these keys' requests may be seen.
    """
    name = _name(asked.id)
    since, until = _window(asked, name, now)
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
        statuses=_statuses(asked.status),
        longer_than_us=_longer_than_us(asked.longer_than),
        name=name,
        before=_place(asked.after, since - (A_DAY if asked.within else timedelta(0)), until),
        limit=asked.limit,
    )


async def answer(database: Database, wanted: Wanted) -> list[RecordedRequest]:
    """List what is wanted, the latest first; raises BadRequest saying what to ask for instead."""
    try:
        return await requests.latest(database, wanted)
    except SearchTookTooLong:
        raise BadRequest(too_long(wanted), param="since") from None


def too_long(wanted: Wanted) -> str:
    """What to do about a search that was stopped."""
    time = _told(wanted.until - wanted.since)
    rare = [
        word
        for word, value in (("key", wanted.key_id), ("model", wanted.model), ("endpoint", wanted.endpoint))
        if value is not None
    ]
    few = f"; few of the latest are of that {' and '.join(rare)}, so nearly all were read" if rare else ""
    return (
        f"the search through {time} was stopped after 2 s{few}. Ask for less time, such as "
        f"{'one hour' if narrower(wanted) == '1h' else '15 minutes'}, or for one request by its id"
    )


def narrower(wanted: Wanted) -> str:
    """A window in which the same search reads less, as `within` takes it."""
    return "1h" if wanted.until - wanted.since > timedelta(hours=2) else "15m"


def next_after(found: list[RecordedRequest], limit: int) -> str | None:
    """Where the next page begins; None behind the last one."""
    return place_of(found[-1]) if len(found) >= limit else None


def place_of(one: RecordedRequest) -> str:
    """Where a request stands in a list, as `after` takes it."""
    # Short, and nothing in it to be escaped: people copy it, and URLs bear it.
    ended = f"{one.ended_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return f"{ended}/{one.event_id.hex}"


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


def _window(asked: Asked, name: str | None, now: datetime) -> tuple[datetime, datetime]:
    if asked.within is not None:
        if asked.since is not None:
            raise BadRequest("within and since: name one of them", param="within")
        length_us = _duration_us("within", asked.within, timedelta(days=DAYS_MAX))
        _, until = usage_questions.bounded(None, asked.until, now, DAYS_DEFAULT)
        until = min(until, now + AHEAD) if asked.until is None else until
        return min(now, until) - timedelta(microseconds=length_us), until
    if name is not None and asked.since is None and asked.until is None:
        return bounds_of(name, now)
    since, until = usage_questions.bounded(asked.since, asked.until, now, DAYS_DEFAULT)
    if until - since > timedelta(days=DAYS_MAX):
        raise BadRequest(f"at most {DAYS_MAX} days at once", param="since")
    return since, until


def _name(text: str | None) -> str | None:
    if text is not None and not is_id(text):
        raise BadRequest(
            f"an id is printable text of at most {NAME_MAX} characters: our own, or the client's",
            param="id",
        )
    return text


def _statuses(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not _STATUS.fullmatch(text):
        raise BadRequest(
            f"status is {text[:40]!r}: write an HTTP status as 503, or 5xx for all of them", param="status"
        )
    return int(text.replace("x", "0")), int(text.replace("x", "9"))


def _longer_than_us(text: str | None) -> int | None:
    return None if text is None else _duration_us("longer_than", text, LONGER_THAN_MAX)


def _duration_us(param: str, text: str, most: timedelta) -> int:
    matched = _DURATION.fullmatch(text.strip())
    if matched is None:
        raise BadRequest(
            f"{param} is {text[:40]!r}: write a time with its unit, as 500ms, 2s, 1.5s, 3m, 1h or 2d",
            param=param,
        )
    whole, _, part = matched[1].partition(".")
    length_us = (int(whole) * 1_000 + int(part.ljust(3, "0") or 0)) * _UNITS_US[matched[2]] // 1_000
    if not 0 <= length_us <= most // timedelta(microseconds=1):
        raise BadRequest(f"{param} is {text[:40]!r}: at most {_told(most)}", param=param)
    return length_us


def _told(length: timedelta) -> str:
    """Write a time as people say it."""
    hours = round(length / timedelta(hours=1))
    if hours < 48:
        return "1 hour" if hours <= 1 else f"{hours} hours"
    return f"{round(hours / 24)} days"


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
