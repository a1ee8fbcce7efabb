"""What a reconciliation says: differences, with the requests that explain them, and what is no difference."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

REQUESTS_MAX = 20
"""Requests named with one difference; the rest is counted."""
UNBILLED_MAX = 1000
"""Unbilled requests listed; the rest is in the sums."""


class Compared(enum.StrEnum):
    """What was compared beside `invariants.Check`, whose values stand in `Difference.check` too."""

    WORK_IS_RECORDED = "work_is_recorded"
    """What an engine worked on has a usage record."""
    RECORDS_ARE_COUNTS = "records_are_counts"
    """A charged request's record is the engine's own count."""
    RECORDS_HAVE_WORK = "records_have_work"
    """What is charged was worked on by the engine it names."""
    COUNTERS_ARE_RECEIPTS = "counters_are_receipts"
    """The totals that an engine shows are the sums of its receipts."""
    SHIPPED_IS_THERE = "shipped_is_there"
    """Every journal record behind its cursor is an event."""
    EVENTS_ARE_RECORDS = "events_are_records"
    """An event says what its journal record says."""
    JOURNALS_ARE_WHOLE = "journals_are_whole"
    """No journal file or frame is set aside."""
    MINUTES_ARE_INTERVALS = "minutes_are_intervals"
    """The minutes charged are those that begin in the recorded intervals, at the price in force then."""
    INTERVALS_ARE_APART = "intervals_are_apart"
    """A subject runs once at a time."""
    MINUTES_ARE_BOOKED = "minutes_are_booked"
    """Each transaction for minutes books exactly the charges that name it."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Two numbers that should be one."""

    check: str
    """A value of `Compared` or of `invariants.Check`."""
    what: str
    found: str
    expected: str
    requests: list[str] = []
    """The requests that explain it, as far as they are known; at most REQUESTS_MAX."""
    requests_more: int = 0


class Unbilled(msgspec.Struct, frozen=True, kw_only=True):
    """Work that was done and is charged to nobody, by our own rules: no difference."""

    request_id: str
    replica: str
    reason: str
    input_tokens: int
    output_tokens: int


class Examined(msgspec.Struct, kw_only=True):
    """How much was looked at: a reconciliation of nothing finds nothing."""

    events: int = 0
    journal_records: int = 0
    engine_requests: int = 0
    engine_boots: int = 0
    charged_intervals: int = 0


class InFlight(msgspec.Struct, kw_only=True):
    """What is still on its way, and so not compared to its end."""

    journal_records: int = 0
    """Records in journals of this host that are not in Postgres yet."""
    engine_requests: int = 0
    """Requests that engines were done with after the window's end."""


class Report(msgspec.Struct, kw_only=True):
    """One reconciliation."""

    since: datetime | None
    """None for everything there is."""
    until: datetime
    began_at: datetime
    took_ms: int = 0
    examined: Examined
    in_flight: InFlight
    differences: list[Difference] = []
    unbilled: list[Unbilled] = []
    unbilled_requests: int = 0
    unbilled_tokens: int = 0
    """Input and output tokens of all of them."""
    notes: list[str] = []
    """What could not be compared, and why."""


def difference(
    check: str, what: str, found: object, expected: object, requests: list[str] | None = None
) -> Difference:
    """Make a difference, with as many of its requests as are named."""
    named = sorted(set(requests or []))
    return Difference(
        check=str(check),
        what=what,
        found=str(found),
        expected=str(expected),
        requests=named[:REQUESTS_MAX],
        requests_more=max(0, len(named) - REQUESTS_MAX),
    )
