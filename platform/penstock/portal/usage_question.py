"""The address of the usage page: which usage, how it is divided, and the way to its neighbours.

All of what a page shows stands in its address, so that it can be kept and sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from penstock.edge.api import usage_questions
from penstock.edge.api.usage_questions import bounded, midnight
from penstock.edge.refusals import BadRequest
from penstock_billing.usage import Dimension, Question, Step

E = TypeVar("E", bound=enum.StrEnum)

PATH = "/portal/usage"
REQUESTS = "/portal/requests"
REQUESTS_DAYS_MAX = 31
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LENGTHS = {Step.MINUTE: MINUTE, Step.HOUR: HOUR, Step.DAY: DAY}
SPAN_MAX = {Step.MINUTE: timedelta(hours=3), Step.HOUR: timedelta(days=8), Step.DAY: timedelta(days=400)}
"""How much time is shown at once, by step: so many bars can be told apart."""
FILTERS = ("model", "endpoint", "project", "key")


class Span(enum.StrEnum):
    """A stretch of time by its name; what a page of it shows moves on with the days."""

    TODAY = "today"
    YESTERDAY = "yesterday"
    WEEK = "7-days"
    MONTH = "month"
    LAST_MONTH = "last-month"
    QUARTER = "90-days"


SPANS = {
    Span.TODAY: "Today",
    Span.YESTERDAY: "Yesterday",
    Span.WEEK: "7 days",
    Span.MONTH: "Month to date",
    Span.LAST_MONTH: "Last month",
    Span.QUARTER: "90 days",
}


class By(enum.StrEnum):
    """What usage is told apart by."""

    MODEL = "model"
    ENDPOINT = "endpoint"
    PROJECT = "project"
    KEY = "key"
    UNIT = "unit"

    @property
    def dimension(self) -> Dimension:
        """What the roll-ups tell apart for it."""
        return Dimension.PRICE_VERSION if self is By.UNIT else Dimension(self.value)


class Measure(enum.StrEnum):
    """What the chart shows."""

    COST = "cost"
    REQUESTS = "requests"
    TOKENS = "tokens"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an address says, understood."""

    span: Span | None
    """None where the address names days or moments."""
    since: datetime
    until: datetime
    step: Step
    by: By
    measure: Measure
    filters: dict[str, str]
    """By parameter; an endpoint that is empty is what called models by their names."""

    def question(self, organisation_id: int, **changes: object) -> Question:
        """The same for the roll-ups."""
        fields: dict[str, object] = {
            "organisation_id": organisation_id,
            "since": self.since,
            "until": self.until,
            "project_id": usage_questions.project(self.filters.get("project")),
            "key_id": self.filters.get("key"),
            "model": self.filters.get("model"),
            "endpoint": self.filters.get("endpoint"),
        }
        return Question(**(fields | changes))  # type: ignore[arg-type]

    def parameters(self) -> dict[str, str]:
        """What stands in the address; what goes without saying does not."""
        said: dict[str, str] = {}
        if self.span is None:
            said |= {"since": written(self.since), "until": written(self.until, last=True)}
        elif self.span is not Span.MONTH:
            said["span"] = self.span.value
        if self.step is not step_for(self.until - self.since):
            said["step"] = self.step.value
        if self.by is not By.MODEL:
            said["by"] = self.by.value
        if self.measure is not Measure.COST:
            said["measure"] = self.measure.value
        return said | self.filters

    def url(self, path: str = PATH, **changes: str | None) -> str:
        """The address with some parameters changed; None and leaves one out."""
        said: dict[str, str | None] = {**self.parameters(), **changes}
        if "since" in changes or "span" in changes:
            said |= {"step": changes.get("step")}
            for other in ("span",) if "since" in changes else ("since", "until"):
                said[other] = None
        return _address(path, said)

    def inside(self, begins: datetime) -> str:
        """Where one step of the chart is looked into: the next finer one, and behind minutes the requests."""
        ends = begins + LENGTHS[self.step]
        if self.step is Step.MINUTE:
            return self.requests(begins, ends)
        return self.url(since=written(begins), until=written(ends, last=True))

    def requests(self, since: datetime | None = None, until: datetime | None = None) -> str:
        """The requests of a stretch of time, by the same filters."""
        window = {
            "since": written(since or self.since),
            "until": written(until or self.until, last=True),
        }
        return _address(REQUESTS, {**window, **self.filters})

    @property
    def trail(self) -> list[tuple[str, str]]:
        """The way back out of a day or an hour: names with addresses, the widest first."""
        if self.span is not None or self.until - self.since > DAY:
            return []
        first = self.since.astimezone(UTC)
        month = first.date().replace(day=1)
        last = (month + timedelta(days=32)).replace(day=1) - DAY
        way = [(f"{first:%B %Y}", self.url(since=month.isoformat(), until=last.isoformat()))]
        if self.until - self.since < DAY:
            day = first.date()
            way.append((spoken_day(day), self.url(since=day.isoformat(), until=day.isoformat())))
        return way

    @property
    def title(self) -> str:
        """The window in words."""
        first, last = self.since.astimezone(UTC), self.until.astimezone(UTC)
        if first.time() == last.time() == midnight(first.date()).time():
            final = last.date() - DAY
            return spoken_days(first.date(), final)
        same = first.date() == (last - MINUTE).date()
        end = f"{last:%H:%M}" if same else f"{spoken_day(last.date())}, {last:%H:%M}"
        return f"{spoken_day(first.date())}, {first:%H:%M} to {end}"


