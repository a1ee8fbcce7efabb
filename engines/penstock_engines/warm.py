"""The warm way to start CPU engines: a zygote of our own, kept running, asked for a fork per engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from penstock_engines.failures import LaunchError
from penstock_engines.launcher import socket_of
from penstock_engines.spec import (
    Device,
    EngineSpec,
    inherited_environment,
    vllm_arguments,
    vllm_environment,
)

SOCKET: Final = "zygote-"
"""Where a zygote listens: this and the process id of who started it."""
LISTEN_S: Final = 30.0
"""A new zygote listens before it imports anything heavy; on a busy machine even that takes a while."""
IMPORT_S: Final = 600.0
"""The import takes 15 s on a quiet machine and was seen to take 133 s on a busy one."""


class ZygoteProcess:
    """An engine that our zygote forked; the connection is its lifeline."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pid = pid
        self._writer = writer
        self._exit = asyncio.ensure_future(self._follow(reader))

    @property
    def pid(self) -> int:
        """See EngineProcess."""
        return self._pid

    async def wait(self) -> int:
        """See EngineProcess."""
        return await asyncio.shield(self._exit)

    def terminate(self) -> None:
        """See EngineProcess."""
        self._do("terminate")

    def kill(self) -> None:
        """See EngineProcess."""
        self._do("kill")

    def _do(self, what: str) -> None:
        if not self._exit.done():
            self._writer.write(json.dumps({"do": what}).encode() + b"\n")

    async def _follow(self, reader: asyncio.StreamReader) -> int:
        try:
            line = await reader.readline()
        except OSError:
            line = b""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        # Without a word the zygote itself is gone, and its engines were killed with it.
        return int(json.loads(line)["exit"]) if line else -9


class ZygoteLauncher:
    """Starts engines by fork, and starts the zygote itself when there is none or it ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._zygote: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._engines: set[ZygoteProcess] = set()

    @property
    def device(self) -> Device:
        """See Launcher."""
        return Device.CPU

    @property
    def zygote_pid(self) -> int | None:
        """Process id of the warm parent, while it lives."""
        return self._zygote.pid if self._alive() and self._zygote is not None else None

    async def warm(self) -> None:
        """See Launcher: starts the zygote, which then imports for some 10 s."""
        async with self._starting:
            if not self._alive():
                await self._start()

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> ZygoteProcess:
        """See Launcher."""
        request = {
            "argv": vllm_arguments(spec, socket_of(folder), Device.CPU),
            "environment": vllm_environment(spec, Device.CPU),
            "log": str(log),
        }
        await self.warm()
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError as error:
            raise LaunchError(f"the warm parent of engines does not answer: {error}") from error
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            pid = await self._read_pid(reader)
        except BaseException:
            # The zygote kills what it forked for a connection that closes.
            writer.close()
            raise
        process = ZygoteProcess(pid, reader, writer)
        self._engines = {engine for engine in self._engines if not engine._exit.done()} | {process}
        return process

    async def close(self) -> None:
        """See Launcher."""
        for engine in self._engines:
            engine.kill()
        await asyncio.gather(*(engine.wait() for engine in self._engines))
        self._engines.clear()
        if self._zygote is not None and self._alive():
            self._zygote.kill()
            await self._zygote.wait()
            self._socket.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        # Its own: another controller of this machine may be starting or stopping one.
        return self._folder / f"{SOCKET}{os.getpid()}"

    def _alive(self) -> bool:
        return self._zygote is not None and self._zygote.returncode is None

    async def _read_pid(self, reader: asyncio.StreamReader) -> int:
        try:
            async with asyncio.timeout(IMPORT_S):
                line = await reader.readline()
        except TimeoutError:
            raise LaunchError(f"the warm parent of engines was not ready within {IMPORT_S:g} s") from None
        except OSError as error:
            raise LaunchError(f"the warm parent of engines ended: {error}") from error
        if not line:
            raise LaunchError(f"the warm parent of engines ended; see {self._folder / 'zygote.log'}")
        answer: dict[str, Any] = json.loads(line)
        return int(answer["pid"])

    def _unlink_left(self) -> None:
        """Remove the sockets of launchers that are no more, and our own."""
        for left in self._folder.glob(f"{SOCKET}*"):
            owner = left.name.removeprefix(SOCKET)
            if owner == str(os.getpid()) or not Path("/proc", owner).exists():
                left.unlink(missing_ok=True)

    async def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._unlink_left()
        environment = inherited_environment(os.environ) | {
            # Before torch is imported: threads that it starts would not survive the fork.
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_PLUGINS": "",
        }
        command = (sys.executable, "-m", "penstock_engines.zygote", "--socket", str(self._socket))
        with (self._folder / "zygote.log").open("ab") as log:
            self._zygote = await asyncio.create_subprocess_exec(
                *command,
                *("--parent", str(os.getpid())),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(LISTEN_S):
                while not self._socket.exists():
                    if not self._alive():
                        raise LaunchError(
                            f"the warm parent of engines ended at once; see {self._folder / 'zygote.log'}"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise LaunchError(f"the warm parent of engines did not listen within {LISTEN_S:g} s") from None
