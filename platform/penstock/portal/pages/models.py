"""The catalog: searched as one types, and a page for each model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.api import model_questions
from penstock.edge.api.model_questions import COMPARED_MAX
from penstock.portal import formats, samples
from penstock.portal.frame import Frame
from penstock_billing import price_history
from penstock_billing.price_history import Asked as Whose
from penstock_billing.price_history import Held
from penstock_billing.price_units import TOKENS
from penstock_billing.prices import STANDARD_LIST, PriceVersion
from penstock_billing.speeds import SpeedOfDay
from penstock_catalog.cards import EndpointKind, Meaningful, ModelCard, Task
from penstock_catalog.search import FIELDS, Asked, Facet, Size, Sort, State

PATH = "/portal/models"
ROWS = 30
"""Models that a page begins with; the rest is asked for."""
ROWS_MAX = 1000
ONE_OF = (Facet.CONTEXT, Facet.PRICE)
"""Facets of which one value counts; of the others any number."""
CONTEXT_WORDS = {8_192: "8k", 32_768: "32k", 131_072: "128k", 1_000_000: "1M"}
"""As people call these lengths."""
SAMPLES_OF_PRICES = 80
"""Points of a chart of prices."""
TRIED = (Task.CHAT, Task.EMBEDDING)
"""Tasks that the playground has."""


class Look(NamedTuple):
    """What a page of the catalog shows, as its address says it."""

    asked: Asked
    chosen: tuple[str, ...] = ()
    """Models to compare."""
    rows: int = ROWS

    def address(self, **changes: Any) -> str:
        """Where the same is seen, or the same but for some parts."""
        look = self._replace(**changes)
        pairs = model_questions.spoken(look.asked) + [("model", each) for each in look.chosen]
        if look.rows != ROWS:
            pairs.append(("rows", str(look.rows)))
        return f"{PATH}?{urlencode(pairs)}" if pairs else PATH

    def without(self, facet: Facet, value: Any = None) -> str:
        """Where it is seen with a facet not narrowed, or not to one of its values."""
        field = FIELDS[facet]
        if value is None or facet in ONE_OF:
            return self.address(asked=self.asked.without(facet), rows=ROWS)
        left = frozenset(self.asked.chosen(facet)) - {value}
        return self.address(asked=msgspec.structs.replace(self.asked, **{field: left}), rows=ROWS)

    def without_text(self) -> str:
        """Where it is seen with nothing typed."""
        return self.address(asked=msgspec.structs.replace(self.asked, text=""), rows=ROWS)

    def not_comparing(self, model: str) -> str:
        """Where it is seen with one model less to compare."""
        return self.address(chosen=tuple(each for each in self.chosen if each != model))


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/models")
    async def browse(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        look, too_many = _look(request, frame)
        found = world.catalog.search(visitor.organisation_id, look.asked)
        part = "hx-request" in request.headers and "hx-history-restore-request" not in request.headers
        answer = frame.page(
            request,
            "models.html",
            visitor,
            block="found" if part else None,
            part=part,
            look=look,
            found=found,
            cards=len(world.shelf.cards),
            facets=Facet,
            one_of=ONE_OF,
            label=label,
            text_of=model_questions.value_text,
            sorts=Sort,
            names={each: card.name for each in look.chosen if (card := world.shelf.get(each))},
            too_many=too_many,
            compared_max=COMPARED_MAX,
            comparing=comparing(look.chosen),
        )
        if part:
            answer.headers["hx-replace-url"] = look.address()
        return answer

    @get("/models/{publisher:str}/{name:str}")
    async def show(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        publisher: FromPath[str],
        name: FromPath[str],
    ) -> Response[str]:
        listed = world.catalog.find(visitor.organisation_id, f"{publisher}/{name}")
        card = listed.card
        details = await world.catalog.details(world.pool, card)
        now = datetime.now(UTC)
        held = price_history.of_model(
            world.prices, Whose(organisation_id=visitor.organisation_id), card.id, now
        )
        paid_by = world.prices.list_id(visitor.organisation_id)
        return frame.page(
            request,
            "model.html",
            visitor,
            listed=listed,
            card=card,
            facts=facts(card),
            price=world.catalog.price(visitor.organisation_id, card.id),
            held=list(reversed(held)),
            own_list=None if paid_by == STANDARD_LIST else price_history.list_name(world.prices, paid_by),
            list_names={
                each.price.price_list_id: price_history.list_name(world.prices, each.price.price_list_id)
                for each in held
            },
            price_chart=price_chart(held, now) if len(held) > 1 else None,
            speed=details.speed,
            days=details.days,
            speed_charts=speed_charts(details.days),
            versions=details.versions,
            fit=details.fit,
            hourly={
                each.name: paid.nano_usd_per_minute * 60
                for each, _ in (details.fit.types if details.fit else [])
                if (paid := world.prices.minute_price("instance", each.name, visitor.organisation_id))
            },
            adapters=world.catalog.adapters(visitor.organisation_id, card.id),
            samples=samples.of(card, world.settings.public_url or str(request.base_url)),
            may_try=listed.state is not State.NOT_DEPLOYED and card.task in TRIED,
            may_deploy=visitor.may(Role.DEVELOPER) and EndpointKind.SERVERLESS in card.endpoints,
        )

    @get("/models/{publisher:str}/{name:str}/state", sync_to_thread=False)
    def standing(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        publisher: FromPath[str],
        name: FromPath[str],
    ) -> Response[str]:
        listed = world.catalog.find(visitor.organisation_id, f"{publisher}/{name}")
        return frame.page(request, "model.html", visitor, block="state", listed=listed)

    return [browse, show, standing]


def comparing(models: tuple[str, ...] | list[str]) -> str:
    """Where models are seen beside each other."""
    return f"/portal/compare?{urlencode([('model', each) for each in models])}"


def label(facet: Facet, value: Any) -> str:
    """A facet's value as people read it."""
    if facet is Facet.CONTEXT:
        return f"{CONTEXT_WORDS.get(value) or formats.count(value)} tokens or more"
    if facet is Facet.PRICE:
        return f"up to {formats.per_million(value)}"
    if isinstance(value, Size):
        return value.meaning
    return value.value.replace("_", " ") if isinstance(value, Meaningful) else str(value)


