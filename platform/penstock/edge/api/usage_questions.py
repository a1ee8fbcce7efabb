"""Questions about usage as they stand in a URL, and their answers as JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import msgspec

from penstock.edge.refusals import BadRequest
from penstock_base import money
from penstock_billing import usage
from penstock_billing.minutes import MinuteUsage
from penstock_billing.usage import Dimension, Freshness, Question, Step, UsageLine

DAYS_DEFAULT = 30
DAYS_MAX = {Step.TOTAL: 4000, Step.DAY: 400, Step.HOUR: 62, Step.MINUTE: 2}
"""How much time may be asked for at once, by step."""
YEARS = range(2000, 2101)
NAME_MAX = 256
PROJECT_MAX = 2**63 - 1
WORDS = [Step.DAY.value, Step.HOUR.value, Step.MINUTE.value, *(each.value for each in Dimension)]


class Asked(NamedTuple):
    """The query parameters, as they came; None where there is none."""

    since: str | None = None
    until: str | None = None
    by: str | None = None
    project: str | None = None
    key: str | None = None
    model: str | None = None
    endpoint: str | None = None


def read(organisation_id: int, asked: Asked, now: datetime) -> Question:
    """Understand a question; raises BadRequest naming the parameter and what would be accepted.

    Days are UTC and both included; a moment (`2026-11-21T10:00Z`) ends the window before it. By default it is
    the last 30 days, by day and model.
    """
    step, by = _division(asked.by)
    since, until = bounded(asked.since, asked.until, now, min(DAYS_DEFAULT, DAYS_MAX[step]))
    if until - since > timedelta(days=DAYS_MAX[step]):
        raise BadRequest(f"at most {DAYS_MAX[step]} days at once with the step {step.value!r}", param="since")
    return Question(
        organisation_id=organisation_id,
        since=since,
        until=until,
        step=step,
        by=by,
        project_id=project(asked.project),
        key_id=named("key", asked.key),
        model=named("model", asked.model),
        endpoint=named("endpoint", asked.endpoint),
    )


class Minutes(msgspec.Struct, frozen=True, kw_only=True):
    """Minutes that were charged in a window, of one endpoint or of instances for it, at one price."""

    kind: str
    priced_as: str
    endpoint: str
    model: str
    project_id: int
    nano_usd_per_minute: int
    minutes: int
    cost_nano_usd: int


def minutes(question: Question, charged: list[MinuteUsage]) -> list[Minutes]:
    """Sum up the minutes that a question is about; those of no key are in no answer about one."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    asked = (("project_id", question.project_id), ("model", question.model), ("endpoint", question.endpoint))
    for each in charged if question.key_id is None else ():
        if any(wanted is not None and getattr(each, field) != wanted for field, wanted in asked):
            continue
        what = (each.kind.value, each.priced_as, each.endpoint, each.model, each.project_id)
        sums.setdefault((*what, each.nano_usd_per_minute), [0, 0])
        sums[(*what, each.nano_usd_per_minute)][0] += each.minutes
        sums[(*what, each.nano_usd_per_minute)][1] += each.cost_nano_usd
    names = Minutes.__struct_fields__
    return [Minutes(**dict(zip(names, (*what, *sums[what]), strict=True))) for what in sorted(sums)]


def answer(
    question: Question, lines: list[UsageLine], charged: list[MinuteUsage], fresh: Freshness
) -> dict[str, Any]:
    """Lay an answer out: the window as it was understood, how fresh it is, a line per part, and minutes."""
    first, last = bounds(question)
    return {
        "since": first,
        "until": last,
        "as_of": fresh.as_of,
        "latest_minute": fresh.latest_minute,
        "data": [told(question, line) for line in lines],
        "minutes": [
            msgspec.to_builtins(each) | {"cost_usd": money.nano_to_usd(each.cost_nano_usd)}
            for each in minutes(question, charged)
        ],
    }


def bounds(question: Question) -> tuple[date, date] | tuple[datetime, datetime]:
    """First and last day where the window is whole days, otherwise its beginning and its end."""
    if question.since.time() == time() == question.until.time() and question.since < question.until:
        return question.since.date(), (question.until - timedelta(days=1)).date()
    return question.since, question.until


def told(question: Question, line: UsageLine) -> dict[str, Any]:
    """One line, with its cost in dollars beside the exact integer."""
    cost = {"cost_usd": money.nano_to_usd(line.cost_nano_usd)}
    return usage.parts(question, line) | usage.sums(line) | cost


def midnight(day: date) -> datetime:
    """The moment a UTC day begins."""
    return datetime.combine(day, time(), UTC)


def bounded(since: str | None, until: str | None, now: datetime, days: int) -> tuple[datetime, datetime]:
    """Read a window, by default the last `days` UTC days; its end is the first moment that is not in it.

    Raises BadRequest.
    """
    last_day, end = _moment("until", until)
    last = last_day or now.astimezone(UTC).date()
    ends = end or midnight(last + timedelta(days=1))
    first_day, beginning = _moment("since", since)
    begins = beginning or (midnight(first_day) if first_day else ends - timedelta(days=days))
    if begins >= ends:
        raise BadRequest(
            f"since ({since or begins.date()}) must be before the end of until ({until or last})",
            param="since",
        )
    return begins, ends


def _division(text: str | None) -> tuple[Step, frozenset[Dimension]]:
    words = ["day", "model"] if text is None else [word for word in text.split(",") if word]
    if unknown := [word for word in words if word not in WORDS]:
        raise BadRequest(f"by has {unknown[0][:40]!r}: it may have {', '.join(WORDS)}, by commas", param="by")
    steps = [Step(word) for word in dict.fromkeys(words) if word in set(Step)]
    if len(steps) > 1:
        raise BadRequest(f"by has {steps[0].value} and {steps[1].value}: choose one of them", param="by")
    return steps[0] if steps else Step.TOTAL, frozenset(
        Dimension(word) for word in words if word in set(Dimension)
    )


def _moment(param: str, text: str | None) -> tuple[date | None, datetime | None]:
    """Read a day or a moment, whichever it is."""
    if text is None:
        return None, None
    wrong = BadRequest(
        f"{param} is {text[:40]!r}: write a day as 2026-11-21, or a whole minute as 2026-11-21T10:00Z",
        param=param,
    )
    try:
        day = date.fromisoformat(text) if len(text) <= 10 else None
        moment = None if day else datetime.fromisoformat(text)
    except ValueError:
        raise wrong from None
    if moment is not None:
        if moment.tzinfo is None or moment.second or moment.microsecond or moment.year not in YEARS:
            raise wrong
        return None, moment.astimezone(UTC)
    assert day is not None
    if day.year not in YEARS:
        raise wrong
    return day, None


def project(text: str | None) -> int | None:
    """Read a project's number; raises BadRequest."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= PROJECT_MAX):
        raise BadRequest(f"project is {text[:40]!r}: it must be a project's number", param="project")
    return int(text)


def named(param: str, text: str | None) -> str | None:
    """Check a name; raises BadRequest for what Postgres cannot hold, or no name is."""
    if text is not None and (len(text) > NAME_MAX or not text.isprintable()):
        raise BadRequest(
            f"{param} must be at most {NAME_MAX} characters, none of them a control character", param=param
        )
    return text
