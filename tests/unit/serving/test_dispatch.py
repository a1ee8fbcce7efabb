"""Places at engines: taken at once, in fair turn, or not at all; and always given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.admission.fair_queue import Urgency
from penstock.admission.shared_counters import SharedCounters
from penstock.routing.directory import Directory
from penstock.routing.policy import Hint
from penstock.serving.dispatch import Dispatcher
from penstock.serving.tickets import ClientGone, NotServed, QueueFull, Slot, Ticket
from penstock.serving.usage import EngineUsage
from penstock_catalog.cards import EngineSettings, FolderSource, Task
from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PolicyName, PoolSettings
from penstock_engines.pools import Content, Pool
from penstock_engines.registry import Registered

MODEL = "m"


class Bench:
    """A dispatcher in front of engines that are only names."""

    def __init__(self, *batches: int, least: int = 0, most: int = 1, **settings: float) -> None:
        self.now_s = 0.0
        self.wanted: list[str] = []
        self.directory = Directory()
        scale = ScaleRules(replicas_min=least, replicas_max=most)
        settings = {"waiting_max": 100, "wait_max_s": 30, **settings}
        content = Content(
            source=FolderSource(path="/m"), task=Task.CHAT, context_length=100, engine=EngineSettings()
        )
        pool_settings = PoolSettings(scale=scale, policy=PolicyName.LEAST_LOAD, **settings)
        pool = Pool(MODEL, 1, pool_settings, "operator", content)
        self.directory.know([pool], {MODEL: 6.0})
        self.dispatcher = Dispatcher(
            self.directory,
            SharedCounters("redis://127.0.0.1:1"),
            wanted=self.wanted.append,
            clock=lambda: self.now_s,
            dice=random.Random(1),
        )
        self.engines(*batches)

    def engines(self, *batches: int, state: str = "ready") -> None:
        self.directory.update(
            [Registered(f"e{n}", MODEL, state, Path(f"/{n}"), batch, None) for n, batch in enumerate(batches)]
        )
        self.dispatcher.fill_all()

    def ask(
        self,
        tenant: int = 1,
        tokens: float = 10,
        receive: Callable[..., object] | None = None,
        urgency: Urgency = Urgency.INTERACTIVE,
    ) -> asyncio.Task[Slot]:
        ticket = Ticket(MODEL, tenant, 1.0, urgency, Hint(), tokens)
        return asyncio.ensure_future(self.dispatcher.acquire(ticket, receive or never))  # type: ignore[arg-type]

    async def give_back(self, asked: list[asyncio.Task[Slot]]) -> None:
        for each in asked:
            self.dispatcher.release(await each)
        await turn_over()


async def never() -> dict[str, object]:
    await asyncio.Event().wait()
    return {}


async def turn_over() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_where_there_is_room_a_request_goes_at_once_to_the_less_loaded() -> None:
    bench = Bench(4, 4)
    first = await bench.ask(tokens=100)
    second = await bench.ask(tokens=10)
    third = await bench.ask(tokens=10)
    assert [each.target.id for each in (first, second, third)] == ["e0", "e1", "e1"]
    assert bench.wanted == []


async def test_who_has_to_wait_gets_the_place_that_becomes_free() -> None:
    bench = Bench(1)
    first = await bench.ask()
    second = bench.ask()
    await turn_over()
    assert not second.done()
    assert bench.dispatcher.waiting(MODEL)[0] == 1
    bench.now_s = 3
    bench.dispatcher.release(first)
    slot = await second
    assert (slot.target.id, slot.waited_s, slot.wake_s) == ("e0", 3, 0)
    assert bench.dispatcher.waiting(MODEL)[0] == 0


async def test_turns_go_to_the_tenant_that_was_served_least() -> None:
    bench = Bench(1)
    running = await bench.ask(1)
    flood = [bench.ask(1) for _ in range(10)]
    await turn_over()
    other = bench.ask(2)
    await turn_over()
    bench.dispatcher.charge(running, EngineUsage(10, 500))
    bench.dispatcher.release(running)
    slot = await other
    assert not any(each.done() for each in flood)
    bench.dispatcher.release(slot)
    await turn_over()
    assert sum(each.done() for each in flood) == 1
    for each in flood:
        each.cancel()


async def test_the_last_places_are_for_tenants_that_have_few() -> None:
    bench = Bench(32)
    flood = [bench.ask(1) for _ in range(40)]
    await turn_over()
    assert sum(each.done() for each in flood) == 28
    newcomers = [bench.ask(2), bench.ask(3)]
    await turn_over()
    assert all(each.done() for each in newcomers)
    await bench.give_back(flood[:28])
    assert sum(each.done() for each in flood) == 40


async def test_work_that_may_wait_leaves_the_last_places_alone() -> None:
    bench = Bench(8)
    flexible = [bench.ask(1, urgency=Urgency.BATCH) for _ in range(9)]
    await turn_over()
    assert sum(each.done() for each in flexible) == 7
    another = bench.ask(2, urgency=Urgency.BATCH)
    await turn_over()
    assert not another.done()
    assert (await bench.ask(2)).target.id == "e0"
    another.cancel()
    await bench.give_back(flexible[:7])


async def test_a_small_pool_keeps_no_places() -> None:
    bench = Bench(4)
    flood = [bench.ask(1) for _ in range(4)]
    await turn_over()
    assert all(each.done() for each in flood)


async def test_a_flood_in_one_turn_does_not_take_every_place_that_becomes_free() -> None:
    bench = Bench()
    flood = [bench.ask(1) for _ in range(20)]
    others = [bench.ask(2) for _ in range(4)]
    await turn_over()
    bench.engines(9)
    await turn_over()
    assert sum(each.done() for each in others) == 4
    assert sum(each.done() for each in flood) == 4
    for each in flood:
        each.cancel()


async def test_a_model_without_an_engine_is_asked_for_once_and_wakes() -> None:
    bench = Bench()
    asked = bench.ask()
    await turn_over()
    assert bench.wanted == [MODEL]
    bench.now_s = 4
    bench.engines(1)
    slot = await asked
    assert (slot.wake_s, slot.waited_s) == (4, 4)


async def test_what_is_waited_after_the_model_woke_is_no_waking() -> None:
    bench = Bench()
    first, second = bench.ask(), bench.ask()
    await turn_over()
    bench.now_s = 4
    bench.engines(1)
    bench.now_s = 9
    bench.dispatcher.release(await first)
    slot = await second
    assert (slot.wake_s, slot.waited_s) == (4, 9)
    assert ((await first).policy, (await first).candidates) == ("least_load", 1)


async def test_too_many_are_refused_at_once_and_others_still_find_room() -> None:
    bench = Bench(waiting_max=10)
    flood = [bench.ask(1) for _ in range(12)]
    await turn_over()
    refused = [each for each in flood if each.done()]
    assert len(refused) == 7
    with pytest.raises(QueueFull, match="5 requests of yours and 5 in all wait"):
        await refused[0]
    for each in refused[1:]:
        each.exception()
    other = bench.ask(2)
    await turn_over()
    assert not other.done()
    for each in (*flood, other):
        each.cancel()


async def test_a_wait_that_is_too_long_ends_in_words() -> None:
    bench = Bench(wait_max_s=0.02)
    with pytest.raises(NotServed, match=r"within 0 s \(asleep\).*try again in 6 s") as late:
        await bench.ask()
    assert late.value.retry_after_s == 6
    assert bench.dispatcher.waiting(MODEL)[0] == 0


@pytest.mark.parametrize(("most", "state"), [(0, "off"), (1, "gone")])
async def test_where_no_engine_will_come_nobody_waits(most: int, state: str) -> None:
    bench = Bench(most=most)
    if state == "gone":
        bench.engines(4, state="gone")
    with pytest.raises(NotServed, match=rf"no engine of m became free \({state}\)"):
        await bench.ask()
    assert bench.wanted == []


async def test_a_client_that_leaves_loses_its_place_in_the_line() -> None:
    bench = Bench(1)
    first = await bench.ask()
    leave = asyncio.Event()

    async def receive() -> dict[str, object]:
        await leave.wait()
        return {"type": "http.disconnect"}

    second = bench.ask(receive=receive)
    third = bench.ask()
    await turn_over()
    leave.set()
    with pytest.raises(ClientGone):
        await second
    bench.dispatcher.release(first)
    assert (await third).target.id == "e0"


async def test_a_place_that_comes_as_the_client_leaves_is_given_on() -> None:
    bench = Bench(1)
    first = await bench.ask()
    second, third = bench.ask(), bench.ask(2)
    await turn_over()
    bench.dispatcher.release(first)
    second.cancel()
    await turn_over()
    slot = await third
    assert slot.target.in_flight == 1
    bench.dispatcher.release(slot)
    assert slot.target.in_flight == 0
    assert slot.target.load == 0


async def test_an_engine_that_fails_again_and_again_is_left_alone() -> None:
    bench = Bench(4, 4)
    for _ in range(3):
        slot = await bench.ask()
        slot.target.breaker.failed(bench.now_s)
        bench.dispatcher.release(slot)
    bad = slot.target.id
    assert {(await bench.ask()).target.id for _ in range(3)} == {"e0", "e1"} - {bad}


async def test_another_try_takes_an_engine_that_was_not_tried() -> None:
    bench = Bench(4, 4)
    slot = await bench.ask()
    slot.ticket.tried.append(slot.target)
    again = bench.dispatcher.retry(slot)
    assert again is not None
    assert again.target is not slot.target
    assert again.retries == 1
    again.ticket.tried.append(again.target)
    assert bench.dispatcher.retry(again) is None


async def test_a_request_whose_engine_was_lost_waits_for_another_and_prefers_one_that_was_not_tried() -> None:
    bench = Bench(1, 1, wait_max_s=5)
    lost = await bench.ask()
    other = await bench.ask()
    bench.dispatcher.release(lost)
    lost.ticket.tried.append(lost.target)
    lost.target.breaker.failed(0, surely=True)
    assert bench.dispatcher.retry(lost) is None
    waiting = asyncio.ensure_future(bench.dispatcher.wait_again(lost, never))  # type: ignore[arg-type]
    await turn_over()
    # By then the one that was lost may be tried as well; the other has not failed it.
    bench.now_s = 2
    bench.dispatcher.release(other)
    again = await waiting
    assert again.target is other.target
    assert (again.waited_s, again.retries) == (2, 1)
    again.waited_s = 5
    with pytest.raises(NotServed):
        await bench.dispatcher.wait_again(again, never)  # type: ignore[arg-type]


async def test_a_place_is_given_back_once() -> None:
    bench = Bench(4)
    slot, other = await bench.ask(), await bench.ask()
    for _ in range(3):
        bench.dispatcher.release(slot)
    assert slot.target.in_flight == 1
    bench.dispatcher.release(other)


async def test_while_tenants_share_a_model_long_prompts_of_a_backlog_are_read_one_after_the_other() -> None:
    bench = Bench(16)
    shared = [await bench.ask(tenant, tokens=10) for tenant in (1, 2, 1)]
    for each in shared:
        bench.dispatcher.read(each)
    reading = await bench.ask(1, tokens=300)
    waiting = bench.ask(1, tokens=300)
    small = [await bench.ask(2, tokens=10)]
    await turn_over()
    # Tenant 2 has few places, so that it does not wait for what is read.
    assert not waiting.done()
    bench.dispatcher.read(reading)
    await turn_over()
    assert waiting.done()
    for each in (*shared, reading, *small, await waiting):
        bench.dispatcher.release(each)
    assert bench.directory.all_targets()[0].unread_tokens == 0


async def test_short_prompts_are_read_together_and_a_lone_tenant_is_not_paced() -> None:
    alone = Bench(16)
    assert all([await alone.ask(1, tokens=300) for _ in range(10)])
    together = Bench(16)
    for tenant in (1, 2):
        together.dispatcher.read(await together.ask(tenant))
    assert all([await together.ask(1, tokens=30) for _ in range(10)])


async def test_a_prompt_that_is_never_read_holds_others_up_only_as_long_as_it_has_its_place() -> None:
    bench = Bench(16)
    for tenant in (1, 2, 1):
        bench.dispatcher.read(await bench.ask(tenant))
    stuck = await bench.ask(1, tokens=300)
    waiting = bench.ask(1, tokens=300)
    await turn_over()
    assert not waiting.done()
    bench.dispatcher.release(stuck)
    await turn_over()
    assert waiting.done()


async def test_models_are_shared_only_for_a_while() -> None:
    bench = Bench(16)
    for tenant in (1, 2, 1):
        bench.dispatcher.read(await bench.ask(tenant))
    bench.now_s = 11
    assert all([await bench.ask(1, tokens=300) for _ in range(5)])
