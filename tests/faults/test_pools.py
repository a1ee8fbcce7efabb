"""Pools under load: an engine dies, a version is replaced, a model wakes (rows 39, 40, 41)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import psutil
import pytest
from rig.books import reconcile
from rig.client import MODEL, End, Seen
from rig.load import mixed
from rig.processes import Controller
from rig.room import Room
from rig.server import until

from penstock_billing.reconcile.report import Difference
from penstock_engines import pools
from penstock_engines.registry import Registered

SLOW: dict[str, Any] = {"max_tokens": 40, "stream": True, "stream_options": {"include_usage": True}}


def engine_process(controller: Controller, engine: Registered) -> psutil.Process:
    """The process of one of a controller's engines."""
    assert controller.process is not None
    children = psutil.Process(controller.process.pid).children(recursive=True)
    (found,) = [one for one in children if str(engine.socket) in one.cmdline()]
    return found


def unanswered(seen: list[Seen]) -> list[Seen]:
    """Those that were told of a failure before they had a byte of an answer."""
    return [one for one in seen if one.end not in {End.FINISHED, End.LEFT} and one.status != 200]


async def agree(room: Room) -> None:
    """What the engines wrote down, also those that ended, is what is charged."""

    found: list[Difference] = []

    async def agreed() -> bool:
        found[:] = (await reconcile(room)).differences
        return found == []

    with contextlib.suppress(AssertionError):
        await until(agreed, "engines, journals, events and books agree")
    assert found == []
    await room.check()


async def test_an_engine_killed_under_load_fails_nothing_that_had_not_begun(room: Room) -> None:
    """Row 39: two engines, each full, and a line behind them; what waited is answered by the other."""
    await room.set_pool(scale={"replicas_min": 2, "replicas_max": 2})
    doomed = await room.start_engine(batch_max=4)
    await room.start_engine(batch_max=4)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=30) as load:
        for _ in range(2):

            async def in_line() -> bool:
                return await room.waiting() > 5

            await until(in_line, "some wait for their turn")
            await load.more(20)
            await doomed.kill()
            await load.more(60)
            await doomed.start(MODEL, tokens_per_second=100, answer_tokens=1000)
    assert unanswered(load.seen) == []
    begun = [seen for seen in load.seen if seen.end in {End.FAILED, End.BROKEN}]
    assert {seen.error["code"] for seen in begun if seen.error} <= {"engine_failed"}
    await room.check()


async def test_the_only_engine_killed_under_load_is_waited_for(room: Room) -> None:
    """Row 39: nobody is there for a while; who had not begun waits until the controller has another one."""
    await room.set_pool(scale={"replicas_min": 1, "replicas_max": 1})
    controller = await room.start_controller()
    (engine,) = await room.until_ready(1)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=12) as load:
        await load.more(20)
        engine_process(controller, engine).kill()
        await load.more(60)
    assert unanswered(load.seen) == []
    await agree(room)


async def test_a_version_is_replaced_and_brought_back_under_load_without_an_error(room: Room) -> None:
    """Row 40: two engines of the new version take over from two of the old one, and the other way round."""
    await room.set_pool(scale={"replicas_min": 2, "replicas_max": 2})
    await room.start_controller()
    await room.until_ready(2, version=1)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=8) as load:
        await load.more(20)
        async with room.connect() as connection:
            await pools.roll(connection, room.card(kv_cache_mib=512), "more cache")
            await room.until_ready(2, version=2)
            await load.more(20)
            await pools.roll_back(connection, MODEL, None)
            await room.until_ready(2, version=1)
        await load.more(20)
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
    await agree(room)


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_a_sleeping_model_woken_at_two_gateways_starts_once(room: Room, redis_is: str) -> None:
    """Row 41: all who ask while it sleeps share one start, and are answered."""
    await room.set_pool(scale={"replicas_min": 0, "replicas_max": 4})
    await room.start_controller()
    first, second = await asyncio.gather(room.start_gateway(wait=False), room.start_gateway(wait=False))
    await asyncio.gather(first.launch(), second.launch())
    if redis_is == "away":
        room.to_redis.refusing = True
        room.to_redis.reset()

    async def asleep() -> bool:
        states = [await gateway.state() for gateway in (first, second)]
        return all("asleep" in state.get("models", {}).get(MODEL, "") for state in states)

    await until(asleep, "both gateways know that the model sleeps")
    chance = random.Random(1)
    seen = await asyncio.gather(
        *(room.ask(gateway, **mixed(chance)) for gateway in (first, second) for _ in range(4))
    )
    assert {one.end for one in seen} == {End.FINISHED}
    async with room.connect() as connection:
        (decision,) = await pools.scalings(connection, MODEL, 10)
        assert (decision.before, decision.after) == (0, 1)
        assert decision.reason.startswith("waiting for the sleeping model: ")
        assert len(await pools.starts(connection, MODEL, 10)) == 1
    await agree(room)
