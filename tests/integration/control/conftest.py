"""A real controller over a real Postgres, with simulated engines that start at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="penstock-metrics-"))

import asyncpg
import msgspec
import pytest

from penstock.control.controller import Controller
from penstock.control.fleet import Fleet
from penstock.control.leadership import LeadershipLostError
from penstock.settings import Settings
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import registry
from penstock_engines.direct import DirectProcess
from penstock_engines.failures import EngineSettingsError
from penstock_engines.registry import Registered
from penstock_engines.simulated.launcher import SimulatedLauncher
from penstock_engines.spec import EngineSpec

CHAT, EMBED = "penstock/demo-chat", "penstock/demo-embed"
T = TypeVar("T")


class Launcher(SimulatedLauncher):
    """Launches when it may; a spec whose cache is BAD_CACHE_MIB cannot be run."""

    BAD_CACHE_MIB = 666

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[EngineSpec] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def launch(self, spec: EngineSpec, folder: Path, log: Path) -> DirectProcess:
        self.launches.append(spec)
        await self.hold.wait()
        if spec.settings.kv_cache_mib == self.BAD_CACHE_MIB:
            raise EngineSettingsError("this cache is not for us")
        return await super().launch(spec, folder, log)


async def until(get: Callable[[], Awaitable[T | None]], within_s: float = 30) -> T:
    async with asyncio.timeout(within_s):
        while (found := await get()) is None:  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.02)
    return found


@dataclass
class House:
    """A controller, and what gateways see of its work."""

    database: asyncpg.Pool
    launcher: Launcher
    shelf: Shelf
    settings: Settings
    stop: asyncio.Event
    task: asyncio.Task[None]
    fleet: Fleet

    def card(self, model: str = CHAT, **engine: Any) -> ModelCard:
        card = self.shelf.get(model)
        assert card is not None
        return msgspec.structs.replace(card, engine=msgspec.structs.replace(card.engine, **engine))

    async def engines(self, model: str = CHAT) -> list[Registered]:
        return [one for one in await registry.listed(self.database) if one.model == model]

    async def until_engines(self, wanted: dict[tuple[str, int], int], model: str = CHAT) -> list[Registered]:
        """Wait until there are so many engines by (state, version), and none else."""

        async def as_wanted() -> list[Registered] | None:
            found = await self.engines(model)
            counts: dict[tuple[str, int], int] = {}
            for one in found:
                counts[one.state, one.version] = counts.get((one.state, one.version), 0) + 1
            return found if counts == wanted else None

        return await until(as_wanted)


@pytest.fixture
async def start_controller(
    database_url: str, database: asyncpg.Pool
) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-ct-")))

        async def start(
            *, models: tuple[str, ...] = (), cpu_slots: int = 8, name: str = "a", stall_timeout_s: float = 60
        ) -> House:
            settings = Settings(
                home=folder / name,
                database_url=database_url,
                redis_url=f"unix://{folder}/nobody.sock",
                cards=(),
                models=models,
                cpu_slots=cpu_slots,
                pepper=b"p" * 32,
                body_bytes_max=100_000,
                drain_s=2,
                first_byte_timeout_s=3,
                stall_timeout_s=stall_timeout_s,
                hub_endpoint="http://127.0.0.1:9",
                hub_token="",
                metrics_token="",
                log_level="info",
            )
            shelf = Shelf.open([BUILTIN])
            launcher = Launcher()
            stop = asyncio.Event()
            controller = Controller(settings, shelf, launcher, database)
            task = asyncio.create_task(controller.run(stop))

            async def end() -> None:
                stop.set()
                await asyncio.wait({task}, timeout=20)
                if not task.done():
                    task.cancel()
                with contextlib.suppress(LeadershipLostError):
                    await task

            stack.push_async_callback(end)
            return House(database, launcher, shelf, settings, stop, task, controller._fleet)

        yield start