def facts(card: ModelCard) -> list[tuple[str, str]]:
    """What the card says in numbers and names."""
    found = [
        ("Publisher", card.publisher),
        ("Task", f"{card.task.value}: {card.task.meaning}"),
        ("Parameters", formats.count(card.parameters)),
    ]
    if card.active_parameters is not None:
        found.append(("Used per token", formats.count(card.active_parameters)))
    found.append(("Context", f"{formats.count(card.context_length)} tokens"))
    if card.task is Task.CHAT:
        found.append(("Longest answer", f"{formats.count(card.max_output_tokens)} tokens"))
    if card.embedding_dimensions is not None:
        found.append(("Vector", f"{formats.count(card.embedding_dimensions)} numbers"))
    found += [
        ("Weights", f"{card.weight_bits} bits each"),
        ("GPU memory", f"{card.gpu_memory_gib:g} GiB"),
        ("Languages", ", ".join(card.languages)),
        ("Released", card.released.strftime("%-d %B %Y")),
        ("Endpoints", ", ".join(each.value for each in card.endpoints)),
    ]
    if card.engine.adapter_rank_max:
        found.append(("Adapters", f"LoRA up to rank {card.engine.adapter_rank_max}"))
    return found


def price_chart(held: list[Held[PriceVersion]], now: datetime) -> dict[str, Any]:
    """Prices over time as steps, from the first to the last change or to now."""
    first, last = held[0].since, max(held[-1].since, now)
    # So that the last step is seen as one.
    last += (last - first) / 12
    step = max((last - first) / (SAMPLES_OF_PRICES - 1), timedelta(seconds=1))
    moments = [first + step * each for each in range(SAMPLES_OF_PRICES)]
    pattern = "%-d %b %Y" if last - first > timedelta(days=3) else "%-d %b %H:%M"
    at = [next(each.price for each in reversed(held) if each.since <= moment) for moment in moments]
    return {
        "type": "line",
        "unit": "usd",
        "stacked": False,
        "stepped": True,
        "labels": [moment.strftime(pattern) for moment in moments],
        "series": [
            {"name": unit.label, "values": [getattr(price, unit.field) / 1_000_000 for price in at]}
            for unit in TOKENS
        ],
    }


def speed_charts(days: list[SpeedOfDay]) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, title and spec of each chart of the last days' speed that has something in it."""

    def ms(us: int | None) -> float | None:
        return None if us is None else round(us / 1000, 1)

    def rate(per_s: float | None) -> float | None:
        return None if per_s is None else round(per_s, 1)

    def chart(unit: str, *series: tuple[str, list[float | None]]) -> dict[str, Any]:
        labels = [each.day.strftime("%a %-d %b") for each in days]
        lines = [{"name": name, "values": values} for name, values in series]
        return {
            "type": "line",
            "unit": unit,
            "stacked": False,
            "dots": True,
            "labels": labels,
            "series": lines,
        }

    speeds = [each.speed for each in days]
    charts = [
        (
            "first-token",
            "Time to the first token",
            chart(
                "ms",
                ("median", [ms(each.first_token_p50_us) for each in speeds]),
                ("9 in 10 within", [ms(each.first_token_p90_us) for each in speeds]),
            ),
        ),
        (
            "rate",
            "Tokens per second",
            chart("", ("median", [rate(each.tokens_per_s_p50) for each in speeds])),
        ),
        (
            "answer",
            "Time to the answer",
            chart(
                "ms",
                ("median", [ms(each.answer_p50_us) for each in speeds]),
                ("9 in 10 within", [ms(each.answer_p90_us) for each in speeds]),
            ),
        ),
    ]
    return [
        each
        for each in charts
        if any(value is not None for one in each[2]["series"] for value in one["values"])
    ]


def _look(request: Request[Any, Any, Any], frame: Frame) -> tuple[Look, bool]:
    """Read an address; parts of it that mean nothing any more are left out, as in a link that grew old."""
    pairs = list(request.query_params.multi_items())
    asked, _ = model_questions.understand(pairs)
    wanted = dict.fromkeys(value for name, value in pairs if name == "model")
    known = [each for each in wanted if frame.world.shelf.get(each) is not None]
    rows = request.query_params.get("rows", "")
    count = int(rows) if rows.isascii() and rows.isdigit() and len(rows) <= 4 else ROWS
    look = Look(asked, tuple(known[:COMPARED_MAX]), max(ROWS, min(count, ROWS_MAX)))
    return look, len(known) > COMPARED_MAX
