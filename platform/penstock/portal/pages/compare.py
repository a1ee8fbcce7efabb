"""Models side by side: what they are, what they cost, how fast they were, what a month would cost."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.sessions import Visitor
from penstock.edge.api import model_questions
from penstock.edge.api.model_questions import COMPARED_MAX
from penstock.edge.catalog import Catalog
from penstock.edge.refusals import NotFound
from penstock.portal.frame import Frame
from penstock.portal.pages.models import comparing
from penstock_billing.estimates import DAYS_PER_MONTH, Estimate, Traffic
from penstock_billing.prices import PriceVersion
from penstock_billing.speeds import NOTHING, Speed
from penstock_catalog.cards import Capability
from penstock_catalog.search import Listed

QUESTIONS = (
    ("requests_per_day", "Requests per day"),
    ("input_tokens", "Input tokens per request"),
    ("cached_tokens", "Of these, cached"),
    ("output_tokens", "Output tokens per request"),
)


class Column(NamedTuple):
    """One model."""

    listed: Listed
    price: PriceVersion | None
    speed: Speed
    cost: Estimate | None


class Best(NamedTuple):
    """The best of each figure; None where no two differ."""

    input: int | None
    output: int | None
    first_token: int | None
    rate: float | None
    month: int | None


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    catalog, pool = frame.world.catalog, frame.world.pool

    @get("/compare")
    async def compare(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        pairs = list(request.query_params.multi_items())
        asked = list(
            dict.fromkeys(value.strip() for name, value in pairs if name == "model" and value.strip())
        )
        listed, problems = _find(catalog, visitor.organisation_id, asked)
        traffic, wrong = model_questions.traffic_of(pairs)
        part = "hx-request" in request.headers and "hx-history-restore-request" not in request.headers
        models = [each.card.id for each in listed]
        # Reckoning again with other numbers needs no speeds.
        speeds = {} if part else await catalog.speeds(pool, models)
        columns = [
            _column(catalog, visitor.organisation_id, each, speeds.get(each.card.id, NOTHING), traffic, wrong)
            for each in listed
        ]
        typed = {name: value for name, value in pairs if name in Traffic.__struct_fields__}
        values = {name: str(getattr(traffic, name)) for name, _ in QUESTIONS} | typed
        answer = frame.page(
            request,
            "compare.html",
            visitor,
            block="costs" if part else None,
            columns=columns,
            models=models,
            problems=problems,
            capabilities=[
                each for each in Capability if any(each in one.listed.card.capabilities for one in columns)
            ],
            best=best(columns),
            questions=QUESTIONS,
            values=values,
            errors=wrong,
            days=DAYS_PER_MONTH,
            without={each: _address([other for other in models if other != each], typed) for each in models},
            others=[card for card in frame.world.shelf.cards if card.id not in models],
            room=len(models) < COMPARED_MAX,
            typed=typed,
        )
        if part:
            answer.headers["hx-replace-url"] = _address(models, typed)
        return answer

    return [compare]


def best(columns: list[Column]) -> Best:
    """Which figures to point at: the lowest price and time, the highest rate."""
    prices = [each.price for each in columns if each.price is not None]
    speeds = [each.speed for each in columns]
    return Best(
        _lowest([each.input_pico_usd for each in prices]),
        _lowest([each.output_pico_usd for each in prices]),
        _lowest([each.first_token_p50_us for each in speeds]),
        -lowest
        if (lowest := _lowest([-rate for each in speeds if (rate := each.tokens_per_s_p50) is not None]))
        is not None
        else None,
        _lowest([each.cost.month_nano_usd for each in columns if each.cost is not None]),
    )


def _lowest(values: list[Any]) -> Any:
    known = {value for value in values if value is not None}
    return min(known) if len(known) > 1 else None


def _find(catalog: Catalog, organisation_id: int, asked: list[str]) -> tuple[list[Listed], list[str]]:
    """The models that are there, and in words what became of the others."""
    found: list[Listed] = []
    problems: list[str] = []
    for model in asked:
        if len(found) == COMPARED_MAX:
            problems.append(
                f"At most {COMPARED_MAX} models are compared at once, so {model[:100]} is left out."
            )
            continue
        try:
            found.append(catalog.find(organisation_id, model))
        except NotFound as error:
            problems.append(f"{str(error)[:1].upper()}{str(error)[1:]}.".replace("?.", "?"))
    return found, problems


def _column(
    catalog: Catalog,
    organisation_id: int,
    listed: Listed,
    speed: Speed,
    traffic: Traffic,
    wrong: dict[str, str],
) -> Column:
    model = listed.card.id
    return Column(
        listed,
        catalog.price(organisation_id, model),
        speed,
        None if wrong else catalog.estimate(organisation_id, model, traffic),
    )


def _address(models: list[str], typed: dict[str, str]) -> str:
    return comparing(models) + ("&" + urlencode(typed) if typed else "")
