"""What every way of starting engines promises."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from penstock_engines.spec import Device, EngineSpec


class EngineProcess(Protocol):
    """One running engine: its API process, and the process group around it."""

    @property
    def pid(self) -> int:
        """Process id of the API process, which is also the id of its process group."""
        ...

    async def wait(self) -> int:
        """Wait for the API process to end; its exit status, or minus the signal that ended it."""
        ...

    def terminate(self) -> None:
        """Ask the engine to finish what it has and leave; it may not hear this while it starts."""
        ...

    def kill(self) -> None:
        """End every process of the engine at once; also after the API process ended."""
        ...


class Launcher(Protocol):
    """Starts engines on one device of this machine."""

    @property
    def device(self) -> Device:
        """What its engines compute on."""
        ...

    async def warm(self) -> None:
        """Begin with whatever makes the first launch quicker; nothing waits for it to be complete."""
        ...

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> EngineProcess:
        """Start an engine that will listen at `folder/engine.sock` and append its output to `log`.

        Raises LaunchError when no process could be started, EngineSettingsError when the spec cannot be run.
        Cancelling it leaves no process behind.
        """
        ...

    async def close(self) -> None:
        """End every engine this launcher started, and whatever it keeps warm."""
        ...


def socket_of(folder: Path) -> Path:
    """Where the engine of this folder listens."""
    return folder / "engine.sock"
