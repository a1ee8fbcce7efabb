"""The direct way to start engines, for GPUs: each is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from penstock_engines import shared_memory
from penstock_engines.failures import LaunchError
from penstock_engines.launcher import socket_of
from penstock_engines.spec import (
    Device,
    EngineSpec,
    inherited_environment,
    vllm_arguments,
    vllm_environment,
)


class DirectProcess:
    """An engine that is our own child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """See EngineProcess."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the API process has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """See EngineProcess."""
        status = await self._process.wait()
        # Whatever outlived the API process must not outlive this.
        self.kill()
        shared_memory.remove_left(self._process.pid)
        return status

    def terminate(self) -> None:
        """See EngineProcess."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """See EngineProcess."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class DirectLauncher:
    """Starts each engine as a process of its own, which imports vLLM itself; the way for GPUs.

    A CUDA context cannot be forked, so nothing can be kept warm for it in a parent.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._started: list[DirectProcess] = []

    @property
    def device(self) -> Device:
        """See Launcher."""
        return self._device

    async def warm(self) -> None:
        """See Launcher: nothing can be warm here."""

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> DirectProcess:
        """See Launcher."""
        arguments = vllm_arguments(spec, socket_of(folder), self._device)
        environment = inherited_environment(os.environ) | vllm_environment(spec, self._device)
        command = (sys.executable, "-m", "penstock_engines.serve", "--parent", str(os.getpid()), "--")
        try:
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    *arguments,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise LaunchError(f"the engine could not be started: {error}") from error
        self._started = [one for one in self._started if one.alive]
        self._started.append(DirectProcess(process))
        return self._started[-1]

    async def close(self) -> None:
        """See Launcher."""
        for process in self._started:
            process.kill()
        await asyncio.gather(*(process.wait() for process in self._started))
        self._started.clear()
