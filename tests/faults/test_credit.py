"""Prepaid credit with several gateways, killed ones, and no Postgres: never below the stated bound."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from rig.check import outcomes, settled
from rig.client import End, Seen
from rig.load import Load
from rig.room import OFFER, Room
from rig.server import until

from penstock.admission.credit.charge import MARGIN_TOKENS, SILENT_TOKENS_PER_S, STEP_TOKENS
from penstock.serving.relay import CHECK_EVERY_S
from penstock_billing.leases import Wallet
from penstock_billing.testing import credit_nano_usd, fund

OUTPUT = OFFER.output_pico_usd // 1000
"""Nano-dollars per token."""
CENT = 10_000_000
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def prepaid(room: Room) -> Callable[..., Any]:
    """Make the organisation that the load comes from prepaid; gateways know it within a second."""

    async def make(nano_usd: int, *, strict: bool = False) -> Wallet:
        async with room.connect() as connection:
            wallet = Wallet(await connection.fetchval("select id from access.organisation"))
            await fund(connection, wallet, nano_usd, strict=strict)
        return wallet

    return make


async def credit(room: Room, wallet: Wallet) -> int:
    async with room.connect() as connection:
        return await credit_nano_usd(connection, wallet)


async def leased(room: Room) -> list[asyncpg.Record]:
    async with room.connect() as connection:
        return await connection.fetch("select * from billing.lease where released_at is null")


def refused(seen: list[Seen], code: str = "insufficient_credit") -> list[Seen]:
    return [one for one in seen if one.end is End.REFUSED and (one.error or {}).get("code") == code]


async def runs_dry(load: Load, times: int) -> None:
    """Wait until requests were refused for want of credit so often."""

    async def is_dry() -> bool:
        return len(refused(load.seen)) >= times

    await until(is_dry, "the credit is used up", within_s=120)


def long_streams(chance: random.Random) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": chance.randint(200, 1500),
        "n": chance.choice((1, 1, 2)),
        **STREAM,
    }


def anything(chance: random.Random) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": chance.randint(5, 300),
        "n": chance.choice((1, 2)),
    } | chance.choice(({}, STREAM))


async def test_elastic_credit_of_two_gateways_ends_within_its_bound(room: Room, prepaid: Any) -> None:
    """A wallet runs dry under load: streams are stopped in words, and hardly more is made than is paid."""
    clients, tokens_per_s = 8, 200
    wallet = await prepaid(20_000 * OUTPUT)
    await room.start_engine(tokens_per_second=tokens_per_s, answer_tokens=5_000)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=clients, make=long_streams) as load:
        await runs_dry(load, 6)
    events = await room.check()
    ended = [one for one in load.seen if (one.error or {}).get("code") == "insufficient_credit"]
    stopped = [one for one in ended if one.status == 200]
    assert len(stopped) == outcomes(events)["credit_ended"] > 0
    assert all(one.usage is not None for one in stopped)
    # billing/README.md, "The overdraft": what could be made by every stream that ran, unheld or unseen.
    unseen = tokens_per_s * CHECK_EVERY_S
    bound = clients * 2 * OUTPUT * (STEP_TOKENS + unseen)
    left = await credit(room, wallet)
    assert -bound <= left <= 4 * CENT
    # And it is no accident of a wide bound: by far most of it was stopped in time.
    assert left > -clients * 2 * OUTPUT * (STEP_TOKENS + MARGIN_TOKENS + SILENT_TOKENS_PER_S)


async def test_strict_credit_never_goes_below_nothing_whoever_is_killed(room: Room, prepaid: Any) -> None:
    """SIGKILL again and again while a strict wallet runs dry; what the dead held comes back."""
    wallet = await prepaid(30_000 * OUTPUT, strict=True)
    await room.start_engine(tokens_per_second=400, answer_tokens=5_000)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    lowest = 0
    async with room.load(clients=8, make=anything) as load:
        for victim in (0, 1, 0):
            await load.more(12)
            await room.gateways[victim].kill()
            lowest = min(lowest, await credit(room, wallet))
            await room.gateways[victim].start()
        await runs_dry(load, 10)
    await room.check()
    assert min(lowest, await credit(room, wallet)) == 0 <= await credit(room, wallet)

    async def only_the_living_hold() -> bool:
        return len(await leased(room)) <= 2

    await until(only_the_living_hold, "the leases of the dead are released")
    await room.check()
    assert await credit(room, wallet) >= 0


async def test_a_dead_gateways_lease_is_released_once_its_journal_is_shipped(
    room: Room, prepaid: Any
) -> None:
    wallet = await prepaid(100 * CENT)
    await room.start_engine()
    first = await room.start_gateway()
    seen = await room.ask(first)
    assert seen.end is End.FINISHED
    [lease] = await leased(room)
    assert lease["granted_nano_usd"] >= CENT
    await room.event(seen)
    await first.kill()
    await settled(3)
    # Nobody is there who could ship what it may have left: what it holds is held.
    assert [row["id"] for row in await leased(room)] == [lease["id"]]
    second = await room.start_gateway()
    assert (await room.ask(second)).end is End.FINISHED

    async def is_released() -> bool:
        return lease["id"] not in {row["id"] for row in await leased(room)}

    await until(is_released, "the dead gateway's lease is released")
    cost = sum(event["cost_nano_usd"] for event in await room.check())
    assert await credit(room, wallet) == 100 * CENT - cost


async def test_a_gateway_that_stops_leaves_no_lease(room: Room, prepaid: Any) -> None:
    wallet = await prepaid(100 * CENT)
    await room.start_engine()
    gateway = await room.start_gateway()
    assert (await room.ask(gateway)).end is End.FINISHED
    gateway.send(signal.SIGTERM)
    await gateway.ended()
    assert await leased(room) == []
    cost = sum(event["cost_nano_usd"] for event in await room.check())
    assert await credit(room, wallet) == 100 * CENT - cost


async def test_without_postgres_leased_credit_is_used_up_and_then_it_is_said(
    room: Room, prepaid: Any
) -> None:
    wallet = await prepaid(100 * CENT)
    await room.start_engine(tokens_per_second=1000, answer_tokens=5_000)
    gateway = await room.start_gateway()
    body = {"max_tokens": 1000, "messages": [{"role": "user", "content": "Hello"}]}
    assert (await room.ask(gateway, **body, **STREAM)).end is End.FINISHED
    await room.server.stop_immediately()
    served, answer = 0, None
    while answer is None or answer.end is not End.REFUSED:
        answer = await room.ask(gateway, **body, **STREAM)
        served += answer.end is End.FINISHED
        assert served < 200
    assert served > 3
    assert (answer.status, (answer.error or {}).get("code")) == (503, "credit_unavailable")
    assert answer.headers["retry-after"] == "1"
    await room.server.start()

    async def serves() -> bool:
        return (await room.ask(gateway, max_tokens=5)).end is End.FINISHED

    await until(serves, "the gateway leases again")
    await room.check()
    assert await credit(room, wallet) > 0
