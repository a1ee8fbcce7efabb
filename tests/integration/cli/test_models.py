"""`penstock models search`: what is offered now, with the database's prices and states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from penstock_billing import prices
from penstock_billing.prices import Offer
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pools
from penstock_engines.pool_settings import PoolSettings

Command = Callable[..., Awaitable[Any]]
MODEL = "penstock/demo-chat"


async def test_models_are_found_with_state_and_price(
    penstock: Command, asked: Command, database: asyncpg.Pool
) -> None:
    card = Shelf.open([BUILTIN]).get(MODEL)
    assert card is not None
    async with database.acquire() as connection:
        await prices.sync_list(connection, [Offer(MODEL, 100_000, 50_000, 400_000)])
        await pools.create(connection, card, PoolSettings())
    shown = (await penstock("models", "search", "demo", "chat", columns=80)).stdout
    assert "1 model" in shown
    assert "sleeping" in shown
    assert "0.40" in shown
    told = await asked("models", "search", "--state", "sleeping", "--capability", "tools")
    assert [each["id"] for each in told["data"]] == [MODEL]
    assert {each["value"]: each["count"] for each in told["facets"]["state"]}["sleeping"] == 1


async def test_where_nothing_is_found_the_way_out_is_said(penstock: Command) -> None:
    said = (await penstock("models", "search", "qwen", "--task", "transcription")).stdout
    assert "No model is like that" in said
    assert "without --task: " in said
    assert "without 'qwen': 2" in said


@pytest.mark.parametrize(
    ("option", "value"), [("--price", "cheap"), ("--context", "long"), ("--task", "talk"), ("--limit", "0")]
)
async def test_what_cannot_be_meant_is_refused_by_its_name(
    penstock: Command, option: str, value: str
) -> None:
    refused = await penstock("models", "search", option, value, status=2)
    assert option in refused.output
