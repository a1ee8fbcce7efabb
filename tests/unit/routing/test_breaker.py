from __future__ import annotations

from penstock.routing.breaker import FAILURES_MAX, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker


def broken(at_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for number in range(FAILURES_MAX):
        assert breaker.allows(at_s)
        breaker.sent()
        assert breaker.failed(at_s) is (number == FAILURES_MAX - 1)
    assert breaker.opened
    return breaker


def test_failures_in_a_row_open_it_for_a_while() -> None:
    breaker = broken()
    assert not breaker.allows(FIRST_PAUSE_S - 0.01)
    assert breaker.allows(FIRST_PAUSE_S)


def test_single_failures_between_successes_do_not() -> None:
    breaker = Breaker()
    for _ in range(20):
        breaker.failed(0)
        breaker.failed(0)
        breaker.worked()
    assert breaker.allows(0)


def test_an_engine_that_is_surely_gone_is_left_alone_at_once() -> None:
    breaker = Breaker()
    breaker.sent()
    assert breaker.failed(0, surely=True)
    assert not breaker.allows(0)


def test_beginnings_without_ends_are_no_successes() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        breaker.sent()
        breaker.answers()
        breaker.failed(0)
    assert not breaker.allows(0)


def test_after_the_pause_one_request_tries_it() -> None:
    breaker = broken()
    breaker.sent()
    assert not breaker.allows(FIRST_PAUSE_S)
    breaker.worked()
    assert breaker.allows(FIRST_PAUSE_S)
    assert not breaker.opened


def test_a_try_that_makes_tokens_lets_others_in_until_the_next_failure() -> None:
    breaker = broken()
    breaker.sent()
    breaker.answers()
    assert breaker.allows(FIRST_PAUSE_S)
    breaker.sent()
    assert breaker.allows(FIRST_PAUSE_S)
    assert breaker.failed(FIRST_PAUSE_S)
    assert not breaker.allows(FIRST_PAUSE_S * 2.9)
    assert breaker.allows(FIRST_PAUSE_S * 3)


def test_a_try_that_told_nothing_leaves_room_for_another() -> None:
    breaker = broken()
    breaker.sent()
    breaker.undecided()
    assert breaker.allows(FIRST_PAUSE_S)
    assert breaker.opened


def test_requests_that_were_there_before_do_not_make_the_pause_longer() -> None:
    breaker = broken()
    for _ in range(50):
        assert not breaker.failed(0.5)
    assert breaker.allows(FIRST_PAUSE_S)


def test_pauses_grow_while_tries_fail_and_start_short_again_after_a_success() -> None:
    breaker = broken()
    now_s, pauses = FIRST_PAUSE_S, []
    for _ in range(8):
        breaker.sent()
        breaker.failed(now_s)
        waited = 0.0
        while not breaker.allows(now_s + waited):
            waited += 0.5
        pauses.append(waited)
        now_s += waited
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    breaker.worked()
    assert broken(now_s).allows(now_s + FIRST_PAUSE_S)
