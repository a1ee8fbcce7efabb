"""Real engines for tests: one warm parent and one engine of each demo model for the whole session.

They live on an event loop of their own thread, because a test's loop ends with the test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from penstock_catalog.cards import EngineSettings, Task
from penstock_engines.launch import ZygoteLauncher
from penstock_engines.replica import Replica, ReplicaLimits, ReplicaState
from penstock_engines.scrape import EngineFigures, parse
from penstock_engines.spec import EngineSpec

DEMO = Path(__file__).parents[3] / "catalog" / "demo"
CHAT = EngineSpec(
    "penstock/demo-chat",
    DEMO / "chat",
    Task.CHAT,
    2048,
    EngineSettings(max_concurrent_requests=16, kv_cache_mib=64, tool_parser="hermes"),
)
EMBED = EngineSpec(
    "penstock/demo-embed",
    DEMO / "embed",
    Task.EMBEDDING,
    512,
    EngineSettings(max_concurrent_requests=16, kv_cache_mib=64),
)


T = TypeVar("T")


class LoopThread:
    """An event loop that outlives tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 300) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class SharedWarmth(ZygoteLauncher):
    """Launches from a zygote that another launcher keeps."""

    async def warm(self) -> None:
        pass


@dataclass
class RunningEngine:
    """An engine that answers."""

    spec: EngineSpec
    socket: Path
    log: Path

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60)

    async def figures(self) -> EngineFigures:
        async with self.client() as client:
            return parse((await client.get("/metrics")).text)


async def until(state: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait for a state; the test fails with `what` when it does not come."""
    deadline_s = time.monotonic() + timeout_s
    while not state():
        assert time.monotonic() < deadline_s, f"{what} did not come within {timeout_s} s"
        await asyncio.sleep(0.02)


def group(leader: int) -> dict[int, str]:
    """Processes of a process group that are not zombies, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == leader and state != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
    return found


@pytest.fixture
def engine_processes() -> Callable[[int], dict[int, str]]:
    return group


@pytest.fixture
def wait_until() -> Callable[..., Coroutine[Any, Any, None]]:
    return until


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="pe-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def zygote(loop_thread: LoopThread) -> Iterator[ZygoteLauncher]:
    folder = Path(tempfile.mkdtemp(prefix="pz-"))

    async def make() -> ZygoteLauncher:
        launcher = ZygoteLauncher(folder)
        await launcher.warm()
        return launcher

    os.environ["PENSTOCK_CANARY"] = "secret-of-the-parent"
    launcher = loop_thread.do(make())
    del os.environ["PENSTOCK_CANARY"]
    yield launcher
    loop_thread.do(launcher.close())
    shutil.rmtree(folder)


@pytest.fixture
async def warm_launcher(zygote: ZygoteLauncher) -> AsyncIterator[SharedWarmth]:
    """A launcher for this test's own engines, on its own loop."""
    launcher = SharedWarmth(zygote._folder)
    yield launcher
    await launcher.close()


def keep(spec: EngineSpec, loop_thread: LoopThread, launcher: ZygoteLauncher) -> Iterator[RunningEngine]:
    folder = Path(tempfile.mkdtemp(prefix="pe-"))
    ready = threading.Event()

    async def changed(replica: Replica) -> None:
        if replica.state is ReplicaState.READY:
            ready.set()

    async def start() -> tuple[Replica, asyncio.Task[None]]:
        replica = Replica(spec, launcher, folder, changed, limits=ReplicaLimits(start_s=120))
        return replica, asyncio.get_running_loop().create_task(replica.run())

    replica, task = loop_thread.do(start())
    assert ready.wait(200), replica.reason
    yield RunningEngine(spec, replica.socket, folder / "engine.log")

    async def stop() -> None:
        await replica.stop(5)
        await task

    loop_thread.do(stop())
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def chat_engine(loop_thread: LoopThread, zygote: ZygoteLauncher) -> Iterator[RunningEngine]:
    yield from keep(CHAT, loop_thread, zygote)


@pytest.fixture(scope="session")
def embed_engine(loop_thread: LoopThread, zygote: ZygoteLauncher) -> Iterator[RunningEngine]:
    yield from keep(EMBED, loop_thread, zygote)


@pytest.fixture(scope="session")
def keep_engine(
    loop_thread: LoopThread, zygote: ZygoteLauncher
) -> Callable[[EngineSpec], Iterator[RunningEngine]]:
    """Keep an engine of another spec, as a fixture of a module's own would."""
    return lambda spec: keep(spec, loop_thread, zygote)


@pytest.fixture(scope="session")
def chat_settings() -> EngineSpec:
    return CHAT


@pytest.fixture
def chat_spec() -> EngineSpec:
    return CHAT


@pytest.fixture
async def simulated(place: Path) -> AsyncIterator[RunningEngine]:
    """A simulated engine of the chat model, 100 tokens per second."""
    socket = place / "s.sock"
    command = ("-m", "penstock_engines.simulated", "--uds", str(socket), "--model", CHAT.model)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--tokens-per-second", "100", "--parent", str(os.getpid())
    )
    await until(socket.exists, "the simulated engine")
    yield RunningEngine(CHAT, socket, place / "none")
    if process.returncode is None:
        process.kill()
    await process.wait()
