"""`/api/v1/models`: searching the catalog, and all that is known of one model. (`/v1/models` is OpenAI's.)"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access.keyring import Principal
from penstock.edge.api import model_questions
from penstock.edge.catalog import Catalog, Details
from penstock.edge.refusals import BadRequest
from penstock_base import money
from penstock_billing import price_history, speeds
from penstock_billing.estimates import DAYS_PER_MONTH
from penstock_billing.price_history import Asked as Whose
from penstock_billing.price_units import UNITS, token_prices
from penstock_billing.prices import PriceBook
from penstock_billing.speeds import Speed
from penstock_catalog.cards import ModelCard
from penstock_catalog.search import Found, Listed

LIMIT_MAX = 500
PUBLIC = (
    "id", "name", "publisher", "summary", "task", "capabilities", "languages", "licence", "licence_url",
    "parameters", "active_parameters", "weight_bits", "context_length", "max_output_tokens",
    "embedding_dimensions", "released", "gpu_memory_gib", "demonstration", "notes", "endpoints",
)  # fmt: skip
"""Of a card: what people read. How it is run, and from which folder, is the operator's."""


def routes(catalog: Catalog, pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers."""

    @get("/api/v1/models", sync_to_thread=False)
    def search(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        limit: FromQuery[int] = 50,
        offset: FromQuery[int] = 0,
    ) -> dict[str, Any]:
        if not 1 <= limit <= LIMIT_MAX or offset < 0:
            raise BadRequest(f"limit is from 1 to {LIMIT_MAX}, and offset 0 or more", param="limit")
        asked, problems = model_questions.understand(request.query_params.multi_items())
        for name, problem in problems:
            raise BadRequest(problem, param=name)
        found = catalog.search(principal.organisation_id, asked)
        return answer(catalog, principal.organisation_id, found, limit, offset)

    @get("/api/v1/models/{publisher:str}/{name:str}")
    async def show(
        principal: NamedDependency[Principal], publisher: FromPath[str], name: FromPath[str]
    ) -> dict[str, Any]:
        listed = catalog.find(principal.organisation_id, f"{publisher}/{name}")
        details = await catalog.details(pool, listed.card)
        return whole(catalog, principal.organisation_id, listed, details)

    @get("/api/v1/models/{publisher:str}/{name:str}/prices", sync_to_thread=False)
    def show_prices(
        principal: NamedDependency[Principal], publisher: FromPath[str], name: FromPath[str]
    ) -> dict[str, Any]:
        model = catalog.find(principal.organisation_id, f"{publisher}/{name}").card.id
        return {
            "model": model,
            "usd_per": {unit.name: unit.per for unit in UNITS},
            "data": prices(catalog.prices, principal.organisation_id, model),
        }

    @get("/api/v1/models/{publisher:str}/{name:str}/speed")
    async def show_speed(
        principal: NamedDependency[Principal], publisher: FromPath[str], name: FromPath[str]
    ) -> dict[str, Any]:
        model = catalog.find(principal.organisation_id, f"{publisher}/{name}").card.id
        days = (await speeds.by_day(pool, [model]))[model]
        return {
            "model": model,
            **speed_fields((await catalog.speeds(pool, [model]))[model]),
            "days": _days(days),
        }

    @get("/api/v1/estimates", sync_to_thread=False)
    def reckon(
        request: Request[Any, Any, Any],
        principal: NamedDependency[Principal],
        model: FromQuery[list[str]],
    ) -> dict[str, Any]:
        traffic, problems = model_questions.traffic_of(request.query_params.multi_items())
        for name, problem in problems.items():
            raise BadRequest(f"{name}: {problem}", param=name)
        data = []
        for each in model_questions.check_compared(model):
            card = catalog.find(principal.organisation_id, each).card
            cost = catalog.estimate(principal.organisation_id, card.id, traffic)
            data.append(
                {
                    "model": card.id,
                    "usd_per_request": None if cost is None else money.nano_to_usd(cost.request_nano_usd),
                    "usd_per_day": None if cost is None else money.nano_to_usd(cost.day_nano_usd),
                    "usd_per_month": None if cost is None else money.nano_to_usd(cost.month_nano_usd),
                }
            )
        return {"traffic": msgspec.to_builtins(traffic), "days_per_month": DAYS_PER_MONTH, "data": data}

    return [search, show, show_prices, show_speed, reckon]


def answer(catalog: Catalog, organisation_id: int, found: Found, limit: int, offset: int) -> dict[str, Any]:
    """What a search found, as JSON."""
    return {
        "total": len(found.hits),
        "data": [fields(catalog, organisation_id, hit.listed) for hit in found.hits[offset : offset + limit]],
        "facets": {
            facet.value: [
                {
                    "value": model_questions.value_text(facet, choice.value),
                    "count": choice.count,
                    "chosen": choice.chosen,
                }
                for choice in choices
            ]
            for facet, choices in found.facets.items()
        },
        "without": {facet.value: count for facet, count in found.widened.items()},
    }


def fields(catalog: Catalog, organisation_id: int, listed: Listed) -> dict[str, Any]:
    """One model in a list."""
    price = catalog.price(organisation_id, listed.card.id)
    return {
        **card_fields(listed.card),
        "state": listed.state.value,
        "state_reason": listed.reason,
        "prices_usd_per_1m_tokens": None if price is None else token_prices(price),
        "speed": speed_fields(catalog.speed(listed.card.id)),
    }


def whole(catalog: Catalog, organisation_id: int, listed: Listed, details: Details) -> dict[str, Any]:
    """All that is known of one model."""
    fit = details.fit
    return {
        **fields(catalog, organisation_id, listed),
        "speed": speed_fields(details.speed),
        "prices": prices(catalog.prices, organisation_id, listed.card.id),
        "days": _days(details.days),
        "versions": [msgspec.to_builtins(each) for each in details.versions],
        "hardware": None
        if fit is None
        else {
            "fits": fit.problem is None,
            "reason": fit.problem,
            "memory_gib": round(fit.memory_gib, 1),
            "gpus": fit.gpus,
            "smallest_instance_type": None if fit.smallest is None else fit.smallest.name,
            "instance_types": [
                {
                    "name": each.name,
                    "memory_gib": round(each.memory_gib, 1),
                    "fits": not reason,
                    "reason": reason,
                }
                for each, reason in fit.types
            ],
        },
        "adapters": [
            {"name": each.name, "model": f"{each.base_model}:{each.name}", "version": each.number}
            for each in catalog.adapters(organisation_id, listed.card.id)
        ],
    }


def card_fields(card: ModelCard) -> dict[str, Any]:
    """What a card tells people."""
    return {name: msgspec.to_builtins(getattr(card, name)) for name in PUBLIC}


def prices(book: PriceBook, organisation_id: int, model: str) -> list[dict[str, Any]]:
    """Every price that the organisation had, has or will have for a model, in order of time."""
    held = price_history.of_model(book, Whose(organisation_id=organisation_id), model, datetime.now(UTC))
    return [price_history.told(each, book) for each in held]


def speed_fields(speed: Speed) -> dict[str, Any]:
    """What was measured, in the units of the API."""

    def ms(us: int | None) -> float | None:
        return None if us is None else round(us / 1000, 1)

    def rate(per_s: float | None) -> float | None:
        return None if per_s is None else round(per_s, 1)

    return {
        "requests": speed.requests,
        "first_token_p50_ms": ms(speed.first_token_p50_us),
        "first_token_p90_ms": ms(speed.first_token_p90_us),
        "tokens_per_s_p50": rate(speed.tokens_per_s_p50),
        "tokens_per_s_p10": rate(speed.tokens_per_s_p10),
        "answer_p50_ms": ms(speed.answer_p50_us),
        "answer_p90_ms": ms(speed.answer_p90_us),
    }


def _days(days: list[speeds.SpeedOfDay]) -> list[dict[str, Any]]:
    return [{"day": each.day, **speed_fields(each.speed)} for each in days]
