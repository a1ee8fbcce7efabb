"""The keeper of an engine: its states in order, and what it does about engines that break."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock_catalog.cards import EngineSettings, Task
from penstock_engines.direct import DirectProcess
from penstock_engines.failures import EngineSettingsError, LaunchError
from penstock_engines.health import Patience
from penstock_engines.replica import Replica, ReplicaLimits, ReplicaState
from penstock_engines.spec import Device, EngineSpec

Wait = Callable[..., Coroutine[Any, Any, None]]

SPEC = EngineSpec("penstock/demo-chat", Path("/nowhere"), Task.CHAT, 1024, EngineSettings())
HASTY = ReplicaLimits(start_s=20, watch_s=0.05, probe_s=1, patience=Patience(stall_s=0.5, idle_s=0.3))


class SimulatedLauncher:
    """Starts simulated engines: what a keeper does is the same, in a fifth of a second."""

    device = Device.CPU

    def __init__(self, *arguments: str) -> None:
        self.launched = 0
        self.arguments = arguments
        self.refuse: Exception | None = None

    async def warm(self) -> None:
        pass

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> DirectProcess:
        self.launched += 1
        if self.refuse is not None:
            raise self.refuse
        command = ("-m", "penstock_engines.simulated", "--uds", str(folder / "engine.sock"))
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *command, "--model", spec.model, "--parent", str(os.getpid())),
                *self.arguments,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return DirectProcess(process)

    async def close(self) -> None:
        pass


class Kept:
    """A replica, its keeper's task, and every state it told."""

    def __init__(self, replica_of: Callable[[Any], Replica]) -> None:
        self.told: list[tuple[ReplicaState, str]] = []
        self.replica = replica_of(self.changed)
        self.task = asyncio.create_task(self.replica.run())

    async def changed(self, replica: Replica) -> None:
        self.told.append((replica.state, replica.reason))

    @property
    def states(self) -> list[ReplicaState]:
        return [state for state, _ in self.told]

    def times(self, state: ReplicaState) -> int:
        return self.states.count(state)


QUICK = ("--tokens-per-second", "200")
SILENT = ("--first-token-ms", "60000")


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> SimulatedLauncher:
    """Its arguments can be given by `indirect` only: the keeper launches before a test's first line."""
    return SimulatedLauncher(*getattr(request, "param", QUICK))


@pytest.fixture
async def kept(place: Path, launcher: SimulatedLauncher) -> AsyncIterator[Kept]:
    chance = random.Random(1)
    one = Kept(lambda changed: Replica(SPEC, launcher, place, changed, limits=HASTY, chance=chance))
    yield one
    one.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await one.task


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def client_of(replica: Replica) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(replica.socket))
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30)


def is_ready(kept: Kept, times: int = 1) -> Callable[[], bool]:
    return lambda: kept.times(ReplicaState.READY) >= times


async def test_it_is_ready_after_an_answer_and_knows_what_the_start_took(
    kept: Kept, wait_until: Wait
) -> None:
    await wait_until(is_ready(kept), "readiness")
    timings = kept.replica.timings
    assert 0 < timings.process_s < timings.listening_s < timings.answer_s < 20
    assert kept.states == [ReplicaState.STARTING, ReplicaState.READY]
    async with client_of(kept.replica) as client:
        made = (await client.get("/metrics")).text
    assert 'generation_tokens_total{engine="0",model_name="penstock/demo-chat"} 1.0' in made


async def test_an_engine_that_dies_is_off_the_list_and_then_started_again(
    kept: Kept, wait_until: Wait
) -> None:
    await wait_until(is_ready(kept), "readiness")
    assert kept.replica.pid is not None
    os.kill(kept.replica.pid, signal.SIGKILL)
    await wait_until(is_ready(kept, 2), "readiness again")
    states = [ReplicaState.STARTING, ReplicaState.READY] * 2
    # Off the list with the reason, and then the next start.
    assert kept.states == [*states[:2], ReplicaState.STARTING, *states[2:]]
    assert "ended by signal 9; restart 1 in" in kept.told[2][1]
    assert kept.replica.restarts == 1


