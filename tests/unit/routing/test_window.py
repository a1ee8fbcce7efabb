from __future__ import annotations

from penstock.routing.window import Window


def test_late_first_tokens_shrink_it_and_early_ones_let_it_grow_again() -> None:
    window = Window(16, target_s=1)
    for second in range(10):
        window.first_token(3, window.size, now_s=10 * second + 10)
    small = window.size
    assert small <= 2
    for second in range(1000):
        window.first_token(0.1, window.size, now_s=200 + second)
    assert window.size == 16


def test_a_burst_of_late_ones_shrinks_it_once() -> None:
    window = Window(100, target_s=1)
    for _ in range(50):
        window.first_token(2, 100, now_s=10)
    assert window.size == 80


def test_it_does_not_grow_while_it_is_not_what_limits() -> None:
    window = Window(16, target_s=1)
    window.first_token(5, 16, now_s=10)
    for second in range(1000):
        window.first_token(0.1, 1, now_s=20 + second)
    assert window.size == 12


def test_one_request_may_always_go() -> None:
    window = Window(1, target_s=0.001)
    for second in range(50):
        window.first_token(9, 1, now_s=100.0 * second)
    assert window.has_room(0)
    assert not window.has_room(1)
