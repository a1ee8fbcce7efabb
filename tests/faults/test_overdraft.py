"""How far credit goes below nothing when it ends under load: not at all, or within the stated bound."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import Any

from rig.check import outcomes
from rig.client import End, Seen
from rig.load import Load
from rig.room import OFFER, Room
from rig.server import until

from penstock.admission.credit.charge import STEP_TOKENS
from penstock.serving.relay import CHECK_EVERY_S

OUTPUT_NANO_USD = OFFER.output_pico_usd // 1000
"""Of one token."""
DOLLAR = 1_000_000_000
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HELLO = [{"role": "user", "content": "Hello"}]


def of_credit(seen: list[Seen]) -> list[Seen]:
    """Requests that were refused or ended for want of credit."""
    return [one for one in seen if (one.error or {}).get("code") == "insufficient_credit"]


async def runs_dry(load: Load, times: int) -> None:
    """Wait until requests were refused for want of credit so often."""

    async def is_dry() -> bool:
        return len([one for one in of_credit(load.seen) if one.end is End.REFUSED]) >= times

    await until(is_dry, "the credit is used up", within_s=120)


async def test_elastic_credit_of_two_gateways_ends_within_its_bound(room: Room) -> None:
    """A wallet runs dry under load: streams are stopped in words, and hardly more is made than is paid."""
    clients, choices, tokens_per_s = 8, 2, 200

    def long_streams(chance: random.Random) -> dict[str, Any]:
        n = chance.randint(1, choices)
        return {"messages": HELLO, "max_tokens": chance.randint(200, 1500), "n": n, **STREAM}

    wallet = await room.fund(20_000 * OUTPUT_NANO_USD)
    await room.start_engine(tokens_per_second=tokens_per_s, answer_tokens=5_000)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load(clients=clients, make=long_streams) as load:
        await runs_dry(load, 6)
    events = await room.check()
    stopped = [one for one in of_credit(load.seen) if one.status == 200]
    assert len(stopped) == outcomes(events)["credit_ended"] > 0
    assert all(one.usage is not None for one in stopped)
    # billing/README.md, "The overdraft": every stream that ran, with all its choices, at its worst.
    bound = clients * choices * OUTPUT_NANO_USD * (STEP_TOKENS + tokens_per_s * CHECK_EVERY_S)
    assert -bound <= await room.credit(wallet) < 5_000 * OUTPUT_NANO_USD


async def test_strict_credit_never_goes_below_nothing_whoever_is_killed(room: Room) -> None:
    """SIGKILL again and again while a strict wallet runs dry; what the dead held comes back."""

    def anything(chance: random.Random) -> dict[str, Any]:
        body = {"messages": HELLO, "max_tokens": chance.randint(5, 300), "n": chance.choice((1, 2))}
        return body | chance.choice(({}, STREAM))

    wallet = await room.fund(30_000 * OUTPUT_NANO_USD, strict=True)
    await room.start_engine(tokens_per_second=400, answer_tokens=5_000)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    credit = []
    async with room.load(clients=8, make=anything) as load:
        for victim in (0, 1, 0):
            await load.more(12)
            await room.gateways[victim].kill()
            credit.append(await room.credit(wallet))
            await room.gateways[victim].start()
        await runs_dry(load, 10)
    await room.check()

    async def only_the_living_hold() -> bool:
        return bool(await room.fetchval("select count(*) <= 2 from billing.lease where released_at is null"))

    await until(only_the_living_hold, "the leases of the dead are released")
    await room.check()
    assert min([*credit, await room.credit(wallet)]) >= 0


async def test_a_gateway_that_stops_leaves_no_lease(room: Room) -> None:
    wallet = await room.fund(DOLLAR)
    await room.start_engine()
    gateway = await room.start_gateway()

    async def served() -> bool:
        return (await room.ask(gateway)).end is End.FINISHED

    await until(served, "the gateway leased credit and answers")
    gateway.send(signal.SIGTERM)
    await gateway.ended()
    assert await room.fetchval("select count(*) from billing.lease where released_at is null") == 0
    cost = sum(event["cost_nano_usd"] for event in await room.check())
    assert await room.credit(wallet) == DOLLAR - cost