def read(query: Mapping[str, str], now: datetime) -> Asked:
    """Understand an address; raises BadRequest naming the parameter. By default it is this month by model."""
    given = {name: text.strip() for name, text in query.items()}
    span = _chosen("span", given.get("span") or None, Span)
    if given.get("since") or given.get("until"):
        span = None
        since, until = bounded(given.get("since") or None, given.get("until") or None, now, 1)
    else:
        span = span or Span.MONTH
        since, until = window(span, now)
    step = _chosen("step", given.get("step") or None, Step) or step_for(until - since)
    if step is Step.TOTAL:
        raise BadRequest("step may be day, hour or minute", param="step")
    if until - since > SPAN_MAX[step]:
        most = SPAN_MAX[step]
        told = f"{most.days} days" if most.days else f"{most // HOUR} hours"
        raise BadRequest(
            f"by {step.value}, at most {told} are shown at once: choose less time or a longer step",
            param="step" if given.get("step") else "since",
        )
    by = _chosen("by", given.get("by") or None, By) or By.MODEL
    measure = _chosen("measure", given.get("measure") or None, Measure) or Measure.COST
    if by is By.UNIT and measure is Measure.REQUESTS:
        measure = Measure.TOKENS  # a unit has no requests of its own
    filters = {
        name: text
        for name in FILTERS
        if (text := usage_questions.named(name, given.get(name))) or (name == "endpoint" and text is not None)
    }
    if filters.get("endpoint") == ANY:
        del filters["endpoint"]
    usage_questions.project(filters.get("project"))
    return Asked(
        span=span,
        since=since,
        until=until,
        step=step,
        by=by,
        measure=measure,
        filters=filters,
    )


ANY = "*"
"""In a form, the choice of all endpoints: an empty one means what called models by their names."""


def window(span: Span, now: datetime) -> tuple[datetime, datetime]:
    """The days of a span, seen from a moment."""
    today = now.astimezone(UTC).date()
    tomorrow = today + DAY
    month = today.replace(day=1)
    days = {
        Span.TODAY: (today, tomorrow),
        Span.YESTERDAY: (today - DAY, today),
        Span.WEEK: (today - 6 * DAY, tomorrow),
        Span.MONTH: (month, tomorrow),
        Span.LAST_MONTH: ((month - DAY).replace(day=1), month),
        Span.QUARTER: (today - 89 * DAY, tomorrow),
    }
    since, until = days[span]
    return midnight(since), midnight(until)


def step_for(length: timedelta) -> Step:
    """The step that divides a stretch of time so that one sees something."""
    if length <= timedelta(hours=2):
        return Step.MINUTE
    return Step.HOUR if length <= timedelta(days=2) else Step.DAY


def written(moment: datetime, *, last: bool = False) -> str:
    """A moment as an address has it: a day where it begins one (or, as the last one, ends before it)."""
    utc = moment.astimezone(UTC)
    if utc == midnight(utc.date()):
        return (utc.date() - DAY if last else utc.date()).isoformat()
    return f"{utc:%Y-%m-%dT%H:%MZ}"


def spoken_day(day: date) -> str:
    """A day in words: 1 November 2026."""
    return f"{day.day} {day:%B %Y}"


def spoken_days(first: date, last: date) -> str:
    """Days in words, nothing said twice: 1 to 21 November 2026."""
    if last <= first:
        return spoken_day(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {spoken_day(last)}"
    begins = f"{first.day} {first:%B}" if first.year == last.year else spoken_day(first)
    return f"{begins} to {spoken_day(last)}"


def _chosen(param: str, text: str | None, choices: type[E]) -> E | None:
    if text is None:
        return None
    try:
        return choices(text)
    except ValueError:
        values = ", ".join(each.value for each in choices)
        raise BadRequest(f"{param} is {text[:40]!r}: it may be {values}", param=param) from None


def _address(path: str, said: Mapping[str, str | None]) -> str:
    query = urlencode({name: text for name, text in said.items() if text is not None})
    return f"{path}?{query}" if query else path
