"""How long a leader was silent, as those that stand by see it: never what they did not see."""

from __future__ import annotations

import pytest

from penstock.control.leadership import BEAT_S, SILENT_S, Silence

QUIET = [(1, 100.0)] * 20


def seen(holders: list[tuple[int, float] | None], *, took_s: float = 0.01, gap_s: float = BEAT_S) -> float:
    """The silence after looks at these, one after the other."""
    silence, now_s, found_s = Silence(), 1_000.0, 0.0
    for holder in holders:
        found_s = silence.look(holder, now_s, now_s + took_s)
        now_s += took_s + gap_s
    return found_s


def test_a_leader_that_says_nothing_is_silent() -> None:
    assert seen(QUIET[:3]) < SILENT_S
    assert seen(QUIET) > SILENT_S


@pytest.mark.parametrize(
    "holders",
    [
        [(1, 100.0 + number) for number in range(20)],
        [*QUIET, (1, 101.0)],
        [*QUIET, (2, 100.0)],
        [*QUIET, None],
    ],
    ids=["it speaks", "it spoke again", "another one leads", "nobody leads"],
)
def test_a_leader_that_lives_is_not_silent(holders: list[tuple[int, float] | None]) -> None:
    assert seen(holders) == 0


@pytest.mark.parametrize(("took_s", "gap_s"), [(5.0, BEAT_S), (0.01, 30.0)], ids=["Postgres", "we"])
def test_what_was_slow_itself_tells_nothing_of_the_leader(took_s: float, gap_s: float) -> None:
    assert seen(QUIET, took_s=took_s, gap_s=gap_s) == 0
