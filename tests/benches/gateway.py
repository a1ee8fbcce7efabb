"""A real gateway over HTTP, in front of simulated engines and a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import msgspec
import uvicorn

from penstock.access import keys
from penstock.app import Gateway, open_gateway
from penstock.settings import Settings
from penstock_billing import prices
from penstock_billing.prices import Offer
from penstock_engines import pools, registry
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.registry import Registered

MODEL = "penstock/demo-chat"
EMBED = "penstock/demo-embed"
PEPPER = b"p" * 32
T = TypeVar("T")


async def until(get: Callable[[], Awaitable[T | None]], within_s: float = 10) -> T:
    """Wait for something to be there."""
    async with asyncio.timeout(within_s):
        while (found := await get()) is None:  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.01)
    return found


@dataclass
class Engine:
    """A simulated engine: a process of its own behind a unix socket."""

    name: str
    socket: Path
    process: asyncio.subprocess.Process

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.socket)), base_url="http://engine"
        )

    async def breaks(self, **fault: object) -> None:
        async with self.client() as client:
            (await client.post("/penstock/faults", json=fault)).raise_for_status()

    async def mend(self) -> None:
        async with self.client() as client:
            (await client.delete("/penstock/faults")).raise_for_status()

    async def made(self) -> dict[str, Any]:
        """The engine's own count, by request id."""
        async with self.client() as client:
            counts: dict[str, Any] = (await client.get("/penstock/oracle")).json()["requests"]
            return counts


@dataclass
class Bench:
    """The gateway under test and what stands around it."""

    url: str
    key: str
    gateway: Gateway
    server: uvicorn.Server
    database: asyncpg.Pool
    start_engine: Callable[..., Awaitable[Engine]]
    engines: list[Engine] = field(default_factory=list)

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def event(self, request_id: str) -> asyncpg.Record:
        """The request's row in Postgres, as soon as it is there."""
        query = "select * from billing.usage_event where request_id = $1"
        return await until(lambda: self.database.fetchrow(query, request_id))

    async def event_by_client(self, client_request_id: str) -> asyncpg.Record:
        """The same, by the name the client gave."""
        query = "select * from billing.usage_event where client_request_id = $1"
        return await until(lambda: self.database.fetchrow(query, client_request_id))

    async def set_state(self, engine: Engine, state: str) -> None:
        """What a controller would say of the engine."""
        await registry.put(self.database, Registered(engine.name, MODEL, state, engine.socket, 64, None), "t")
        await self.gateway.directory.refresh(self.database)

    async def set_pool(self, **settings: object) -> None:
        """How the model's pool is to be used."""
        card = self.gateway.shelf.get(MODEL)
        assert card is not None
        wanted = msgspec.convert(settings, PoolSettings)
        async with self.database.acquire() as connection:
            if await pools.find(connection, MODEL) is None:
                await pools.create(connection, card, wanted)
            else:
                await pools.change(connection, card, wanted)
        await self.gateway.directory.refresh(self.database)

    until = staticmethod(until)


@contextlib.asynccontextmanager
async def open_bench(
    database_url: str, database: asyncpg.Pool, models: tuple[str, ...] = (MODEL,)
) -> AsyncIterator[Bench]:
    """Run a gateway in this process, over HTTP, with nothing behind it but the database."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-gw-")))
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(
            home=folder,
            database_url=database_url,
            redis_url=f"unix://{folder}/nobody.sock",
            cards=(),
            models=models,
            pepper=PEPPER,
            body_bytes_max=100_000,
            drain_s=1,
            first_byte_timeout_s=3,
            stall_timeout_s=1,
            hub_endpoint="http://127.0.0.1:9",
            hub_token="",
            metrics_token="",
            log_level="info",
            public_url=url,
        )
        async with database.acquire() as connection:
            key = await keys.create(connection, PEPPER, name="test", organisation="acme")
            await prices.sync_list(
                connection, [Offer(MODEL, 100_000, 50_000, 400_000), Offer(EMBED, 18_750, 18_750, 0)]
            )

        gateway = await open_gateway(settings)
        server = uvicorn.Server(
            uvicorn.Config(
                gateway.application(),
                http="httptools",
                ws="none",
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        bench = Bench(url, key, gateway, server, database, None)  # type: ignore[arg-type]

        async def start_engine(
            name: str = "a", batch_max: int = 64, model: str = MODEL, **options: object
        ) -> Engine:
            at = folder / f"{name}.sock"
            arguments = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "penstock_engines.simulated", "--uds", str(at), "--model", model),
                *(*arguments, "--parent", str(os.getpid())),
            )

            async def end() -> None:
                if process.returncode is None:
                    process.kill()
                await process.wait()

            stack.push_async_callback(end)

            async def listening() -> bool | None:
                return True if at.exists() else None

            await until(listening)
            await registry.put(database, Registered(name, model, "ready", at, batch_max, None), "test")
            await gateway.directory.refresh(database)
            engine = Engine(name, at, process)
            bench.engines.append(engine)
            return engine

        bench.start_engine = start_engine
        serving = asyncio.create_task(server.serve(sockets=[listener]))

        async def ready() -> bool | None:
            return True if server.started and gateway.keyring.loaded else None

        await until(ready)
        await gateway.prices.load(database)
        yield bench
        server.should_exit = True
        await serving
