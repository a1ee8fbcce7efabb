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
import pytest
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


@pytest.fixture
async def bench(database_url: str, database: asyncpg.Pool, tmp_path: Path) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-gw-")))
        settings = Settings(
            home=folder,
            database_url=database_url,
            redis_url=f"unix://{folder}/nobody.sock",
            cards=(),
            models=(MODEL,),
            pepper=PEPPER,
            body_bytes_max=100_000,
            drain_s=1,
            first_byte_timeout_s=3,
            stall_timeout_s=1,
            hub_endpoint="http://127.0.0.1:9",
            hub_token="",
            metrics_token="",
            log_level="info",
        )
        async with database.acquire() as connection:
            key = await keys.create(connection, PEPPER, name="test", organisation="acme")
            await prices.sync_list(
                connection, [Offer(MODEL, 100_000, 50_000, 400_000), Offer(EMBED, 18_750, 18_750, 0)]
            )

        gateway = await open_gateway(settings)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
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
        bench = Bench(f"http://127.0.0.1:{listener.getsockname()[1]}", key, gateway, server, database, None)  # type: ignore[arg-type]

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


@pytest.fixture
def chat() -> Callable[..., bytes]:
    """A request body."""

    def body(**more: object) -> bytes:
        return msgspec.json.encode(
            {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20} | more
        )

    return body


@contextlib.asynccontextmanager
async def gateway_process(
    bench: Bench, database_url: str
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    """Another gateway on the same machine: a real process, that may be killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= {
        "PENSTOCK_HOME": str(bench.gateway.journal.folder.parent),
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_REDIS_URL": "unix:///nobody.sock",
        "PENSTOCK_DRAIN_S": "1",
        "PENSTOCK_KEY_PEPPER": (b"p" * 32).hex(),
    }
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "penstock.cli", "gateway", "--fd", str(listener.fileno())),
            env=environment,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = httpx.AsyncClient(
        base_url=url, headers={"authorization": f"Bearer {bench.key}"}, timeout=httpx.Timeout(60)
    )

    async def ready() -> bool | None:
        assert process.returncode is None
        with contextlib.suppress(httpx.TransportError):
            return (await client.get("/readyz")).status_code == 200 or None
        return None

    try:
        await bench.until(ready, 60)
        yield client, process
    finally:
        await client.aclose()
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def second_gateway(
    bench: Bench, database_url: str
) -> Callable[[], contextlib.AbstractAsyncContextManager[tuple[httpx.AsyncClient, Any]]]:
    """Start a gateway beside the one under test, in a process of its own."""
    return lambda: gateway_process(bench, database_url)
