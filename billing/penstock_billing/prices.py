"""Price versions: immutable and effective-dated. A new price is a new row; the past is never touched."""

from __future__ import annotations

import time
from datetime import datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import PriceError

SQL = queries.load("penstock_billing", "prices.sql")


class Offer(msgspec.Struct, frozen=True):
    """What a price list asks for one model, in pico-dollars per token."""

    model: str
    input_pico_usd: int
    cached_input_pico_usd: int
    output_pico_usd: int


STANDARD_LIST = 1
"""The price list of everybody who has none of their own."""


class PriceVersion(msgspec.Struct, frozen=True):
    """One model's prices on one list from a moment on, in pico-dollars per unit."""

    id: int
    model: str
    input_pico_usd: int
    cached_input_pico_usd: int
    output_pico_usd: int
    valid_from: datetime
    price_list_id: int = STANDARD_LIST
    image_pico_usd: int = 0
    audio_second_pico_usd: int = 0
    document_pico_usd: int = 0
    batch_discount_ppm: int = 0
    """What a batch endpoint pays less, in millionths."""


async def sync_list(connection: asyncpg.Connection, offers: list[Offer]) -> list[PriceVersion]:
    """Make the offered prices the current ones, from now on, and return the versions this created.

    A model whose current price already is the offered one gets no new version; a model that is not
    offered keeps its price. Processes that do this at once wait for each other. Raises PriceError for a
    model offered twice or a negative price; then nothing is changed.
    """
    seen: set[str] = set()
    for offer in offers:
        if offer.model in seen:
            raise PriceError(f"{offer.model} has two prices in one list; keep one")
        seen.add(offer.model)
        if min(offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd) < 0:
            raise PriceError(f"{offer.model} has a negative price; a price must be 0 or more")
    async with connection.transaction():
        await connection.execute(SQL["lock_list"])
        rows = await connection.fetch(
            SQL["add_changed"],
            [offer.model for offer in offers],
            [offer.input_pico_usd for offer in offers],
            [offer.cached_input_pico_usd for offer in offers],
            [offer.output_pico_usd for offer in offers],
        )
    return [version_of(row) for row in rows]


def version_of(row: asyncpg.Record) -> PriceVersion:
    """Read a row of billing.price_version."""
    return PriceVersion(**{name: row[name] for name in PriceVersion.__struct_fields__})


class PriceBook:
    """Every price version in memory, so that fixing a price at admission waits for no database."""

    def __init__(self) -> None:
        self._versions: dict[int, PriceVersion] = {}
        self._newest_first: dict[str, list[tuple[float, PriceVersion]]] = {}

    async def load(self, pool: asyncpg.Pool | asyncpg.Connection) -> None:
        """Read all versions; until it succeeds, the book keeps what it had."""
        self.fill([version_of(row) for row in await pool.fetch(SQL["all_versions"])])

    def fill(self, versions: list[PriceVersion]) -> None:
        """Replace the book's contents."""
        newest_first: dict[str, list[tuple[float, PriceVersion]]] = {}
        for version in sorted(versions, key=lambda v: (v.valid_from, v.id), reverse=True):
            newest_first.setdefault(version.model, []).append((version.valid_from.timestamp(), version))
        self._versions = {version.id: version for version in versions}
        self._newest_first = newest_first

    def current(self, model: str, at_s: float | None = None) -> PriceVersion | None:
        """Find the version in force at a moment (Unix seconds, default now); None where there is none."""
        moment_s = time.time() if at_s is None else at_s
        for valid_from_s, version in self._newest_first.get(model, ()):
            if valid_from_s <= moment_s:
                return version
        return None

    def version(self, version_id: int) -> PriceVersion | None:
        """Find a version by its id, in force or not."""
        return self._versions.get(version_id)
