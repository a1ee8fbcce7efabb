"""Child processes that never outlive us: started, watched, read when they fail, stopped, reaped."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.local import problems
from penstock.local.accounts import Account

PR_SET_PDEATHSIG = 1
LOGS_KEPT = 3
TAIL_BYTES = 4096
PROBE_FIRST_S, PROBE_MAX_S = 0.01, 0.25

KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")
KEPT_PREFIXES = ("PENSTOCK_", "PYTHON", "LC_", "SSL_", "OTEL_")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """A running child process in a process group of its own."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet; reaps it when it has."""
        return self.process.poll() is None

    async def ended(self) -> int:
        """Wait for its end and reap it; returns the exit status, negative for a signal."""
        if self.process.poll() is None:
            loop = asyncio.get_running_loop()
            end = asyncio.Event()
            handle = os.pidfd_open(self.pid)
            loop.add_reader(handle, end.set)
            try:
                await end.wait()
            finally:
                loop.remove_reader(handle)
                os.close(handle)
        return self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        self.process.send_signal(number)

    async def stop(self, *, with_signal: signal.Signals = signal.SIGTERM, patience_s: float) -> int:
        """Ask it to end, wait at most `patience_s`, then kill its whole group; returns the exit status."""
        self.send(with_signal)
        try:
            return await asyncio.wait_for(self.ended(), patience_s)
        except TimeoutError:
            self.kill()
            return await self.ended()

    def kill(self) -> None:
        """Kill its process group at once."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The end of its log, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-12:])

    def death(self, status: int) -> problems.ChildError:
        """Make the error that says how it ended and what it said last."""
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        words = self.last_words()
        return problems.ChildError(f"{self.name} {how}; see {self.log}" + (f":\n{words}" if words else ""))


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    account: Account | None = None,
    on_our_death: signal.Signals = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a program that the kernel sends `on_our_death` as soon as we are gone, however we go.

    It runs in `folder`, in a session of its own (a Ctrl-C at our terminal is ours alone to hand on), as
    `account` where one is given, with nothing in its environment but `environment`, and writes to `log`.
    Raises SoftwareError when the program cannot be started, RuntimeError outside the main thread: the
    kernel ties the death signal to the starting thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("children must be started by the main thread, which lives as long as we do")
    rotate(log)
    us = os.getpid()

    def tie_to_us() -> None:
        # Runs in the child after it changed account, which would have cleared the setting.
        _libc.prctl(PR_SET_PDEATHSIG, int(on_our_death), 0, 0, 0)
        if os.getppid() != us:
            os.kill(os.getpid(), signal.SIGKILL)

    identity: dict[str, object] = {}
    if account is not None:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": []}
    try:
        with log.open("ab") as out:
            process = subprocess.Popen(  # type: ignore[call-overload]
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(environment),
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=tie_to_us,  # noqa: PLW1509 - one system call; the library is loaded before
                **identity,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise problems.SoftwareError(f"{name} could not be started: {error}") from error
    return Child(name, process, log)


def rotate(log: Path) -> None:
    """Move a log that has content to `.1`, the one before to `.2` and so on, keeping LOGS_KEPT old ones."""
    if not log.exists() or log.stat().st_size == 0:
        return
    for number in range(LOGS_KEPT - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.rename(log.with_name(f"{log.name}.{number + 1}"))
    log.rename(log.with_name(f"{log.name}.1"))


async def until_ready(child: Child, probe: Callable[[], Awaitable[bool]], *, patience_s: float) -> None:
    """Ask `probe` until it says yes.

    Raises ChildError with the end of the log when the child ends first or takes longer than `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    wait_s = PROBE_FIRST_S
    while True:
        if not child.running:
            raise child.death(await child.ended())
        if await probe():
            return
        if time.monotonic() > deadline:
            raise problems.ChildError(
                f"{child.name} was not ready after {patience_s:.0f} s; see {child.log}:\n{child.last_words()}"
            )
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 1.5, PROBE_MAX_S)


def bare_environment() -> dict[str, str]:
    """What any program needs and nothing secret: for servers that take their settings as arguments."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def own_environment(environ: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """What a process of ours needs of our environment, without secrets meant for others (a hub's token)."""
    kept = {name: value for name, value in environ.items() if name in KEPT or name.startswith(KEPT_PREFIXES)}
    return kept | dict(extra)
