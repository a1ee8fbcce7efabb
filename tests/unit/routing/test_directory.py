"""The engines a gateway knows: followed without losing what runs, and chosen by load."""

from __future__ import annotations

from pathlib import Path

from penstock.routing.directory import Directory
from penstock_engines.registry import Registered


def registered(name: str, state: str = "ready", model: str = "m", reason: str | None = None) -> Registered:
    return Registered(name, model, state, Path(f"/run/{name}.sock"), 4, reason)


async def test_only_ready_engines_take_requests() -> None:
    directory = Directory()
    directory.update([registered("a"), registered("b", "starting"), registered("c", "draining")])
    assert [target.id for target in directory.targets("m") if target.open(0)] == ["a"]
    assert directory.has_ready("m")


async def test_a_model_that_is_not_ready_says_its_state_and_the_reason_to_operators() -> None:
    directory = Directory()
    directory.update([registered("a", "starting", reason="no weights in /secret/path")])
    assert not directory.has_ready("m")
    standing = directory.standing("m")
    assert (standing.state, standing.reason) == ("starting", "no weights in /secret/path")
    assert "secret" not in str(standing)


async def test_a_refresh_keeps_the_counts_of_engines_that_stay() -> None:
    directory = Directory()
    directory.update([registered("a"), registered("b")])
    directory.targets("m")[0].enter(50)
    directory.update([registered("a"), registered("c")])
    assert {t.id: (t.in_flight, t.load) for t in directory.targets("m")} == {"a": (1, 50), "c": (0, 0)}


async def test_an_engine_takes_what_its_window_holds() -> None:
    directory = Directory()
    directory.update([registered("a")])
    [target] = directory.targets("m")
    for _ in range(4):
        assert target.open(0)
        target.enter(1)
    assert not target.open(0)
    target.leave(1)
    assert target.open(0)
