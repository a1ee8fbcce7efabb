"""What a controller does for serverless endpoints: a pool for their model, and their minutes, exactly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from penstock.access import keys
from penstock.control.endpoints import FEE_NANO_USD, ServerlessEndpoints
from penstock.endpoints import serverless
from penstock.endpoints.serverless import EndpointError, UnknownEndpoint, Wish
from penstock.endpoints.standing import EndpointStanding, State, standing
from penstock.routing.directory import Directory
from penstock_billing import minutes, partitions
from penstock_catalog.cards import EndpointKind
from penstock_catalog.shelf import BUILTIN, Shelf

PEPPER = b"p" * 32
MODEL = "penstock/demo-chat"


class Desk:
    """An organisation's endpoints, and the part of a controller that follows them."""

    def __init__(self, database: asyncpg.Pool, connection: asyncpg.Connection) -> None:
        self.database = database
        self.connection = connection
        self.cards = {card.id: card for card in Shelf.open([BUILTIN]).cards}
        self.controller = self.new_controller()
        self.organisation_id = 0
        self.project_id = 0

    def new_controller(self) -> ServerlessEndpoints:
        return ServerlessEndpoints(self.database, self.cards.get)

    async def create(self, name: str = "front-desk", model: str = MODEL) -> None:
        await serverless.create(
            self.connection,
            PEPPER,
            self.organisation_id,
            self.project_id,
            name,
            self.cards[model],
            Wish(),
        )

    async def delete(self, name: str = "front-desk") -> None:
        await serverless.delete(self.connection, self.organisation_id, name)

    async def suspend(self, reason: str | None) -> None:
        await serverless.change(self.connection, self.organisation_id, "front-desk", Wish(suspended=reason))

    async def stands(self, name: str = "front-desk") -> EndpointStanding:
        found = await serverless.find(self.connection, self.organisation_id, name)
        directory = Directory()
        await directory.refresh(self.database)
        return standing(found, directory.standing(found.model))

    async def intervals(self) -> list[asyncpg.Record]:
        return await self.connection.fetch("select * from billing.running_interval order by id")


@pytest.fixture
async def desk(database: asyncpg.Pool) -> Any:
    async with database.acquire() as taken:
        made = Desk(database, taken)
        await partitions.ensure(taken)
        await keys.create(taken, PEPPER, name="x", organisation="acme")
        made.organisation_id = await keys.find_organisation(taken, "acme")
        made.project_id = await keys.find_project(taken, made.organisation_id, "default")
        yield made


async def test_an_endpoint_is_created_then_online_and_its_minutes_run_until_it_is_deleted(
    desk: Desk,
) -> None:
    await desk.create()
    assert (await desk.stands()).state is State.CREATING
    await desk.controller.follow()
    found = await desk.stands()
    assert (found.state, found.reason) == (State.ONLINE, "the model is asleep")
    (interval,) = await desk.intervals()
    assert (interval["endpoint"], interval["model"], interval["stopped_at"]) == ("front-desk", MODEL, None)
    await desk.delete()
    assert (await desk.stands()).state is State.DELETING
    await desk.controller.follow()
    with pytest.raises(UnknownEndpoint):
        await desk.stands()
    (interval,) = await desk.intervals()
    deleted = await desk.connection.fetchrow("select * from endpoints.serverless")
    assert deleted is not None
    assert interval["stopped_at"] == deleted["deleted_at"]


async def test_a_name_is_free_at_once_and_each_endpoint_has_its_own_minutes(desk: Desk) -> None:
    await desk.create()
    await desk.controller.follow()
    await desk.delete()
    await desk.create()
    assert (await desk.stands()).state is State.ONLINE
    listed = await serverless.listed(desk.connection, desk.organisation_id)
    assert [each.deleted_at is None for each in listed] == [True, False]
    await desk.controller.follow()
    first, second = await desk.intervals()
    assert (first["stopped_at"] is None, second["stopped_at"] is None) == (False, True)
    assert first["subject"] != second["subject"]


async def test_a_suspended_endpoint_costs_nothing_until_it_is_resumed(desk: Desk) -> None:
    await desk.create()
    await desk.controller.follow()
    await desk.suspend("unpaid")
    found = await desk.stands()
    assert (found.state, found.reason) == (State.SUSPENDED, "unpaid")
    await desk.controller.follow()
    await desk.suspend(None)
    await desk.controller.follow()
    first, second = await desk.intervals()
    assert first["stopped_at"] <= second["started_at"]
    assert second["stopped_at"] is None


@pytest.mark.parametrize("how", ["deleted", "suspended"])
async def test_minutes_end_when_it_was_stopped_even_with_no_controller_there(desk: Desk, how: str) -> None:
    await desk.create()
    await desk.controller.follow()
    if how == "deleted":
        await desk.delete()
    else:
        await desk.suspend("unpaid")
    stopped = await desk.connection.fetchval(
        "select coalesce(deleted_at, suspended_at) from endpoints.serverless"
    )
    await asyncio.sleep(1.1)
    await desk.new_controller().follow()
    (interval,) = await desk.intervals()
    assert interval["stopped_at"] == stopped


async def test_an_endpoint_whose_model_cannot_be_served_is_unhealthy_and_says_why(
    desk: Desk,
) -> None:
    await desk.create()
    card = desk.cards.pop(MODEL)
    await desk.controller.follow()
    found = await desk.stands()
    assert found.state is State.UNHEALTHY
    assert found.reason == "the model cannot be served: the catalog has no card of it any more"
    assert await desk.intervals() == []
    desk.cards[MODEL] = card
    await desk.controller.follow()
    assert (await desk.stands()).state is State.ONLINE


async def test_a_model_that_is_not_offered_serverless_is_refused_with_what_it_is_offered_as(
    desk: Desk,
) -> None:
    kinds = [EndpointKind.ONLINE, EndpointKind.BATCH]
    desk.cards[MODEL] = msgspec.structs.replace(desk.cards[MODEL], endpoints=kinds)
    with pytest.raises(EndpointError, match=r"not offered serverless; it is offered as: online, batch"):
        await desk.create()
    assert await serverless.listed(desk.connection, desk.organisation_id) == []


async def test_minutes_have_a_fee_from_the_start_and_whose_price_is_set_is_not_touched(desk: Desk) -> None:
    assert FEE_NANO_USD > 0
    for _ in range(2):
        await desk.controller.set_first_fee(desk.connection)
    rows = await desk.connection.fetch("select * from billing.minute_price_version")
    assert [(row["subject"], row["nano_usd_per_minute"]) for row in rows] == [("serverless", FEE_NANO_USD)]
    await desk.create()
    await desk.controller.follow()
    now = datetime.now(UTC)
    await minutes.accrue(desk.connection, now + timedelta(minutes=10))
    (charged,) = await minutes.charged(
        desk.connection, desk.organisation_id, now - timedelta(hours=1), now + timedelta(hours=1)
    )
    assert (charged.endpoint, charged.priced_as, charged.minutes) == ("front-desk", "serverless", 10)
    assert charged.cost_nano_usd == 10 * FEE_NANO_USD
    # This test charged ahead of time; what is charged stays, so it ends there.
    await desk.delete()
    await desk.controller.follow()
    (interval,) = await desk.intervals()
    assert interval["stopped_at"] == interval["accrued_until"]
