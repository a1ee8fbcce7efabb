from __future__ import annotations

from penstock.serving.hedging import LATELY_S, Budget


def hedges(budget: Budget, now_s: float, most: int = 1000) -> int:
    """How many more are allowed in one moment."""
    count = 0
    while count < most and budget.spend(now_s):
        count += 1
    return count


def test_one_in_twenty_may_be_hedged() -> None:
    budget = Budget()
    for number in range(1000):
        budget.asked(number / 50)
    assert hedges(budget, 20.0) == 50


def test_one_may_be_hedged_where_there_are_few() -> None:
    budget = Budget()
    budget.asked(0)
    assert hedges(budget, 0.5) == 1
    assert hedges(budget, LATELY_S - 1) == 0
    assert hedges(budget, LATELY_S + 1) == 1


def test_what_came_to_nothing_is_not_spent() -> None:
    budget = Budget()
    assert budget.spend(0)
    budget.keep(0)
    assert hedges(budget, 0) == 1


def test_what_is_long_ago_does_not_count() -> None:
    budget = Budget()
    for _ in range(1000):
        budget.asked(0)
    assert hedges(budget, LATELY_S + 1) == 1


def test_it_remembers_no_more_than_a_minute() -> None:
    budget = Budget()
    for number in range(10_000):
        budget.asked(number)
    assert len(budget._seconds) == LATELY_S
