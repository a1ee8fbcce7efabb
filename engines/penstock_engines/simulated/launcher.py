"""Starts simulated engines as a controller starts real ones: each a process of its own, there at once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from penstock_engines.direct import DirectProcess
from penstock_engines.launcher import socket_of
from penstock_engines.spec import Device, EngineSpec


class SimulatedLauncher:
    """A Launcher; see simulated/__main__.py for what engines can be told."""

    def __init__(self, **options: float) -> None:
        """`options` are those of the engine's command line, as in tokens_per_second=100."""
        self.started: list[DirectProcess] = []
        self._arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]

    @property
    def device(self) -> Device:
        """See Launcher."""
        return Device.CPU

    async def warm(self) -> None:
        """See Launcher: nothing is slow here."""

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> DirectProcess:
        """See Launcher."""
        log.parent.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-P", "-m", "penstock_engines.simulated", "--model", spec.model)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--uds", str(socket_of(folder)), "--parent", str(os.getpid())),
                *self._arguments,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.started.append(DirectProcess(process))
        return self.started[-1]

    async def close(self) -> None:
        """See Launcher."""
        for process in self.started:
            process.kill()
        await asyncio.gather(*(process.wait() for process in self.started))
