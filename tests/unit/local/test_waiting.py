"""What `penstock up` reads out of a gateway that is not ready yet."""

from __future__ import annotations

import io

import httpx
import pytest
from rich.console import Console

from penstock.local import problems, steps, up


def answer(models: dict[str, str]) -> httpx.Response:
    return httpx.Response(503, json={"ready": False, "models": models})


def test_every_models_state_is_told() -> None:
    assert up._missing(answer({"a/b": "starting", "c/d": "ready"})) == ["a/b: starting", "c/d: ready"]


def test_an_engine_may_end_three_times() -> None:
    assert up._missing(answer({"a/b": "starting (it ended; restart 3 in 1.0 s)"}))


def test_an_engine_that_ends_each_time_is_the_reason_to_give_up() -> None:
    with pytest.raises(problems.ChildError, match=r"engine of a/b ends each time it starts: no lscpu; "):
        up._missing(answer({"a/b": "starting (no lscpu; restart 4 in 1.0 s)"}))


def test_a_gateway_without_models_is_asked_for_its_health() -> None:
    assert up._readiness("http://h", []) == "http://h/healthz"
    assert up._readiness("http://h", ["a/b", "c"]) == "http://h/readyz?model=a%2Fb&model=c"


def test_where_nobody_watches_each_change_is_one_line() -> None:
    out = io.StringIO()
    show = steps.Steps(Console(file=out))
    with show.step("engines"):
        show.waits_for(["a: starting", "b: starting"])
        show.waits_for(["a: ready", "b: starting"])
        show.waits_for(["a: ready", "b: starting"])
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["  a: starting", "  b: starting", "  a: ready"]
    assert lines[3].startswith("✓ engines 0.")


def test_a_failed_step_is_marked_and_brackets_stay() -> None:
    out = io.StringIO()
    show = steps.Steps(Console(file=out))
    with pytest.raises(ValueError, match="x"), show.step("a [b]"):
        raise ValueError("x")
    assert out.getvalue().startswith("✗ a [b] 0.")
