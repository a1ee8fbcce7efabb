"""Pools in Postgres: named by settings, changed by operators, rolled forward and back."""

from __future__ import annotations

import asyncio
import datetime

import asyncpg
import msgspec
import pytest

from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pools
from penstock_engines.autoscale import Sample, ScaleRules
from penstock_engines.inventory import Inventory
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import Load, PoolError, Told
from penstock_engines.spec import Device

SHELF = Shelf.open([BUILTIN])


def card(model: str = "penstock/demo-chat", cache_mib: int | None = None) -> ModelCard:
    found = SHELF.get(model)
    assert found is not None
    if cache_mib is None:
        return found
    return msgspec.structs.replace(
        found, engine=msgspec.structs.replace(found.engine, kv_cache_mib=cache_mib)
    )


@pytest.fixture
async def connection(database: asyncpg.Pool) -> asyncpg.Connection:
    async with database.acquire() as taken:
        yield taken


async def test_models_of_the_settings_have_pools_with_an_engine(connection: asyncpg.Connection) -> None:
    await pools.name(connection, [card(), card("penstock/demo-embed")])
    await pools.name(connection, [card()])
    (pool,) = await pools.listed(connection)
    assert (pool.model, pool.version, pool.settings.scale.replicas_min) == ("penstock/demo-chat", 1, 1)


async def test_models_that_may_sleep_have_pools_without_an_engine(connection: asyncpg.Connection) -> None:
    chat, embed = card(), card("penstock/demo-embed")

    async def least() -> dict[str, int]:
        return {pool.model: pool.settings.scale.replicas_min for pool in await pools.listed(connection)}

    await pools.name(connection, [chat], [embed])
    assert await least() == {chat.id: 1, embed.id: 0}
    await pools.name(connection, [embed], [chat, embed])
    assert await least() == {chat.id: 0, embed.id: 1}
    assert [each.version for each in await pools.versions(connection, chat.id)] == [1]


async def test_what_an_operator_changed_stays_when_settings_change(connection: asyncpg.Connection) -> None:
    await pools.name(connection, [card()])
    await pools.change(connection, card(), PoolSettings(scale=ScaleRules(replicas_max=3)))
    await pools.name(connection, [])
    await pools.name(connection, [card(cache_mib=512)])
    (pool,) = await pools.listed(connection)
    assert (pool.version, pool.settings.scale.replicas_max) == (1, 3)


async def test_a_changed_card_of_the_settings_is_a_new_version(connection: asyncpg.Connection) -> None:
    await pools.name(connection, [card()])
    await pools.name(connection, [card(cache_mib=512)])
    (pool,) = await pools.listed(connection)
    assert (pool.version, pool.content.engine.kv_cache_mib) == (2, 512)


async def test_rolling_back_runs_what_ran_before(connection: asyncpg.Connection) -> None:
    await pools.create(connection, card(), PoolSettings())
    with pytest.raises(PoolError, match="change the card first"):
        await pools.roll(connection, card(), "")
    assert (await pools.roll(connection, card(cache_mib=512), "more cache")).version == 2
    back = await pools.roll_back(connection, card().id, None)
    assert (back.version, back.content) == (1, pools.content_of(card()))
    assert (await pools.roll_back(connection, card().id, 2)).version == 2
    with pytest.raises(PoolError, match="others that it could run: 1"):
        await pools.roll_back(connection, card().id, 7)
    notes = [(each.version, each.note) for each in await pools.versions(connection, card().id)]
    assert notes == [(2, "more cache"), (1, "")]


async def test_a_pool_is_made_once_and_removed_once(database: asyncpg.Pool) -> None:
    async def make() -> str:
        async with database.acquire() as connection:
            try:
                await pools.create(connection, card(), PoolSettings())
            except PoolError as error:
                return str(error)
        return "made"

    answers = await asyncio.gather(*(make() for _ in range(4)))
    assert answers.count("made") == 1
    await pools.remove(database, card().id)
    with pytest.raises(PoolError, match="no pool"):
        await pools.remove(database, card().id)


async def test_a_model_that_never_fits_is_refused_with_the_reason(connection: asyncpg.Connection) -> None:
    await pools.put_hardware(connection, "c", Inventory(device=Device.CPU, cpu_slots=1, memory_gib=4))
    large = msgspec.structs.replace(card(), parameters=10_000_000_000, gpu_memory_gib=30)
    with pytest.raises(PoolError, match=r"this machine has 3\.6 GiB for engines"):
        await pools.create(connection, large, PoolSettings())
    await pools.create(connection, card(), PoolSettings())
    with pytest.raises(PoolError, match=r"this machine has 3\.6 GiB for engines"):
        await pools.roll(connection, large, "")


async def test_loads_of_gateways_add_up_and_old_ones_count_for_nothing(database: asyncpg.Pool) -> None:
    now = datetime.datetime.now(datetime.UTC)
    asked = now - datetime.timedelta(seconds=100)

    def told(running: int, at: datetime.datetime) -> Told:
        return Told(
            model="m",
            running=running,
            waiting_requests=1,
            waiting_tokens=10.5,
            first_token_ms=30,
            asked_at=at,
        )

    await pools.tell_load(database, "a", [told(2, asked)])
    await pools.tell_load(database, "b", [told(3, asked)])
    load = (await pools.loads(database))["m"]
    assert (load.running, load.waiting_requests, load.waiting_tokens, load.first_token_ms) == (5, 2, 21.0, 30)
    assert 99 < load.idle_s < 130
    silent = "update engines.load set told_at = now() - interval '1 minute' where gateway = 'a'"
    await database.execute(silent)
    assert (await pools.loads(database))["m"].running == 3
    assert Load().idle_s == float("inf")


async def test_decisions_are_kept_with_what_was_seen(database: asyncpg.Pool) -> None:
    seen = Sample(
        at_s=1, replicas=1, ready=1, running=30, waiting_requests=9, waiting_tokens=900, kv_usage=0.5,
        first_token_p90_s=1.5, idle_s=0,
    )  # fmt: skip
    await pools.note_scaling(database, "m", 1, 2, "30 requests run", seen)
    await pools.note_scaling(database, "m", 2, 1, "1 were enough for 300 s", seen)
    last, first = await pools.scalings(database, "m", 10)
    assert (last.after, first.after, first.sample, first.reason) == (1, 2, seen, "30 requests run")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"scale": {"replicas_min": 3}}, "replicas_min is 3 and replicas_max 1: raise the maximum"),
        ({"scale": {"replicas_min": -1}}, "replicas_min"),
        ({"policy": "random"}, "random"),
        ({"wait_max_s": 0}, "wait_max_s"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(settings, PoolSettings)
