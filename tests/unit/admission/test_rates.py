from __future__ import annotations

import pytest

from penstock.access.keyring import Principal
from penstock.access.limits import RateLimits
from penstock.admission import at_once
from penstock.admission import rates as rooms
from penstock.admission.rates import REQUESTS, TOKENS, RateLimited, Rates, Scope, limited_scopes
from penstock.admission.shared_counters import SharedCounters
from penstock.edge import rate_headers


class Clock:
    now_s = 6_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters() -> SharedCounters:
    return SharedCounters("redis://127.0.0.1:1")


@pytest.fixture
def rates(counters: SharedCounters, clock: Clock) -> Rates:
    return Rates(counters, clock)


def scope(name: str = "key k", **limits: int) -> Scope:
    return Scope(name, name, RateLimits(**limits))


def once(rates: Rates, scope: Scope, tokens: int = 0) -> None:
    with rates.enter([scope]) as passed:
        passed.tokens = tokens


def test_requests_beyond_the_limit_are_refused_and_say_which_limit_and_when(rates: Rates) -> None:
    limited = scope(requests_per_minute=3)
    for _ in range(3):
        once(rates, limited)
    with pytest.raises(RateLimited, match="key k is limited to 3 requests per minute and has 3") as refused:
        once(rates, limited)
    assert (refused.value.limit, refused.value.most, refused.value.used) == (REQUESTS, 3, 3)
    assert refused.value.rooms[REQUESTS].remaining == 0
    assert 1 <= refused.value.retry_after_s <= 61


def test_the_minute_slides(rates: Rates, clock: Clock) -> None:
    limited = scope(requests_per_minute=10)
    for _ in range(10):
        once(rates, limited)
    clock.now_s += 90  # halfway into the next minute, half of the last one still counts
    for _ in range(5):
        once(rates, limited)
    with pytest.raises(RateLimited):
        once(rates, limited)
    clock.now_s += 120
    once(rates, limited)


def test_waiting_as_long_as_told_is_enough(rates: Rates, clock: Clock) -> None:
    limited = scope(requests_per_minute=7)
    for second in range(400):
        clock.now_s += 1.3
        try:
            once(rates, limited)
        except RateLimited as refused:
            clock.now_s += refused.retry_after_s
            once(rates, limited)
        assert second < 400


def test_tokens_count_when_they_are_known(rates: Rates) -> None:
    limited = scope(tokens_per_minute=100)
    once(rates, limited, tokens=99)
    once(rates, limited, tokens=50)
    with pytest.raises(RateLimited, match="tokens per minute"):
        once(rates, limited)


def test_tokens_far_beyond_the_limit_take_as_long_as_told_to_fade(rates: Rates, clock: Clock) -> None:
    limited = scope(tokens_per_minute=100)
    for tokens in (1_000, 250, 101, 100):
        once(rates, limited, tokens)
        with pytest.raises(RateLimited) as refused:
            once(rates, limited)
        clock.now_s += refused.value.retry_after_s
        once(rates, limited)
        clock.now_s += 200


def test_requests_at_once_are_counted_in_and_out(rates: Rates, clock: Clock) -> None:
    limited = [scope(concurrent_requests=2)]
    for _ in range(3):
        with rates.enter(limited):
            with rates.enter(limited), pytest.raises(RateLimited, match="2 requests at once"):
                rates.enter(limited)
            clock.now_s += at_once.TURN_S * 1.5  # they stay counted while turns pass
            with rates.enter(limited), pytest.raises(RateLimited, match="2 requests at once"):
                rates.enter(limited)


def test_what_one_limit_refuses_no_other_counts(rates: Rates) -> None:
    wide, narrow = scope("project 1", requests_per_minute=2), scope(requests_per_minute=1)
    with rates.enter([wide, narrow]):
        pass
    for _ in range(5):
        with pytest.raises(RateLimited, match="key k"):
            rates.enter([wide, narrow])
    with rates.enter([wide]):
        pass


def test_what_is_refused_is_not_counted(rates: Rates, clock: Clock) -> None:
    limited = scope(requests_per_minute=1, concurrent_requests=1)
    once(rates, limited)
    for _ in range(50):
        with pytest.raises(RateLimited):
            once(rates, limited)
    clock.now_s += 121
    once(rates, limited)


def test_the_room_told_is_the_tightest_and_counts_the_request_itself(rates: Rates, clock: Clock) -> None:
    scopes = [
        scope("key k", requests_per_minute=10, tokens_per_minute=1_000),
        scope("project p", requests_per_minute=3),
    ]
    with rates.enter(scopes) as passed:
        passed.tokens = 400
    with rates.enter(scopes) as passed:
        pass
    assert (passed.rooms[REQUESTS].most, passed.rooms[REQUESTS].remaining) == (3, 1)
    assert (passed.rooms[TOKENS].most, passed.rooms[TOKENS].remaining) == (1_000, 600)
    clock.now_s += passed.rooms[TOKENS].reset_s
    with rates.enter(scopes) as passed:
        pass
    assert passed.rooms[TOKENS].remaining == 1_000
    assert passed.rooms[REQUESTS].remaining == 2


def test_minutes_that_count_no_more_are_forgotten(
    rates: Rates, counters: SharedCounters, clock: Clock
) -> None:
    limited = scope(requests_per_minute=10_000, tokens_per_minute=10_000, concurrent_requests=10)
    for _ in range(300):
        once(rates, limited, tokens=1)
        clock.now_s += 20
        rates.tidy()
    assert len(counters._sums) < 20
    assert len(counters._unsent) < 20
    assert len(rates._minutes) <= 3


def test_a_principal_is_limited_by_its_key_its_project_and_its_organisation() -> None:
    limits = [RateLimits(requests_per_minute=n) for n in (1, 2, 3)]
    whose = Principal(7, 8, "k", 1.0, *limits)
    assert [(each.id, each.limits) for each in limited_scopes(whose)] == list(
        zip(("key k", "project 8", "organisation 7"), limits, strict=True)
    )
    assert limited_scopes(Principal(7, 8, "k")) == []


def test_endpoints_of_the_same_name_are_limited_apart() -> None:
    limits = RateLimits(requests_per_minute=1)
    one, other = (rooms.endpoint_scope(number, "front-desk", limits) for number in (1, 2))
    assert one.id != other.id
    assert one.words == other.words == "endpoint front-desk"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, b"0s"), (0.2, b"1s"), (59.1, b"1m0s"), (61, b"1m1s"), (45, b"45s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: bytes) -> None:
    assert rate_headers.duration(seconds) == text
