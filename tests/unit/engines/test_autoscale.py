"""The rules that size a pool, on traces: what is asked for, and what is done when."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock_engines.autoscale import Autoscaler, Decision, Sample, ScaleRules, demand

RULES = ScaleRules(
    replicas_min=0, replicas_max=4, running_target=10, up_after_s=5, down_after_s=60, idle_after_s=120
)
QUIET = Sample(
    at_s=0,
    replicas=1,
    ready=1,
    running=0,
    waiting_requests=0,
    waiting_tokens=0,
    kv_usage=0,
    first_token_p90_s=0,
    idle_s=0,
)


def sample(**changes: float) -> Sample:
    return msgspec.structs.replace(QUIET, **changes)


def play(
    rules: ScaleRules, trace: Callable[[float], dict[str, float]], until_s: int
) -> list[tuple[int, Decision]]:
    """Run a trace second by second; engines are ready as soon as they are wanted."""
    scaler, replicas, decisions = Autoscaler(rules), 1, []
    for second in range(until_s):
        decision = scaler.decide(sample(at_s=second, replicas=replicas, ready=replicas, **trace(second)))
        if decision.replicas != replicas:
            decisions.append((second, decision))
        replicas = decision.replicas
    return decisions


def test_each_signal_can_ask_for_more() -> None:
    assert demand(RULES, sample(running=25)).replicas == 3
    assert demand(RULES, sample(waiting_requests=9, waiting_tokens=9_000)).replicas == 3
    assert demand(RULES, sample(running=1, kv_usage=0.95)).replicas == 2
    assert demand(RULES, sample(running=1, first_token_p90_s=5)).replicas == 3
    assert "KV cache is 95% full" in demand(RULES, sample(running=1, kv_usage=0.95)).reason


def test_a_signal_near_its_target_changes_nothing() -> None:
    assert demand(RULES, sample(running=10.9)).replicas == 1
    assert demand(RULES, sample(replicas=2, ready=2, running=18.5)).replicas == 2


def test_load_is_answered_after_a_moment_and_not_after_a_blip() -> None:
    decisions = play(RULES, lambda t: {"running": 30 if 10 <= t < 12 else 5}, 100)
    assert decisions == []
    decisions = play(RULES, lambda t: {"running": 30 if t >= 10 else 5}, 100)
    assert [(at, each.replicas) for at, each in decisions] == [(15, 3)]
    assert "requests running: 30" in decisions[0][1].reason


def test_engines_are_stopped_only_after_a_whole_while_without_need() -> None:
    def trace(t: float) -> dict[str, float]:
        return {"running": 30 if t < 50 or t == 80 else 5}

    decisions = play(RULES, trace, 200)
    assert [(at, each.replicas) for at, each in decisions] == [(5, 3), (141, 1)]


def test_a_pool_falls_asleep_when_idle_and_wakes_for_one_request_at_once() -> None:
    def trace(t: float) -> dict[str, float]:
        if t < 300:
            return {"idle_s": t}
        return {"waiting_requests": 1, "waiting_tokens": 10}

    decisions = play(RULES, trace, 310)
    assert [(at, each.replicas) for at, each in decisions] == [(120, 0), (300, 1)]
    assert "sleeping" in decisions[1][1].reason


def test_limits_hold_and_are_told() -> None:
    awake = msgspec.structs.replace(RULES, replicas_min=1)
    assert play(awake, lambda t: {"idle_s": t}, 1000) == []
    decisions = play(RULES, lambda _: {"running": 500}, 30)
    assert decisions[-1][1].replicas == 4
    assert "replicas_max is 4" in decisions[-1][1].reason


load = st.fixed_dictionaries(
    {
        "running": st.integers(0, 200),
        "waiting_requests": st.integers(0, 50),
        "waiting_tokens": st.floats(0, 1e6),
        "kv_usage": st.floats(0, 1),
        "first_token_p90_s": st.floats(0, 60),
        "idle_s": st.floats(0, 1e4),
    }
)


@given(st.lists(load, min_size=1, max_size=80), st.integers(0, 2), st.integers(2, 6))
def test_whatever_the_load_the_size_stays_within_its_limits(
    loads: list[dict[str, float]], least: int, most: int
) -> None:
    rules = msgspec.structs.replace(RULES, replicas_min=least, replicas_max=most)
    for _, decision in play(rules, lambda t: loads[int(t)], len(loads)):
        assert least <= decision.replicas <= most
        assert decision.reason
