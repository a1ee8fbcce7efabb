"""One engine and its keeper: started, proven by a real answer, watched by its progress, drained."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from penstock_engines.failures import (
    EngineDiedError,
    EngineFailure,
    EngineSettingsError,
    EngineStalledError,
    NotReadyError,
    ScrapeError,
    SleepError,
)
from penstock_engines.health import Patience, Progress, Verdict
from penstock_engines.launcher import EngineProcess, Launcher, socket_of
from penstock_engines.logs import EngineLog
from penstock_engines.probe import EngineProbe, ProbeError
from penstock_engines.scrape import EngineFigures
from penstock_engines.spec import SLEEP_LEVEL, EngineSpec

logger = logging.getLogger(__name__)

BACK_OFF_FIRST_S: Final = 1.0
BACK_OFF_MAX_S: Final = 60.0
STEADY_S: Final = 120.0
"""An engine that was ready this long starts its back-off from the beginning when it dies."""

LOOK_S: Final = 0.05
"""Between two looks whether a starting engine listens yet."""

QUIET_S: Final = 1.5
"""An engine that leaves has had nothing to do for so long when it hears of it: gateways look every second, so
one may still send it a request, and ask what it counted."""
QUIET_LOOK_S: Final = 0.25

KILLED_GRACE_S: Final = 10.0
"""How long the kernel may take to end a killed engine (it frees its memory first)."""


class ReplicaState(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    """Has no engine that answers: being started, or waiting to be restarted. Give it no requests."""
    READY = "ready"
    """Gave a real answer and makes progress. Give it requests."""
    ASLEEP = "asleep"
    """Its process lives, its weights rest in the machine's memory, its GPU is free. Wake it to use it."""
    DRAINING = "draining"
    """Finishes what it has and then leaves. Give it no more requests."""
    GONE = "gone"
    """Ended for good; no process of it is left."""


@dataclass(frozen=True)
class StartTimings:
    """What the last start took, in seconds from the beginning of the launch; 0.0 where not reached yet."""

    process_s: float = 0.0
    """Until the engine's process existed, which includes the warm parent's imports where it was not warm."""
    listening_s: float = 0.0
    """Until the weights were loaded and the engine's socket accepted requests."""
    answer_s: float = 0.0
    """Until the first real answer: the replica was ready."""


@dataclass(frozen=True)
class ReplicaLimits:
    """How long a replica waits for what."""

    start_s: float = 600.0
    """A start that takes longer has failed; large weights on a slow disk take minutes."""
    watch_s: float = 5.0
    """Between two looks at the engine's figures."""
    probe_s: float = 30.0
    """A one-token answer that takes longer, on an engine with nothing else to do, is a stall."""
    settle_s: float = 1.5
    """From being off the list until it is put to sleep: gateways follow the list within a second."""
    sleep_s: float = 120.0
    """Going to sleep, or waking up, may not take longer: it moves weights between two memories."""
    patience: Patience = field(default_factory=Patience)


OnChange = Callable[["Replica"], Awaitable[None]]


