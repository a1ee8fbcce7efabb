"""An event loop over virtual time: it never waits, it jumps to the next timer. And processes that can die.

Whatever is scheduled belongs to the process in whose context it was scheduled. A process that is killed runs
nothing more, not even its `finally` blocks: its callbacks are dropped, as SIGKILL drops them.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Died(BaseException):
    """Something of a dead process was run after all: only its clean-up by Python, which must do nothing."""


class Process:
    """What runs on a host until it ends or is killed."""

    def __init__(self, name: str, host: Any = None) -> None:
        self.name = name
        self.host = host
        self.dead = False
        self.stopped: list[Handle] | None = None
        """What would have run since it was stopped (SIGSTOP); None while it runs."""
        self.changes_left = 0
        """It is killed at so many more changes of its disk; 0 is never."""
        self.changes_of = ""
        """What the names of files end with whose changes count."""
        self.at_death: list[Callable[[], None]] = []
        """What the kernel does for a process that is gone: close its files, its sockets."""
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)

    def kill(self) -> None:
        """End it between two instructions."""
        if self.dead:
            return
        self.dead = True
        for closing in self.at_death:
            closing()

    def __repr__(self) -> str:
        return self.name


CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
OUTSIDE = contextvars.Context()
"""Where clients, engines, the database and the faults live: nothing there is killed with a process."""


def alive() -> None:
    """Raise Died when called on behalf of a process that is gone."""
    process = CURRENT.get()
    if process is not None and process.dead:
        raise Died


class Handle:
    """A callback that is due."""

    __slots__ = ("_args", "_callback", "_cancelled", "_when", "context")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
        when: float,
    ) -> None:
        self._callback = callback
        self._args = args
        self.context = context
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        if self._cancelled:
            return
        process = self.context.get(CURRENT)
        if process is None:
            self.context.run(self._callback, *self._args)
        elif process.stopped is not None:
            process.stopped.append(self)
        elif not process.dead:
            self.context.run(self._callback, *self._args)


class Quiet(Exception):
    """Nothing is due any more and what was waited for has not come: everything waits for ever."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """One thread, no sockets, no clock but its own: the same program twice is the same run twice."""

    def __init__(self) -> None:
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._now = 0.0
        self._count = 0
        self.steps = 0
        self._tasks: list[tuple[asyncio.Task[Any], contextvars.Context]] = []
        self.problems: list[str] = []
        """What nobody caught; any is a failure of the run."""
        self.sockets: dict[str, Callable[[Any], Any]] = {}
        """Who listens: path to what takes a connection's protocol and returns its transport."""
        self.memory: dict[Any, Any] = {}
        """For the known bugs of mutants.py: what they wrongly remember."""
        self.thread_delay_s: Callable[[], float] = lambda: 0.0
        """How long a thread takes until what it was asked for is done."""

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, self._now)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        context = contextvars.copy_context() if context is None else context
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append((task, context))
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread: what it does happens at once, a little later; not at all when its process is killed."""
        done = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        self.call_later(self.thread_delay_s(), work)
        return done

    async def create_unix_connection(self, protocol_factory: Any, path: str = "", **_: Any) -> Any:  # type: ignore[override]
        listener = self.sockets.get(path)
        if listener is None:
            raise ConnectionRefusedError(111, "connection refused", path)
        protocol = protocol_factory()
        transport = listener(protocol)
        protocol.connection_made(transport)
        return transport, protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    # What the simulation asks of it.

    def outside(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Schedule something of the world, that no process's death stops."""
        return self.call_at(self._now + delay_s, callback, *args, context=OUTSIDE)

    def spawn(self, process: Process | None, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task of a process, or of the world."""
        return self.create_task(work, context=OUTSIDE.copy() if process is None else process.context.copy())

    def go_on(self, process: Process) -> None:
        """Let a stopped process go on: all that it missed happens now, in its order."""
        if process.stopped is not None:
            missed, process.stopped = process.stopped, None
            self._ready.extend(missed)

    def run_while(self, wanted: Callable[[], bool], until_s: float = float("inf")) -> None:
        """Let time pass as long as `wanted` (asked when the clock is about to move), at most until a moment.

        Raises Quiet when nothing is left to happen before that.
        """
        ready, timers = self._ready, self._timers
        other = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while True:
                while ready:
                    self.steps += 1
                    try:
                        ready.popleft().run()
                    except Died:
                        pass
                    except NotImplementedError:
                        raise  # the world is to be finished first
                    except Exception as error:
                        self.problems.append(f"a callback failed: {error!r}")
                if not wanted():
                    return
                while timers and timers[0][2].cancelled():
                    heapq.heappop(timers)
                if not timers or timers[0][0] > until_s:
                    if until_s == float("inf"):
                        raise Quiet
                    self._now = max(self._now, until_s)
                    return
                when, _, handle = heapq.heappop(timers)
                self._now = max(self._now, when)
                ready.append(handle)
        finally:
            asyncio._set_running_loop(other)

    def run_until(self, done: Awaitable[Any], until_s: float) -> Any:
        """Let time pass until a future is done; raises Quiet when that takes longer than until a moment."""
        future = asyncio.ensure_future(done, loop=self)
        self.run_while(lambda: not future.done(), until_s)
        if not future.done():
            raise Quiet
        return future.result()

    def finish(self) -> None:
        """Take every unfinished task apart without letting it do anything more; all processes are dead."""
        other = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for task, context in self._tasks:
                if not task.done():
                    try:
                        context.run(task.get_coro().close)  # type: ignore[union-attr]
                    except BaseException:
                        pass
                elif (
                    not task.cancelled()
                    and task._log_traceback  # type: ignore[attr-defined]
                    and not isinstance(task.exception(), Died)
                ):
                    self.problems.append(f"a task ended and nobody looked why: {task.exception()!r}")
            self._ready.clear()
            self._timers.clear()
            self._tasks.clear()
        finally:
            asyncio._set_running_loop(other)
