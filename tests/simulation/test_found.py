"""Worlds made by hand: what the simulation found, as small as it gets, and bugs too rare to be met."""

from __future__ import annotations

import msgspec
from world.client import Asked, End
from world.engine import Ask
from world.mutants import CREDIT_WITHOUT_END, LEASE_RELEASED_EARLY, mutated
from world.plan import Fault, Options, Plan, TopUp
from world.shrink import play

OPTIONS = Options(
    hosts=1,
    gateways=1,
    engines=1,
    part_bytes=100_000,
    reserve_bytes=4_000,
    batch_frames=1000,
    keep_s=20.0,
    grace_s=1.0,
    first_byte_s=10.0,
    stall_s=1.0,
    begin_minute=0,
)
ASK = Ask(prompt_tokens=100, cached_tokens=0, output_tokens=10, step_tokens=1, step_s=0.05, first_s=0.01)


def asked(number: int, at_s: float, organisation_id: int = 1, **changes: object) -> Asked:
    ask = {name: value for name, value in changes.items() if name in Ask.__struct_fields__}
    rest = {name: value for name, value in changes.items() if name not in ask}
    return Asked(number, at_s, organisation_id, msgspec.structs.replace(ASK, **ask), **rest)


def test_a_power_cut_leaves_a_trace_of_every_process_that_held_credit(simulated: None) -> None:
    """The journal's file was not on the disk before its process held credit: nobody could release it."""
    for seed in range(20):
        world = play(
            Plan(
                seed,
                OPTIONS,
                [asked(0, 0.1, organisation_id=2, output_tokens=200)],
                [Fault(0.3 + seed / 20, "power_cut", for_s=0.5)],
                [TopUp(0.0, 2, 10**9)],
            )
        )
        assert world.problems == []


def test_a_slow_reader_does_not_let_another_ones_engine_run_on(simulated: None) -> None:
    """A stream whose end was still being read resumed its connection, which served another slow reader by
    then: that one was flooded, and counted as gone though it read on."""
    world = play(
        Plan(
            1,
            OPTIONS,
            [
                asked(0, 0.100, output_tokens=1, slow_s=0.3),
                asked(1, 0.200, output_tokens=40, slow_s=0.3),
            ],
            [],
            [],
        )
    )
    assert world.problems == []
    assert [client.end for client in world.clients] == [End.ACKNOWLEDGED, End.ACKNOWLEDGED]


def test_credit_of_a_dead_gateway_is_lent_again_only_when_all_it_wrote_is_shipped(simulated: None) -> None:
    """It answers, the database is away, its machine loses power; the other gateway is asked for more."""
    made = Plan(
        1,
        msgspec.structs.replace(OPTIONS, hosts=2),
        [
            asked(0, 0.5, organisation_id=4, output_tokens=200, step_tokens=20, step_s=0.1),
            *[
                asked(number, 3.0 + number, organisation_id=4, output_tokens=100, step_tokens=20)
                for number in range(1, 6)
            ],
        ],
        [Fault(1.2, "database_away", for_s=0.9), Fault(1.8, "power_cut", target=0, for_s=12.0)],
        [TopUp(0.0, 4, 200_000)],
    )
    assert play(made).problems == []
    with mutated(LEASE_RELEASED_EARLY):
        assert "strict wallet" in play(made).problems[0]


def test_a_stream_that_outlives_its_credit_is_stopped_within_the_bound(simulated: None) -> None:
    made = Plan(
        1,
        OPTIONS,
        [asked(0, 0.5, organisation_id=2, output_tokens=1600, step_tokens=10, step_s=0.01)],
        [],
        [TopUp(0.0, 2, 400_000)],
    )
    world = play(made)
    assert world.problems == []
    assert [record.outcome.value for _, record, _ in world.records.values()] == ["credit_ended"]
    with mutated(CREDIT_WITHOUT_END):
        assert "the bound is" in play(made).problems[0]