class Replica:
    """Keeps one engine of a spec running until it is told to stop.

    `run` is the keeper: one task per replica. `on_change` is awaited on every change of state or reason,
    before anything that follows from it, so that a draining replica is off the list before its engine hears
    of it. An exception out of `on_change` ends the keeper and the engine with it.
    """

    def __init__(
        self,
        spec: EngineSpec,
        launcher: Launcher,
        folder: Path,
        on_change: OnChange,
        *,
        log: Path | None = None,
        limits: ReplicaLimits | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.socket = socket_of(folder)
        self.state = ReplicaState.STARTING
        self.reason = "not started yet"
        """Why it is in this state, in words for an operator; never anything out of a request."""
        self.restarts = 0
        self.timings = StartTimings()
        self.figures: EngineFigures | None = None
        """The engine's figures at the last look; None before it was ready."""
        self._launcher = launcher
        self._on_change = on_change
        self._log = EngineLog(log or folder / "engine.log")
        self._limits = limits or ReplicaLimits()
        self._chance = chance or random.Random()  # noqa: S311 - spreads restarts, hides nothing
        self._process: EngineProcess | None = None
        self._drain_s = 0.0
        self.resting = False
        """Told to sleep, whether it does already or not."""
        self.sleep_failed = False
        """It was to sleep, or to wake, and could not."""
        self._told = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._begun = False
        self._ready_since_s: float | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the engine's API process, while there is one."""
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Keep the engine until `stop`; returns when the replica is gone.

        Cancelling it kills the engine. An engine that cannot be run as described (EngineSettingsError) makes
        the replica gone, with the reason; every other failure is tried again, ever more seldom.
        """
        self._begun = True
        try:
            await self._keep()
        finally:
            await self._end_process()
            self._ended.set()

    def rest(self) -> None:
        """Have a ready engine sleep as soon as it has nothing to do; `spec.sleeps` says whether it can."""
        self.resting = True
        self._told.set()

    def wake(self) -> None:
        """Have it serve again."""
        self.resting = False
        self._told.set()

    async def stop(self, drain_s: float) -> None:
        """Deregister, give the engine `drain_s` seconds to finish what it has, end it; returns when gone."""
        self._drain_s = drain_s
        self._stopping.set()
        if not self._begun:
            await self._change(ReplicaState.GONE, "stopped before it was started")
            return
        await self._ended.wait()

    async def _keep(self) -> None:
        failures_in_a_row = 0
        while not self._stopping.is_set():
            self._ready_since_s = None
            try:
                await self._unless_stopping(self._live())
            except EngineSettingsError as failure:
                await self._change(ReplicaState.GONE, str(failure))
                return
            except EngineFailure as failure:
                steady = (
                    self._ready_since_s is not None and time.monotonic() - self._ready_since_s >= STEADY_S
                )
                failures_in_a_row = 1 if steady else failures_in_a_row + 1
                await self._fail(failure, failures_in_a_row)
        await self._leave()

    async def _live(self) -> None:
        """One life of the engine, from launch to failure; ends only with an EngineFailure."""
        began_s = time.monotonic()
        self.timings = StartTimings()
        self.folder.mkdir(parents=True, exist_ok=True)
        # The socket of an engine that was killed is still there, and the next one could not bind it.
        self.socket.unlink(missing_ok=True)
        await self._change(ReplicaState.STARTING, "the engine is being started")
        self._process = await self._launcher.launch(self.spec, self.folder, self._log.path)
        self.timings = StartTimings(process_s=time.monotonic() - began_s)
        async with EngineProbe(self.spec, self.socket) as probe:
            await self._while_alive(self._become_ready(probe, began_s))
            self._ready_since_s = time.monotonic()
            self.resting = False
            while True:
                await self._change(ReplicaState.READY, "the engine answers")
                await self._while_alive(self._watch_until_told(probe))
                await self._while_alive(self._sleep(probe))

    async def _watch_until_told(self, probe: EngineProbe) -> None:
        """Watch it until it is to sleep."""
        await _first(self._watch(probe), asyncio.ensure_future(self._until(resting=True)))

    async def _until(self, *, resting: bool) -> None:
        while self.resting is not resting:
            self._told.clear()
            await self._told.wait()

    async def _sleep(self, probe: EngineProbe) -> None:
        """Sleep as soon as nothing is to do, until it is to wake, and wake up."""
        limits = self._limits
        await self._change(ReplicaState.DRAINING, "going to sleep")
        began_s = time.monotonic()
        progress = Progress(limits.patience, began_s)
        while await self._busy(probe, progress) or time.monotonic() < began_s + limits.settle_s:
            if not self.resting:
                return
            await asyncio.sleep(LOOK_S)
        try:
            await probe.sleep(SLEEP_LEVEL, limits.sleep_s)
            self.figures = None
            await self._change(ReplicaState.ASLEEP, "its weights rest in memory: it wakes when asked for")
            await self._until(resting=False)
            began_s = time.monotonic()
            await self._change(ReplicaState.STARTING, "waking up")
            await probe.wake_up(limits.sleep_s)
        except SleepError:
            self.sleep_failed = True
            raise
        self.timings = StartTimings(listening_s=time.monotonic() - began_s)
        await probe.answer(limits.start_s)
        self.timings = replace(self.timings, answer_s=time.monotonic() - began_s)

    async def _busy(self, probe: EngineProbe, progress: Progress) -> bool:
        """Whether it still has requests, which go on as long as they make progress."""
        figures = await probe.figures()
        if progress.observe(time.monotonic(), figures) is Verdict.STALLED:
            raise EngineStalledError("it came to no end of its requests before its sleep")
        return bool(figures.running or figures.waiting)

    async def _become_ready(self, probe: EngineProbe, began_s: float) -> None:
        try:
            async with asyncio.timeout(self._limits.start_s):
                # Another process sets this state, so there is no event to wait for.
                while not (self.socket.exists() and await probe.listening()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)
                self.timings = replace(self.timings, listening_s=time.monotonic() - began_s)
                await probe.answer(self._limits.start_s)
        except TimeoutError:
            raise NotReadyError(f"no answer within {self._limits.start_s:g} s of its launch") from None
        self.timings = replace(self.timings, answer_s=time.monotonic() - began_s)

    async def _watch(self, probe: EngineProbe) -> None:
        progress = Progress(self._limits.patience, time.monotonic())
        while True:
            how = "with requests in hand"
            try:
                self.figures = await probe.figures()
                verdict = progress.observe(time.monotonic(), self.figures)
            except ScrapeError as error:
                how = f"to be seen ({error})"
                verdict = progress.observe(time.monotonic(), None)
            if verdict is Verdict.STALLED:
                raise EngineStalledError(f"no progress for {self._limits.patience.stall_s:g} s {how}")
            if verdict is Verdict.ASK:
                await self._ask(probe)
                progress.answered(time.monotonic())
            await asyncio.to_thread(self._log.rotate_if_large)
            await asyncio.sleep(self._limits.watch_s)

    async def _ask(self, probe: EngineProbe) -> None:
        try:
            await probe.answer(self._limits.probe_s)
        except ProbeError as error:
            raise EngineStalledError(str(error)) from None

    async def _while_alive(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`; raises EngineDiedError as soon as the engine's process ends."""
        assert self._process is not None
        death = asyncio.ensure_future(self._process.wait())
        if await _first(work, death):
            return
        status = death.result()
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        error = self._log.last_error()
        raise EngineDiedError(f"the engine's process ended {how}" + (f": {error}" if error else ""))

    async def _unless_stopping(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` until `stop` is called."""
        await _first(work, asyncio.ensure_future(self._stopping.wait()))

    async def _fail(self, failure: EngineFailure, failures_in_a_row: int) -> None:
        pause_s = back_off_s(failures_in_a_row, self._chance)
        self.restarts += 1
        self.figures = None
        logger.warning("engine of %s failed: %s", self.spec.model, failure)
        # Off the list first, so that nobody is sent to what is about to be killed.
        await self._change(ReplicaState.STARTING, f"{failure}; restart {self.restarts} in {pause_s:.1f} s")
        await self._end_process()
        await self._unless_stopping(asyncio.sleep(pause_s))

    async def _leave(self) -> None:
        if self.state in {ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.ASLEEP} and self._process:
            serves = self.state is not ReplicaState.ASLEEP
            if serves:
                await self._change(ReplicaState.DRAINING, f"stopping; has {self._drain_s:g} s to finish")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain_s):
                    if serves:
                        await self._quiet()
                    self._process.terminate()
                    await self._process.wait()
        # An engine that is still starting serves nobody and may not hear SIGTERM: it is killed.
        await self._end_process()
        await self._change(ReplicaState.GONE, "stopped")

    async def _quiet(self) -> None:
        """Wait until the engine has had nothing to do for QUIET_S, or does not answer any more."""
        async with EngineProbe(self.spec, self.socket) as probe:
            quiet_since_s = time.monotonic()
            while time.monotonic() - quiet_since_s < QUIET_S:
                try:
                    figures = await probe.figures()
                except ScrapeError:
                    return
                if figures.running or figures.waiting:
                    quiet_since_s = time.monotonic()
                await asyncio.sleep(QUIET_LOOK_S)

    async def _end_process(self) -> None:
        """Kill what is left of the engine's process group, its workers included."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        try:
            async with asyncio.timeout(KILLED_GRACE_S):
                await process.wait()
        except TimeoutError:
            logger.error("engine process %d survives SIGKILL: the kernel holds it", process.pid)

    async def _change(self, state: ReplicaState, reason: str) -> None:
        self.state = state
        self.reason = reason
        await self._on_change(self)


def back_off_s(failures_in_a_row: int, chance: random.Random) -> float:
    """Seconds before the next start: doubling from 1 s to 60 s, spread by up to a quarter either way."""
    pause_s = min(BACK_OFF_MAX_S, BACK_OFF_FIRST_S * 2.0 ** min(failures_in_a_row - 1, 10))
    return min(BACK_OFF_MAX_S, pause_s * chance.uniform(0.75, 1.25))


async def _first(work: Coroutine[Any, Any, None], other: asyncio.Future[Any]) -> bool:
    """Do `work` until `other` ends; True where the work ended first. Leaves nothing running."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        if not task.done():
            task.cancel()
        if not other.done():
            other.cancel()
        await asyncio.gather(task, other, return_exceptions=True)
