"""A Valkey of the fault tests' own, that may be killed."""

from __future__ import annotations

import signal
from pathlib import Path

from penstock.local import valkey


class RedisServer:
    """One server for all rooms; `mend` starts it again where a test killed it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: valkey.Valkey | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        assert self._running is not None
        return Path(self._running.url.removeprefix("unix://"))

    async def mend(self) -> None:
        """Start it where it does not run, and wait until it answers."""
        if self._running is None or not self._running.child.running:
            self._running = await valkey.start(self._folder)

    async def kill(self) -> None:
        """SIGKILL: all that it held is gone."""
        assert self._running is not None
        await self._running.child.stop(with_signal=signal.SIGKILL, patience_s=15)
