"""The catalog as an organisation meets it: cards, how they stand, what they cost it, how fast they were."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from penstock.adapters.book import AdapterBook
from penstock.adapters.register import Live
from penstock.edge.refusals import BadRequest, NotFound
from penstock.routing.directory import Directory, Standing
from penstock_billing import speeds
from penstock_billing.errors import UsageRefused
from penstock_billing.estimates import Estimate, Traffic, estimate
from penstock_billing.prices import PriceBook, PriceVersion
from penstock_billing.speeds import Speed, SpeedBook, SpeedOfDay
from penstock_catalog.cards import FolderSource, HubSource, ModelCard
from penstock_catalog.search import Asked, Found, Listed, State
from penstock_catalog.shelf import Shelf
from penstock_engines import fitting, pools
from penstock_engines.fitting import Fit
from penstock_engines.pools import Pool

STATES = {
    "ready": State.LIVE,
    "asleep": State.SLEEPING,
    "starting": State.SLEEPING,
    "draining": State.SLEEPING,
    "gone": State.SLEEPING,
}
"""Of a pool's standing; any other is not deployed."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of what a model's engines run."""

    number: int | None
    """None: the card's, which no pool has run yet."""
    current: bool
    where: str
    """The hub's repository, or that it lies on this installation's own disks."""
    revision: str | None
    """The pinned commit; None where nothing is pinned."""
    digest: str | None
    """SHA-256 of the whole folder, where the card names it."""
    context_length: int
    note: str = ""
    created_at: Any = None


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What only one model's own page asks the database for."""

    speed: Speed
    days: list[SpeedOfDay]
    versions: list[Version]
    fit: Fit | None
    """None: no controller has told yet what hardware there is."""


class Catalog:
    """What the pages and the API of models ask."""

    def __init__(
        self,
        shelf: Shelf,
        directory: Directory,
        prices: PriceBook,
        adapters: AdapterBook,
        speed_book: SpeedBook,
    ) -> None:
        self.shelf = shelf
        self.prices = prices
        self._directory = directory
        self._adapters = adapters
        self._speeds = speed_book

    def search(self, organisation_id: int, asked: Asked) -> Found:
        """Find models as they are offered to an organisation now."""
        listing = self.shelf.listing
        return listing.search(asked, [self._listed(card, organisation_id) for card in listing.cards])

    def find(self, organisation_id: int, model: str) -> Listed:
        """One model; raises NotFound naming what is near."""
        card = self.shelf.get(model)
        if card is None:
            close = difflib.get_close_matches(model, [each.id for each in self.shelf.cards], 3, cutoff=0.6)
            near = f"; did you mean {' or '.join(close)}?" if close else ""
            raise NotFound(f"there is no model {model[:100]!r} in the catalog{near}")
        return self._listed(card, organisation_id)

    def standing(self, model: str) -> Standing:
        """How a model's pool stands."""
        return self._directory.standing(model)

    def price(self, organisation_id: int, model: str) -> PriceVersion | None:
        """What an organisation pays for a model now; None: it is not sold."""
        return self.prices.current(model, organisation_id)

    def speed(self, model: str) -> Speed:
        """How fast a model was lately, as this process last read it some seconds ago."""
        return self._speeds.of(model)

    async def speeds(self, pool: asyncpg.Pool, models: Sequence[str]) -> dict[str, Speed]:
        """How fast these models were until now."""
        found = await speeds.lately(pool, models)
        return {model: found.get(model, speeds.NOTHING) for model in models}

    def adapters(self, organisation_id: int, model: str) -> list[Live]:
        """The organisation's own adapters of a model."""
        return [each for each in self._adapters.of(organisation_id) if each.base_model == model]

    def estimate(self, organisation_id: int, model: str, traffic: Traffic) -> Estimate | None:
        """What traffic would cost an organisation; None where the model has no price.

        Raises BadRequest where more tokens are cached than there are.
        """
        price = self.price(organisation_id, model)
        try:
            return None if price is None else estimate(price, traffic)
        except UsageRefused:
            raise BadRequest(
                f"at most the {traffic.input_tokens:,} input tokens can be cached", param="cached_tokens"
            ) from None

    async def details(self, pool: asyncpg.Pool, card: ModelCard) -> Details:
        """Ask the database about one model."""
        hardware = await pools.hardware(pool)
        return Details(
            speed=(await self.speeds(pool, [card.id]))[card.id],
            days=(await speeds.by_day(pool, [card.id]))[card.id],
            versions=_versions(card, await pools.find(pool, card.id), await pools.versions(pool, card.id)),
            fit=None if hardware is None else fitting.fit(hardware, card),
        )

    def _listed(self, card: ModelCard, organisation_id: int) -> Listed:
        standing = self._directory.standing(card.id)
        price = self.prices.current(card.id, organisation_id)
        speed = self._speeds.of(card.id)
        return Listed(
            card=card,
            state=STATES.get(standing.state, State.NOT_DEPLOYED),
            reason=why(standing),
            input_pico_usd=None if price is None else price.input_pico_usd,
            output_pico_usd=None if price is None else price.output_pico_usd,
            first_token_us=speed.first_token_p50_us or speed.answer_p50_us,
            tokens_per_s=speed.tokens_per_s_p50,
        )


def why(standing: Standing) -> str:
    """Why a model stands as it does, for whoever wants to call it."""
    usually = f", usually in {standing.usually_s:.0f} s" if standing.usually_s is not None else ""
    words = {
        "ready": "an engine is ready",
        "asleep": f"the next request wakes it{usually}",
        "starting": f"it is {standing}" if standing.since_s is not None else "its engine is about to start",
        "draining": "its engine finishes what it has and stops",
        "gone": "its engine is gone and is being replaced",
        "off": "whoever runs this platform set its pool to no engines",
        "unknown": "no pool serves it yet",
    }
    return words.get(standing.state, standing.state)


def _versions(card: ModelCard, pool: Pool | None, known: list[pools.Version]) -> list[Version]:
    if not known:
        return [_version(None, card.source, card.context_length, current=False)]
    return [
        _version(
            each.version,
            each.content.source,
            each.content.context_length,
            current=pool is not None and pool.version == each.version,
            note=each.note,
            created_at=each.created_at,
        )
        for each in known
    ]


def _version(
    number: int | None, source: FolderSource | HubSource, context_length: int, *, current: bool, **more: Any
) -> Version:
    if isinstance(source, HubSource):
        where, revision, digest = source.repository, source.revision, None
    else:
        where, revision, digest = "this installation's own disks", None, source.digest
    return Version(
        number=number,
        current=current,
        where=where,
        revision=revision,
        digest=digest,
        context_length=context_length,
        **more,
    )
