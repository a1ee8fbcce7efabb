"""The processes under test: gateways as `penstock up` starts them, and simulated engines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
from rig import shim
from rig.server import until

CONTROLLING = Path(__file__).parent / "controlling.py"


class Gateway:
    """One gateway: a listening socket that lasts, and one process after the other behind it."""

    def __init__(
        self, number: int, home: Path, environment: dict[str, str], control: shim.Control | None
    ) -> None:
        self.number = number
        self.home = home
        self.harmed = False
        """Killed, or kept from writing: a request here that was not acknowledged may have no record."""
        self.control = control
        self._environment = environment | (control.environment if control else {})
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self.port: int = self._listener.getsockname()[1]
        self.log = home.parent / f"gateway-{number}.log"
        self.process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start a process, and wait until it answers."""
        await self.launch()
        await until(self.ready, f"gateway {self.number} is ready")

    async def launch(self) -> None:
        """Start a process."""
        file = self._listener.fileno()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "penstock.cli", "gateway", "--fd", str(file)),
                env=self._environment,
                stdout=log,
                stderr=log,
                pass_fds=[file],
            )

    async def ready(self) -> bool:
        """Whether it takes requests; a process that ended meanwhile fails the test."""
        assert self.running, self.last_words()
        return (await self.state()).get("ready", False)

    async def state(self) -> dict[str, Any]:
        """What /readyz says; empty when it does not answer."""
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                answer: dict[str, Any] = (await client.get(f"http://127.0.0.1:{self.port}/readyz")).json()
                return answer
        except httpx.HTTPError:
            return {}

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL."""
        self.harmed = True
        if self.running:
            self.send(signal.SIGKILL)
        await self.ended()

    async def ended(self, within_s: float = 60) -> int:
        """Wait for the process to end by itself; its exit status."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), within_s)

    def limit_files(self, size: int | None) -> None:
        """Let no file of the process grow beyond `size` bytes: a quota, in effect at once."""
        most = resource.RLIM_INFINITY if size is None else size
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def status(self) -> str:
        """What the kernel says that the process does."""
        return str(psutil.Process(self.pid).status())

    def memory_bytes(self) -> int:
        """What it holds of memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def connections(self) -> int:
        """How many clients are connected to it."""
        ours = psutil.Process(self.pid).net_connections("tcp")
        return sum(one.laddr.port == self.port and one.status == "ESTABLISHED" for one in ours)

    def last_words(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"== gateway {self.number}\n" + "\n".join(text.splitlines()[-lines:])

    async def close(self) -> None:
        if self.running:
            # One that is stopped takes no other signal.
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
            await self.ended()
        self._listener.close()


class Controller:
    """One controller, whose engines are simulated and end with it."""

    def __init__(self, number: int, environment: dict[str, str], log: Path) -> None:
        self.number = number
        self.log = log
        self.process: asyncio.subprocess.Process | None = None
        self._environment = environment

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self, **engine: float) -> None:
        """Start a process; `engine` says how its engines behave."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(CONTROLLING), json.dumps(engine)),
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, within_s: float = 60) -> int:
        """Wait for the process to end by itself; its exit status."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), within_s)

    async def close(self) -> None:
        if self.running:
            self.send(signal.SIGKILL)
            await self.ended()

    def last_words(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"== controller {self.number}\n" + "\n".join(text.splitlines()[-lines:])


class Engine:
    """A simulated engine: a process of its own, whose own count is the truth about tokens."""

    def __init__(self, name: str, socket_path: Path) -> None:
        self.name = name
        self.socket = socket_path
        self.process: asyncio.subprocess.Process | None = None
        self.kept: dict[str, Any] = {}
        """The count of a process before this one, where somebody asked for it in time."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self, model: str, **options: float) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "penstock_engines.simulated", "--uds", str(self.socket)),
            *("--model", model, *arguments, "--parent", str(os.getpid())),
        )
        await until(self._answers, f"engine {self.name} answers")

    async def _answers(self) -> bool:
        assert self.running, f"engine {self.name} ended"
        with contextlib.suppress(httpx.HTTPError):
            return bool(await self.made() is not None)
        return False

    def _client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30)

    async def breaks(self, **fault: object) -> None:
        """Let it break from now on; see penstock_engines.simulated.faults."""
        async with self._client() as client:
            (await client.post("/penstock/faults", json=fault)).raise_for_status()

    async def mend(self) -> None:
        async with self._client() as client:
            (await client.delete("/penstock/faults")).raise_for_status()

    async def made(self) -> dict[str, Any]:
        """Its own count, by request id."""
        async with self._client() as client:
            counts: dict[str, Any] = (await client.get("/penstock/oracle")).json()["requests"]
            return counts

    async def kill(self) -> None:
        assert self.process is not None
        if self.running:
            self.process.kill()
        await self.process.wait()
