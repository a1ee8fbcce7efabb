"""Which engine gets requests while some fail: hanging ones are left alone, and come back when they work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.routing.breaker import FAILURES_MAX

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
Body = Callable[..., bytes]


def target_of(bench: Any, engine: Any) -> Any:
    (found,) = [one for one in bench.gateway.directory.all_targets() if one.id == engine.name]
    return found


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("token", [1, 4])
async def test_an_engine_that_hangs_gets_no_request_after_the_first_failures_and_returns_when_it_works(
    bench: Any, chat: Body, stream: bool, token: int
) -> None:
    await bench.set_pool(policy="least_load")
    hanging = await bench.start_engine("a")
    await bench.start_engine("b")
    await hanging.breaks(hang_at_token=token)
    breaker = target_of(bench, hanging).breaker
    async with bench.client() as client:

        async def ask() -> Any:
            return await client.post(CHAT, content=chat(stream=stream), headers=JSON)

        # Two at once, so that both engines get one: until the first stalls, nobody can tell.
        while not breaker.opened:
            await asyncio.gather(ask(), ask())
        sent = len(await hanging.made())
        assert sent >= FAILURES_MAX
        before = breaker._until_s
        answers = [await ask() for _ in range(10)]
        if breaker._until_s == before and len(await hanging.made()) == sent:
            # Not even a try was due while those were answered.
            assert {answer.status_code for answer in answers} == {200}
        assert len(await hanging.made()) <= sent + 1
        await hanging.mend()

        async def returned() -> bool | None:
            await asyncio.gather(ask(), ask())
            return None if breaker.opened else True

        await bench.until(returned, 60)
        sent = len(await hanging.made())
        answers = await asyncio.gather(*(ask() for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert len(await hanging.made()) > sent


async def test_a_try_that_its_client_leaves_is_followed_by_another(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine("a", first_token_ms=300)
    breaker = target_of(bench, engine).breaker
    for _ in range(FAILURES_MAX):
        breaker.failed(0)
    async with bench.client() as client:
        asked = asyncio.create_task(client.post(CHAT, content=chat(stream=True), headers=JSON))

        async def sent() -> bool | None:
            return True if await engine.made() else None

        await bench.until(sent)
        assert not breaker.allows(1e12)
        asked.cancel()

        async def free() -> bool | None:
            return True if breaker.allows(1e12) else None

        await bench.until(free)
        assert (await client.post(CHAT, content=chat(stream=True), headers=JSON)).status_code == 200
    assert not breaker.opened


async def test_an_engine_whose_process_is_gone_is_left_alone_at_once(bench: Any, chat: Body) -> None:
    dead = await bench.start_engine("a")
    await bench.start_engine("b")
    dead.process.kill()
    await dead.process.wait()
    breaker = target_of(bench, dead).breaker
    async with bench.client() as client:

        async def found_out() -> bool | None:
            answers = await asyncio.gather(
                *(client.post(CHAT, content=chat(), headers=JSON) for _ in range(4))
            )
            assert {answer.status_code for answer in answers} == {200}
            return True if breaker.opened else None

        await bench.until(found_out)
