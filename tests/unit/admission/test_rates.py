from __future__ import annotations

import pytest

from penstock.access.limits import RateLimits
from penstock.admission.rates import RateLimited, Rates
from penstock.admission.shared_counters import SharedCounters

SCOPE = "key k"


class Clock:
    now_s = 6_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> Rates:
    return Rates(SharedCounters("redis://127.0.0.1:1"), clock)


def once(rates: Rates, limits: RateLimits, tokens: int = 0) -> None:
    with rates.enter([(SCOPE, limits)]) as passed:
        passed.tokens = tokens


def test_requests_beyond_the_limit_are_refused_and_say_which_limit_and_when(rates: Rates) -> None:
    limits = RateLimits(requests_per_minute=3)
    for _ in range(3):
        once(rates, limits)
    with pytest.raises(RateLimited, match="key k is limited to 3 requests per minute") as refused:
        once(rates, limits)
    assert refused.value.remaining == 0
    assert 1 <= refused.value.retry_after_s <= 61


def test_the_minute_slides(rates: Rates, clock: Clock) -> None:
    limits = RateLimits(requests_per_minute=10)
    for _ in range(10):
        once(rates, limits)
    clock.now_s += 90  # halfway into the next minute, half of the last one still counts
    for _ in range(5):
        once(rates, limits)
    with pytest.raises(RateLimited):
        once(rates, limits)
    clock.now_s += 120
    once(rates, limits)


def test_waiting_as_long_as_told_is_enough(rates: Rates, clock: Clock) -> None:
    limits = RateLimits(requests_per_minute=7)
    for second in range(400):
        clock.now_s += 1.3
        try:
            once(rates, limits)
        except RateLimited as refused:
            clock.now_s += refused.retry_after_s
            once(rates, limits)
        assert second < 400


def test_tokens_count_when_they_are_known(rates: Rates) -> None:
    limits = RateLimits(tokens_per_minute=100)
    once(rates, limits, tokens=99)
    once(rates, limits, tokens=50)
    with pytest.raises(RateLimited, match="tokens per minute"):
        once(rates, limits)


def test_tokens_far_beyond_the_limit_take_as_long_as_told_to_fade(rates: Rates, clock: Clock) -> None:
    limits = RateLimits(tokens_per_minute=100)
    for tokens in (1_000, 250, 101, 100):
        once(rates, limits, tokens)
        with pytest.raises(RateLimited) as refused:
            once(rates, limits)
        clock.now_s += refused.value.retry_after_s
        once(rates, limits)
        clock.now_s += 200


def test_requests_at_once_are_counted_in_and_out(rates: Rates) -> None:
    limits = [(SCOPE, RateLimits(concurrent_requests=2))]
    with rates.enter(limits):
        with rates.enter(limits), pytest.raises(RateLimited, match="2 requests at once"):
            rates.enter(limits)
        with rates.enter(limits):
            pass


def test_what_one_limit_refuses_no_other_counts(rates: Rates) -> None:
    wide, narrow = (
        ("project 1", RateLimits(requests_per_minute=2)),
        (SCOPE, RateLimits(requests_per_minute=1)),
    )
    with rates.enter([wide, narrow]):
        pass
    for _ in range(5):
        with pytest.raises(RateLimited, match="key k"):
            rates.enter([wide, narrow])
    with rates.enter([wide]):
        pass


def test_what_is_refused_is_not_counted(rates: Rates, clock: Clock) -> None:
    limits = RateLimits(requests_per_minute=1, concurrent_requests=1)
    once(rates, limits)
    for _ in range(50):
        with pytest.raises(RateLimited):
            once(rates, limits)
    clock.now_s += 121
    once(rates, limits)
