"""Prepaid credit while many ask at once and its holders break (rows 25, 26; 9, 10, 38 with leases)."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from rig.check import outcomes, settled
from rig.client import End, Seen
from rig.load import Load
from rig.proxy import Cut
from rig.room import Room
from rig.server import until

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
DOLLAR = 1_000_000_000
CENT = DOLLAR // 100


def refusals(seen: list[Seen]) -> set[str]:
    """Why requests were not answered."""
    return {str((one.error or {}).get("code", one.end)) for one in seen if one.end is not End.FINISHED}


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "elastic"])
async def test_a_thousand_requests_at_once_on_a_cent_spend_no_more_than_it(room: Room, strict: bool) -> None:
    """Row 25: three times as much as there is, at two gateways that know nothing of each other."""
    await room.start_engine(batch_max=2000, tokens_per_second=200)
    wallet = await room.fund(CENT, strict=strict)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    seen = await asyncio.gather(
        *(
            room.ask(
                room.gateways[number % 2], max_tokens=50, patience_s=150, **(STREAM if number % 3 else {})
            )
            for number in range(1000)
        )
    )
    # A database that is asked by a thousand at once may be late: then nothing is admitted either.
    assert refusals(seen) <= {"insufficient_credit", "credit_held", "credit_unavailable"}
    assert refusals(seen) & {"insufficient_credit", "credit_held"}
    events = await room.check()
    assert 0 <= await room.credit(wallet) < CENT
    assert outcomes(events)["done"] > 50


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "elastic"])
async def test_what_a_dead_gateway_held_comes_back_once_all_it_wrote_is_shipped(
    room: Room, strict: bool
) -> None:
    """Row 26: SIGKILL of a holder under load, also with its last records still on its disk only."""
    await room.start_engine()
    wallet = await room.fund(DOLLAR, strict=strict)
    holder, other = await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        await load.more(20)
        await holder.kill()
        await holder.start()
        await load.more(20)
        room.to_postgres.freeze()
        await load.more(5)
        await holder.kill()
        assert await dead_and_settled(room) <= 1  # nothing can have been shipped since
        room.to_postgres.reset()
        room.to_postgres.thaw()
        await holder.start()
        await load.more(20)
    assert other.running
    await room.check()

    async def released() -> bool:
        return await room.fetchval(
            "select count(*) = 2 from billing.lease join billing.gateway_boot using (boot_id)"
            " where settled_at is not null and released_at is not null"
        )

    await until(released, "both dead processes' leases are released")
    spent = await room.fetchval("select sum(cost_nano_usd)::bigint from billing.usage_event")
    assert await room.credit(wallet) == DOLLAR - spent
    await room.check()


async def dead_and_settled(room: Room) -> int:
    return int(await room.fetchval("select count(*) from billing.gateway_boot where settled_at is not null"))


async def test_a_stopped_gateway_keeps_its_lease_and_settles_it_once(room: Room) -> None:
    """Row 38: SIGSTOP of a holder until others have looked for dead processes: nobody takes what it holds."""
    await room.start_engine()
    await room.fund(DOLLAR, strict=True)
    stopped, other = await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=8) as load:
        await load.more(20)
        stopped.send(signal.SIGSTOP)
        await room.ask(other)
        await settled(7)  # others look for dead processes' files every 5 s
        assert await dead_and_settled(room) == 0
        stopped.send(signal.SIGCONT)
        await load.more(20)
    assert outcomes(await room.check())["done"] > 20


async def test_prepaid_requests_are_served_from_leases_while_postgres_is_away(room: Room) -> None:
    """Row 10: what was lent is spent, and nothing else; credit that was never lent is not promised."""
    await room.start_engine()
    wallet = await room.fund(CENT, strict=True)
    gateway = await room.start_gateway()
    assert (await room.ask(max_tokens=5)).end is End.FINISHED
    await room.server.stop_immediately()
    # All that there is was lent: a cent.
    served = [await room.ask(max_tokens=20, **STREAM) for _ in range(20)]
    assert {one.end for one in served} == {End.FINISHED}
    many = await asyncio.gather(*(room.ask(max_tokens=1000, n=2, **STREAM) for _ in range(20)))
    assert refusals(list(many)) == {"credit_unavailable"}
    await room.server.start()
    await until(gateway.ready, "the gateway is ready")
    await room.check()
    assert 0 <= await room.credit(wallet) < CENT


async def test_leases_whose_commit_got_no_answer_are_lent_once(room: Room) -> None:
    """Row 9: answers to commits are lost while credit is lent and given back under load."""
    await room.start_engine()
    await room.fund(DOLLAR)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        for number in range(1, 7):
            room.to_postgres.cut_at(b"COMMIT", Cut.AFTER if number % 2 else Cut.BEFORE)
            # A new gateway leases at once, so that some of the commits are those of leases.
            if number % 3 == 0:
                await room.gateways[0].kill()
                await room.gateways[0].start()

            async def has_tripped(wanted: int = number) -> bool:
                return room.to_postgres.tripped >= wanted

            await until(has_tripped, f"cut {number} happened")
            await load.more(5)
    assert unforeseen(load) == set()
    await room.check()


def unforeseen(load: Load) -> set[str]:
    """Refusals that have nothing to do with a database that is away, or a gateway that has just started."""
    refused = [one for one in load.seen if one.end is End.REFUSED]
    return refusals(refused) - {"credit_unavailable", "key_check_unavailable", "model_not_ready"}
