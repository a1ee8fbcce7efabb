from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_engines.health import Patience, Progress, Verdict
from penstock_engines.scrape import EngineFigures

IDLE = EngineFigures(0, 0, 0.0, 10, 0, 20, 0)
PATIENCE = Patience(stall_s=60, idle_s=30)


def look(progress: Progress, *looks: tuple[float, EngineFigures | None]) -> Verdict:
    verdict = Verdict.WELL
    for now_s, figures in looks:
        verdict = progress.observe(now_s, figures)
    return verdict


@pytest.mark.parametrize("busy", [replace(IDLE, running=1), replace(IDLE, waiting=1)])
def test_work_without_movement_is_a_stall_only_after_the_patience(busy: EngineFigures) -> None:
    progress = Progress(PATIENCE, 0)
    assert look(progress, (1, busy), (60.9, busy)) is Verdict.WELL
    assert look(progress, (61, busy)) is Verdict.STALLED


@pytest.mark.parametrize(
    "moved",
    [
        {"generation_tokens": 21},
        {"prompt_tokens": 11},
        {"kv_usage": 0.5},
    ],
    ids=str,
)
def test_any_work_counts(moved: dict[str, int | float]) -> None:
    busy = replace(IDLE, running=1)
    progress = Progress(PATIENCE, 0)
    assert (
        look(progress, (1, busy), (59, replace(busy, **moved)), (118, replace(busy, **moved))) is Verdict.WELL
    )


def test_requests_that_come_and_go_are_no_work() -> None:
    progress = Progress(PATIENCE, 0)
    for now_s in range(1, 60):
        waiting = replace(IDLE, running=1 + now_s % 3, waiting=now_s % 5)
        assert look(progress, (now_s, waiting)) is Verdict.WELL
    assert look(progress, (61, replace(IDLE, running=1))) is Verdict.STALLED


def test_work_that_comes_after_a_rest_has_its_whole_time() -> None:
    progress = Progress(PATIENCE, 0)
    busy = replace(IDLE, running=1)
    assert look(progress, (1, IDLE), (25, IDLE), (29, busy), (84, busy)) is Verdict.WELL
    assert look(progress, (89, busy)) is Verdict.STALLED


def test_an_engine_that_loses_its_requests_one_after_another_is_asked_in_the_end() -> None:
    progress = Progress(PATIENCE, 0)
    busy = replace(IDLE, running=1)
    assert look(progress, (1, IDLE), (10, busy), (15, IDLE), (20, busy), (25, IDLE)) is Verdict.WELL
    assert look(progress, (28, busy), (31, IDLE)) is Verdict.ASK


def test_an_idle_engine_is_asked_and_an_answer_rests_it() -> None:
    progress = Progress(PATIENCE, 0)
    assert look(progress, (1, IDLE), (30, IDLE)) is Verdict.WELL
    assert look(progress, (31, IDLE)) is Verdict.ASK
    progress.answered(31)
    assert look(progress, (60, IDLE)) is Verdict.WELL


def test_figures_that_cannot_be_read_are_a_stall_in_the_end() -> None:
    progress = Progress(PATIENCE, 0)
    assert look(progress, (5, None), (59, None)) is Verdict.WELL
    assert look(progress, (60, None)) is Verdict.STALLED
