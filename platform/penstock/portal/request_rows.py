"""How requests look on pages: in a list, as bars along their time, and as the sum that became their cost."""

from __future__ import annotations

from typing import Any, NamedTuple

from penstock.access.labels import Labels
from penstock.edge.api import request_questions, request_stages
from penstock.edge.api.request_stages import Stage
from penstock_base import money
from penstock_billing import price_units
from penstock_billing.record import Outcome
from penstock_billing.requests import RecordedRequest

SHORT_ID = 8
"""Last characters of an id: its first ones tell the time, which is shown beside it."""
WRITING_US_MIN = 5_000
TONES = {Outcome.DONE: "good", Outcome.CREDIT_ENDED: "warn", Outcome.RECOVERED: "warn"}
WHOLE = 1000
"""A bar's length for the whole time of a request."""
SHORTEST = 3
OURS = tuple(each for each in Outcome if not each.billable)
"""How requests end that we could not finish."""
WAITING = {"woken", "queued", "retried"}


class Bar(NamedTuple):
    """A stage, and where it lies in the whole, of WHOLE."""

    stage: Stage
    start: int
    length: int
    kind: str
    share: str


def row(one: RecordedRequest, labels: Labels) -> dict[str, Any]:
    """A request as a line of a list."""
    return {
        "id": one.request_id,
        "short_id": one.request_id[-SHORT_ID:],
        "client_id": one.client_request_id,
        "place": request_questions.place_of(one),
        "ended_at": one.ended_at,
        "model": one.model,
        "endpoint": one.endpoint,
        "key": labels.keys.get(one.key_id) or one.key_id,
        "outcome": in_words(one.outcome),
        "tone": tone(one.outcome),
        "status": one.status,
        "first_token_us": one.first_token_us if one.streamed else 0,
        "duration_us": one.duration_us,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "cost_nano_usd": one.cost_nano_usd,
        "stored_usd": money.nano_to_usd(one.cost_nano_usd),
    }


def in_words(outcome: Outcome) -> str:
    """An outcome as people read it."""
    return outcome.value.replace("_", " ")


def tone(outcome: Outcome) -> str:
    """The colour that helps its word."""
    return "bad" if outcome in OURS else TONES.get(outcome, "")


def bars(one: RecordedRequest) -> list[Bar]:
    """The stages of a request, each as a bar in its whole time."""
    whole_us = max(one.duration_us, 1)
    return [_bar(stage, whole_us) for stage in request_stages.stages(one)]


def tokens_per_s(one: RecordedRequest) -> float | None:
    """How fast it was written after the first token; None where that cannot be told.

    What came in one piece says nothing of how fast it was made.
    """
    took_us = one.duration_us - one.first_token_us
    if not one.streamed or not one.first_token_us or one.output_tokens < 2 or took_us < WRITING_US_MIN:
        return None
    return (one.output_tokens - 1) / (took_us / 1_000_000)


def unit_label(name: str) -> str:
    """What is charged, in words."""
    return price_units.BY_NAME[name].label


def _bar(stage: Stage, whole_us: int) -> Bar:
    start = min(stage.after_us * WHOLE // whole_us, WHOLE - SHORTEST)
    length = min(max(stage.took_us * WHOLE // whole_us, SHORTEST), WHOLE - start)
    kind = "waits" if stage.stage in WAITING else stage.stage
    percent = stage.took_us * 100 / whole_us
    return Bar(
        stage,
        start,
        length,
        kind,
        "" if not stage.took_us else f"{percent:.0f} %" if percent >= 1 else "< 1 %",
    )
