"""The engines a gateway knows: followed without losing what runs, and chosen by load."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.admission import room
from penstock.routing import least_load
from penstock.routing.directory import Directory, NoEngine
from penstock_engines.registry import Registered


def registered(name: str, state: str = "ready", model: str = "m", reason: str | None = None) -> Registered:
    return Registered(name, model, state, Path(f"/run/{name}.sock"), 4, reason)


async def test_only_ready_engines_take_requests() -> None:
    directory = Directory()
    directory.update([registered("a"), registered("b", "starting"), registered("c", "draining")])
    assert [target.registered.id for target in directory.ready("m")] == ["a"]


async def test_a_model_that_is_not_ready_says_its_state_but_keeps_the_reason_for_operators() -> None:
    directory = Directory()
    directory.update([registered("a", "starting", reason="no weights in /secret/path")])
    with pytest.raises(NoEngine, match="starting") as refusal:
        directory.ready("m")
    assert "/secret/path" not in str(refusal.value)
    assert directory.state("m") == ("starting", "no weights in /secret/path")


async def test_a_refresh_keeps_the_counts_of_engines_that_stay() -> None:
    directory = Directory()
    directory.update([registered("a"), registered("b")])
    [a, _] = directory.ready("m")
    a.in_flight = 3
    directory.update([registered("a"), registered("c")])
    assert {t.registered.id: t.in_flight for t in directory.ready("m")} == {"a": 3, "c": 0}


async def test_the_least_loaded_engine_is_chosen_and_never_twice() -> None:
    directory = Directory()
    directory.update([registered("a"), registered("b")])
    a, b = directory.ready("m")
    a.in_flight = 1
    assert least_load.choose([a, b], []) is b
    assert least_load.choose([a, b], [b]) is a
    assert least_load.choose([a, b], [a, b]) is None


@pytest.mark.parametrize(("in_flight", "open_"), [(0, True), (7, True), (8, False)])
def test_an_engine_takes_one_batch_running_and_one_waiting(in_flight: int, open_: bool) -> None:
    assert room.has_room(in_flight, 4) is open_