@pytest.mark.parametrize("streams", [1, 0], ids=["while it streams", "while it idles"])
async def test_an_engine_that_makes_no_tokens_is_replaced_though_it_says_it_is_healthy(
    kept: Kept, wait_until: Wait, streams: int
) -> None:
    await wait_until(is_ready(kept), "readiness")
    first = kept.replica.pid
    async with client_of(kept.replica) as client:
        await client.post("/penstock/faults", json={"hang_at_token": 2 if streams else 1})
        body = {"model": SPEC.model, "prompt": "a", "max_tokens": 50, "ignore_eos": True, "stream": True}
        if streams:
            with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    assert (await client.get("/health")).status_code == 200
                    async for _ in response.aiter_lines():
                        pass
        await wait_until(is_ready(kept, 2), "another engine")
    assert kept.replica.pid != first
    assert ("no progress for" if streams else "no answer to a one-token request") in kept.told[2][1]


async def test_a_busy_engine_that_makes_tokens_is_left_alone(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    async with client_of(kept.replica) as client:
        body = {"model": SPEC.model, "prompt": "a", "max_tokens": 300, "ignore_eos": True}
        await client.post("/v1/completions", json=body)  # 1.5 s, three times the patience
    assert kept.times(ReplicaState.READY) == 1
    assert kept.replica.restarts == 0


async def test_draining_is_told_before_the_engine_hears_of_it_and_streams_end_whole(
    kept: Kept, wait_until: Wait
) -> None:
    await wait_until(is_ready(kept), "readiness")
    accepted_when_told: list[bool] = []
    remember = kept.changed

    async def changed(replica: Replica) -> None:
        await remember(replica)
        if replica.state is ReplicaState.DRAINING:
            async with client_of(replica) as other:
                accepted_when_told.append((await other.get("/health")).status_code == 200)

    kept.replica._on_change = changed
    body = {"model": SPEC.model, "prompt": "a", "max_tokens": 100, "ignore_eos": True, "stream": True}
    async with client_of(kept.replica) as client:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            stopping = asyncio.create_task(kept.replica.stop(10))
            rest = [line async for line in lines]
        await stopping
    assert accepted_when_told == [True]
    assert rest[-2] == "data: [DONE]"
    assert kept.states[-2:] == [ReplicaState.DRAINING, ReplicaState.GONE]
    assert kept.replica.pid is None


async def test_it_sleeps_when_its_streams_have_ended_and_wakes_up(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    pid = kept.replica.pid
    body = {"model": SPEC.model, "prompt": "a", "max_tokens": 600, "ignore_eos": True, "stream": True}
    async with client_of(kept.replica) as client:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            kept.replica.rest()
            rest = [line async for line in lines]
        assert rest[-2] == "data: [DONE]"
        await wait_until(lambda: kept.replica.state is ReplicaState.ASLEEP, "sleep")
        assert (await client.post("/v1/completions", json=body)).status_code == 503
    kept.replica.wake()
    await wait_until(is_ready(kept, 2), "waking")
    awake = [ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.ASLEEP, ReplicaState.STARTING]
    assert kept.states == [ReplicaState.STARTING, *awake, ReplicaState.READY]
    assert (kept.replica.pid, kept.replica.restarts) == (pid, 0)


async def test_one_that_dies_in_its_sleep_is_started_again(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    kept.replica.rest()
    await wait_until(lambda: kept.replica.state is ReplicaState.ASLEEP, "sleep")
    assert kept.replica.pid is not None
    os.kill(kept.replica.pid, signal.SIGKILL)
    await wait_until(is_ready(kept, 2), "readiness again")
    assert not kept.replica.resting


async def test_one_that_sleeps_can_be_stopped(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    kept.replica.rest()
    await wait_until(lambda: kept.replica.state is ReplicaState.ASLEEP, "sleep")
    await asyncio.wait_for(kept.replica.stop(10), 15)
    assert kept.states[-2:] == [ReplicaState.ASLEEP, ReplicaState.GONE]


async def test_a_drain_that_lasts_too_long_is_ended(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    body = {"model": SPEC.model, "prompt": "a", "max_tokens": 10_000, "ignore_eos": True, "stream": True}
    async with (
        client_of(kept.replica) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        await asyncio.wait_for(kept.replica.stop(0.3), 5)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in lines:
                pass
    assert kept.states[-1] is ReplicaState.GONE


@pytest.mark.parametrize("launcher", [SILENT], indirect=True, ids=["silent"])
async def test_stopping_while_it_starts_does_not_wait_for_the_start(kept: Kept, wait_until: Wait) -> None:
    await wait_until(kept.replica.socket.exists, "the socket")
    pid = kept.replica.pid
    await asyncio.wait_for(kept.replica.stop(30), 5)
    assert kept.states == [ReplicaState.STARTING, ReplicaState.GONE]
    assert pid is not None
    assert not lives(pid)


async def test_a_replica_that_never_ran_can_be_stopped(place: Path, launcher: SimulatedLauncher) -> None:
    told = []

    async def changed(replica: Replica) -> None:
        told.append(replica.state)

    await Replica(SPEC, launcher, place, changed).stop(1)
    assert told == [ReplicaState.GONE]


@pytest.mark.parametrize("launcher", [SILENT], indirect=True, ids=["silent"])
async def test_a_start_that_answers_too_late_has_failed(
    place: Path, launcher: SimulatedLauncher, wait_until: Wait
) -> None:
    limits = ReplicaLimits(start_s=0.8, watch_s=0.05)
    kept = Kept(lambda changed: Replica(SPEC, launcher, place, changed, limits=limits))
    await wait_until(lambda: len(kept.told) > 1, "the failure")
    assert kept.told[1][0] is ReplicaState.STARTING
    assert "0.8 s" in kept.told[1][1]
    await kept.replica.stop(1)
    await kept.task


async def test_what_cannot_start_is_tried_again_and_what_never_can_is_given_up(
    place: Path, launcher: SimulatedLauncher, wait_until: Wait
) -> None:
    launcher.refuse = LaunchError("no more processes")
    kept = Kept(lambda changed: Replica(SPEC, launcher, place, changed, limits=HASTY))
    await wait_until(lambda: launcher.launched == 2, "another try")
    launcher.refuse = EngineSettingsError("that cannot be run")
    await asyncio.wait_for(kept.task, 10)
    assert kept.told[-1] == (ReplicaState.GONE, "that cannot be run")


async def test_cancelling_the_keeper_kills_the_engine(kept: Kept, wait_until: Wait) -> None:
    await wait_until(is_ready(kept), "readiness")
    pid = kept.replica.pid
    kept.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await kept.task
    assert pid is not None
    assert not lives(pid)


@pytest.mark.engine
async def test_a_real_engine_finishes_its_stream_when_it_is_stopped(
    warm_launcher: Any, place: Path, chat_spec: EngineSpec, engine_processes: Any, wait_until: Wait
) -> None:
    kept = Kept(lambda changed: Replica(chat_spec, warm_launcher, place, changed))
    await wait_until(is_ready(kept), "readiness", 200)
    pid = kept.replica.pid
    body = {"model": chat_spec.model, "prompt": "a", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    async with client_of(kept.replica) as client:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            stopping = asyncio.create_task(kept.replica.stop(30))
            rest = [line async for line in lines if line]
        await stopping
    await kept.task
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in rest[-2]
    assert kept.states[-2:] == [ReplicaState.DRAINING, ReplicaState.GONE]
    assert engine_processes(pid) == {}


@pytest.mark.engine
async def test_a_real_engine_that_is_frozen_is_replaced(
    warm_launcher: Any, place: Path, chat_spec: EngineSpec, engine_processes: Any, wait_until: Wait
) -> None:
    limits = ReplicaLimits(watch_s=0.2, probe_s=2, patience=Patience(stall_s=2, idle_s=1))
    kept = Kept(lambda changed: Replica(chat_spec, warm_launcher, place, changed, limits=limits))
    await wait_until(is_ready(kept), "readiness", 200)
    first = kept.replica.pid
    (worker,) = [pid for pid, name in engine_processes(first).items() if "Worker" in name]
    os.kill(worker, signal.SIGSTOP)
    async with client_of(kept.replica) as client:
        assert (await client.get("/health")).status_code == 200
    await wait_until(is_ready(kept, 2), "another engine", 60)
    assert engine_processes(first) == {}
    await kept.replica.stop(5)
    await kept.task


@pytest.mark.engine
async def test_weights_that_cannot_be_loaded_are_told_in_words(
    warm_launcher: Any, place: Path, wait_until: Wait
) -> None:
    spec = EngineSpec("penstock/none", place / "no-weights", Task.CHAT, 512, EngineSettings())
    kept = Kept(lambda changed: Replica(spec, warm_launcher, place / "e", changed))
    await wait_until(lambda: len(kept.told) > 1, "the failure", 200)
    reason = kept.told[1][1]
    await kept.replica.stop(1)
    await kept.task
    assert "ended with status 1: " in reason
    assert "no-weights" in reason
