from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.admission.fair_queue import FairQueue, Urgency, service


def drain(queue: FairQueue[str], cost: float = 1.0) -> list[str]:
    """Serve all that waits; items are named by their tenant's number."""
    order = []
    while (item := queue.pop()) is not None:
        order.append(item)
        queue.charge(int(item), cost)
    return order


def test_tenants_take_turns_however_many_requests_one_has() -> None:
    queue: FairQueue[str] = FairQueue()
    for tenant, count in ((1, 6), (2, 2)):
        for _ in range(count):
            queue.push(tenant, str(tenant))
    assert drain(queue) == ["1", "2", "1", "2", "1", "1", "1", "1"]


def test_a_tenant_of_twice_the_weight_is_served_twice_as_much() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(60):
        queue.push(1, "1", weight=1)
        queue.push(2, "2", weight=2)
    first = drain(queue)[:60]
    assert 39 <= first.count("2") <= 41


def test_long_answers_count_more_than_short_ones() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(20):
        queue.push(1, "1")
        queue.push(2, "2")
    served = {"1": 0, "2": 0}
    for _ in range(22):
        item = queue.pop()
        assert item is not None
        served[item] += 1
        queue.charge(int(item), 10 if item == "1" else 1)
    assert served == {"1": 2, "2": 20}


def test_who_was_away_comes_back_level_with_the_least_of_those_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1")
    for _ in range(100):
        queue.pop()
        queue.charge(1, 100)
        queue.push(1, "1")
    queue.push(2, "2")
    assert queue.counter(2) == queue.counter(1)


def test_who_comes_when_nobody_waits_begins_where_the_last_one_was_served() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1")
    queue.charge(1, 500)
    queue.pop()
    queue.push(2, "2")
    assert queue.counter(2) == 500


def test_who_was_served_without_waiting_is_not_starved_by_a_newcomer() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(1_000):
        queue.pass_by(1)
        queue.charge(1, 100)
    for _ in range(20):
        queue.push(2, "2")
        queue.push(1, "1")
    assert drain(queue, 100)[:6].count("1") >= 2


def test_work_that_may_wait_does_not_hold_back_those_who_do_not() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(3, "3", urgency=Urgency.BATCH)
    for _ in range(1_000):
        queue.pass_by(1)
        queue.charge(1, 100)
    queue.push(1, "1")
    queue.push(2, "2")
    assert queue.counter(1) - queue.counter(2) <= 100


def test_service_of_work_that_may_wait_is_no_debt_of_interactive_work() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1", urgency=Urgency.BATCH)
    queue.charge(1, 1_000_000, Urgency.BATCH)
    queue.push(2, "2")
    queue.push(1, "1")
    queue.charge(2, 1)
    assert queue.pop() == "1"


def test_only_those_that_may_are_served_where_few_places_are_left() -> None:
    queue: FairQueue[str] = FairQueue()
    for tenant in (1, 2, 3):
        queue.push(tenant, str(tenant))
    queue.push(4, "4", urgency=Urgency.BATCH)
    assert queue.pop_interactive(lambda tenant: tenant > 1) == "2"
    assert queue.pop_interactive(lambda tenant: tenant > 3) is None
    assert len(queue) == 3


def test_a_heap_does_not_grow_with_those_who_give_up() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1")
    queue.charge(2, 100)
    for _ in range(10_000):
        queue.push(2, "2")
        queue.remove(2, "2")
    assert len(queue._lines[Urgency.INTERACTIVE]._heap) < 100


def test_batch_work_waits_for_all_interactive_work() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1", urgency=Urgency.BATCH)
    queue.push(2, "2")
    queue.push(2, "2")
    assert drain(queue) == ["2", "2", "1"]


def test_who_gives_up_is_not_served() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1")
    assert queue.remove(1, "1")
    assert not queue.remove(1, "1")
    assert queue.pop() is None
    assert len(queue) == 0


def test_what_was_charged_too_much_can_be_given_back() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push(1, "1")
    queue.push(2, "2")
    queue.charge(1, 100)
    queue.charge(2, 50)
    queue.charge(1, -90)
    assert queue.pop() == "1"


def test_a_flood_fills_half_of_the_queue_and_others_find_room() -> None:
    queue: FairQueue[str] = FairQueue()
    while queue.has_room(1, 100):
        queue.push(1, "1")
    assert len(queue) == 50
    for _ in range(20):
        assert queue.has_room(2, 100)
        queue.push(2, "2")
    while queue.has_room(3, 100):
        queue.push(3, "3")
    assert len(queue) < 100
    assert not queue.has_room(1, 100)


def test_cached_tokens_count_a_tenth() -> None:
    assert service(100, 50, 10) == 50 + 5 + 20


def test_idle_tenants_are_forgotten_and_begin_at_the_floor() -> None:
    queue: FairQueue[str] = FairQueue()
    for tenant in range(100):
        queue.push(tenant, str(tenant))
    drain(queue, 10)
    assert len(queue.forget(10)) == 90
    queue.push(3, "3")
    assert queue.counter(3) <= 10


operation = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 5)),
    st.tuples(st.just("pop"), st.just(0)),
    st.tuples(st.just("charge"), st.integers(1, 5)),
    st.tuples(st.just("give back"), st.integers(1, 5)),
    st.tuples(st.just("remove"), st.integers(1, 5)),
)


@given(st.lists(operation, max_size=60), st.randoms(use_true_random=False))
def test_the_heap_finds_whom_a_search_finds(operations: list[tuple[str, int]], dice: random.Random) -> None:
    queue: FairQueue[str] = FairQueue()
    waiting: dict[int, int] = {}
    for name, tenant in operations:
        if name == "push":
            queue.push(tenant, str(tenant))
            waiting[tenant] = waiting.get(tenant, 0) + 1
        elif name == "charge":
            queue.charge(tenant, dice.randrange(100))
        elif name == "give back":
            queue.charge(tenant, -dice.randrange(20))
        elif name == "remove":
            assert queue.remove(tenant, str(tenant)) is (waiting.get(tenant, 0) > 0)
            waiting[tenant] = max(0, waiting.get(tenant, 0) - 1)
        else:
            there = {t: queue.counter(t) for t, count in waiting.items() if count}
            item = queue.pop()
            assert (item is None) is (not there)
            if item is not None:
                assert queue.counter(int(item)) == min(there.values())
                waiting[int(item)] -= 1
        assert len(queue) == sum(waiting.values())


@given(st.integers(0, 2**32), st.integers(2, 5))
def test_the_service_of_tenants_that_wait_never_drifts_apart(seed: int, tenants: int) -> None:
    """The paper's bound: at most the largest charge at once, whatever the requests are like."""
    dice = random.Random(seed)
    queue: FairQueue[str] = FairQueue()
    largest = 50.0
    for tenant in range(tenants):
        for _ in range(200):
            queue.push(tenant, str(tenant))
    for _ in range(150):
        item = queue.pop()
        assert item is not None
        queue.charge(int(item), dice.uniform(1, largest))
        counters = [queue.counter(tenant) for tenant in range(tenants)]
        assert max(counters) - min(counters) <= 2 * largest
