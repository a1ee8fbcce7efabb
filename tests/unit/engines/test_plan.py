"""Plans: what is started and stopped so that a pool becomes what it should be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_engines.plan import Plan, Present, plan
from penstock_engines.replica import ReplicaState

STARTING, READY, ASLEEP, DRAINING, GONE = ReplicaState


def test_an_empty_pool_is_filled() -> None:
    assert plan(2, 1, []) == Plan(2, (), ())


def test_a_surplus_is_taken_from_those_that_do_not_serve_yet_then_from_the_idle_then_from_the_young() -> None:
    present = [
        Present("old", 1, READY, running=0),
        Present("busy", 1, READY, running=5),
        Present("young", 1, READY, running=0),
        Present("starting", 1, STARTING),
    ]
    assert plan(3, 1, present).stop == ("starting",)
    assert plan(2, 1, present).stop == ("starting", "young")
    assert plan(1, 1, present).stop == ("starting", "young", "old")


def test_a_new_version_comes_up_before_the_old_one_goes() -> None:
    old = [Present("a", 1, READY), Present("b", 1, READY)]
    assert plan(2, 2, old) == Plan(2, (), ("b", "a"))
    coming = [Present("c", 2, STARTING), Present("d", 2, STARTING)]
    assert plan(2, 2, [*old, *coming]) == Plan(0, (), ())
    half = [Present("c", 2, READY), Present("d", 2, STARTING)]
    assert plan(2, 2, [*old, *half]) == Plan(0, ("b",), ())
    whole = [Present("c", 2, READY), Present("d", 2, READY)]
    assert plan(2, 2, [*old, *whole]) == Plan(0, ("b", "a"), ())


def test_a_version_that_cannot_be_run_replaces_nothing_and_is_not_tried_again() -> None:
    present = [Present("a", 1, READY), Present("b", 2, GONE, refused=True)]
    assert plan(1, 2, present) == Plan(0, (), ())
    assert plan(1, 3, present) == Plan(1, (), ("a",))


def test_a_pool_that_should_sleep_keeps_nothing() -> None:
    present = [Present("a", 1, READY, running=3), Present("b", 2, STARTING)]
    assert set(plan(0, 2, present).stop) == {"a", "b"}


def test_draining_engines_count_for_nothing() -> None:
    assert plan(1, 1, [Present("a", 1, DRAINING)]) == Plan(1, (), ())


@given(
    wanted=st.integers(0, 5),
    version=st.integers(1, 3),
    present=st.lists(
        st.builds(
            Present,
            st.uuids().map(str),
            st.integers(1, 3),
            st.sampled_from([STARTING, READY, DRAINING, GONE]),
            st.integers(0, 9),
        ),
        unique_by=lambda one: one.id,
        max_size=8,
    ),
)
def test_no_step_leaves_fewer_ready_engines_than_wanted_where_there_were_enough(
    wanted: int, version: int, present: list[Present]
) -> None:
    todo = plan(wanted, version, present)
    ready = {one.id for one in present if one.state is READY}
    assert len(ready - set(todo.stop)) >= min(wanted, len(ready))
    assert len(set(todo.stop)) == len(todo.stop)


@given(wanted=st.integers(0, 4), before=st.integers(0, 6))
def test_following_plans_ends_in_what_is_wanted(wanted: int, before: int) -> None:
    present = [Present(f"old-{n}", 1, READY) for n in range(before)]
    for step in range(20):
        todo = plan(wanted, 2, present)
        present = [one for one in present if one.id not in todo.stop]
        # What was started a step ago is ready now.
        present = [Present(one.id, one.version, READY) for one in present]
        present += [Present(f"new-{step}-{n}", 2, STARTING) for n in range(todo.start)]
    assert [one.version for one in present] == [2] * wanted


def test_the_last_engine_of_a_pool_sleeps_where_it_can() -> None:
    todo = plan(
        0, 1, [Present("a", 1, READY, running=3, can_sleep=True), Present("b", 1, READY, can_sleep=True)]
    )
    assert (todo.sleep, todo.stop) == (("a",), ("b",))
    asleep = Present("a", 1, ASLEEP, can_sleep=True)
    todo = plan(0, 1, [asleep, Present("b", 1, READY, can_sleep=True)])
    assert (todo.sleep, todo.stop) == ((), ("b",))
    assert plan(0, 1, [asleep]) == plan(0, 1, [])


def test_one_that_sleeps_wakes_before_another_is_started() -> None:
    todo = plan(2, 1, [Present("a", 1, ASLEEP, can_sleep=True)])
    assert (todo.wake, todo.start, todo.stop) == (("a",), 1, ())


def test_one_that_sleeps_and_is_of_no_use_is_stopped() -> None:
    old = Present("a", 1, ASLEEP, can_sleep=True)
    assert plan(0, 2, [old]).stop == ("a",)
    assert (plan(1, 2, [old]).stop, plan(1, 2, [old]).start) == (("a",), 1)
    assert plan(0, 1, [Present("a", 1, ASLEEP)]).stop == ("a",)
    assert plan(1, 1, [Present("b", 1, READY), old]).stop == ("a",)


def test_scaling_down_to_one_lets_none_sleep() -> None:
    todo = plan(1, 1, [Present("a", 1, READY, can_sleep=True), Present("b", 1, READY, can_sleep=True)])
    assert (len(todo.stop), todo.sleep) == (1, ())
