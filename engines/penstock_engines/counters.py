"""What an engine's own metrics say, sampled at moments without a request in hand, and kept for reconciling.

Between an engine's counters and its receipts there is always something under way while it works. So a sample
counts only when the engine had nothing in hand before and after its metrics were read, and did nothing
between. vLLM counts an aborted request's tokens until the abort, and a prompt once it was computed, as
receipts do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import msgspec

from penstock_base import queries
from penstock_engines import scrape
from penstock_engines.failures import ScrapeError

SQL = queries.load("penstock_engines", "counters.sql")

ASK_S: Final = 5.0
KEEP: Final = timedelta(days=3)
KEEP_ALL: Final = timedelta(hours=3)
"""Of what is older, the last sample of each start says everything."""


class State(msgspec.Struct, frozen=True):
    """What an engine answers to GET /penstock/receipts."""

    boot: str
    in_hand: int
    done: int
    """Receipts in its file."""


class Sample(msgspec.Struct, frozen=True):
    """An engine's own totals at a moment when it had nothing in hand."""

    boot: str
    sampled_at: datetime
    receipts: int
    """Requests that it had been done with."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int


_state = msgspec.json.Decoder(State).decode


async def sample(socket: Path) -> Sample | None:
    """Read an engine's totals; None when it is busy, away, or no engine of ours."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=ASK_S) as client:
        try:
            before = _state((await client.get("/penstock/receipts")).content)
            if before.in_hand or not before.boot:
                return None
            figures = scrape.parse((await client.get("/metrics")).text)
            sampled_at = datetime.now(UTC)
            after = _state((await client.get("/penstock/receipts")).content)
        except (httpx.HTTPError, msgspec.MsgspecError, ScrapeError):
            return None
    if after != before or figures.running or figures.waiting:
        return None
    totals = (figures.prompt_tokens, figures.cached_tokens, figures.generation_tokens)
    return Sample(before.boot, sampled_at, before.done, *totals)


async def put(connection: asyncpg.Connection | asyncpg.Pool, replica: str, model: str, one: Sample) -> None:
    """Keep a sample."""
    await connection.execute(
        SQL["add"],
        one.boot,
        one.sampled_at,
        replica,
        model,
        one.receipts,
        one.input_tokens,
        one.cached_tokens,
        one.output_tokens,
    )


async def latest(connection: asyncpg.Connection | asyncpg.Pool) -> dict[str, Sample]:
    """The last sample of each start of an engine, by boot."""
    rows = await connection.fetch(SQL["latest"])
    return {row["boot"]: Sample(**dict(row)) for row in rows}


async def prune(connection: asyncpg.Connection | asyncpg.Pool, now: datetime) -> None:
    """Forget what is too old to be compared with anything."""
    await connection.execute(SQL["prune"], now - KEEP, now - KEEP_ALL)
