"""A real gateway over HTTP, in front of simulated engines and a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from benches.gateway import MODEL, Bench, open_bench


@pytest.fixture
async def bench(database_url: str, database: asyncpg.Pool) -> AsyncIterator[Bench]:
    async with open_bench(database_url, database) as bench:
        yield bench


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
