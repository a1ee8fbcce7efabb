"""What a benchmark needs running: simulated engines, a gateway with everything behind it, one real engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import asyncpg
import httpx
from benchmarks.figures import Unmeasurable
from benchmarks.rig.ways import Door

from penstock import settings
from penstock.access import keys
from penstock.local import children, first_run, listening, postgres, state, valkey
from penstock.local.children import Child
from penstock.local.postgres import Postgres
from penstock_billing import partitions, prices
from penstock_billing.prices import Offer, PriceVersion
from penstock_catalog import artifacts
from penstock_catalog.cards import ModelCard, Task
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pools, registry
from penstock_engines.launch import choose_launcher
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.registry import Registered
from penstock_engines.replica import Replica, ReplicaState
from penstock_engines.spec import EngineSpec

ANSWERS_WITHIN_S = 30.0
ENGINE_READY_WITHIN_S = 240.0
BATCH_MAX = 4096
DEMO = "penstock/demo-chat"


async def python(name: str, arguments: Sequence[str], folder: Path, *handles: int, **extra: str) -> Child:
    """Start a Python module of ours; the kernel kills it as soon as we are gone."""
    return children.start(
        name,
        [sys.executable, "-P", "-m", *arguments],
        log=folder / f"{name}.log",
        environment=children.own_environment(_without_penstock(), extra),
        folder=folder,
        pass_fds=handles,
    )


async def until_answering(child: Child, port: int, path: str, patience_s: float = ANSWERS_WITHIN_S) -> None:
    """Wait until GET `path` is answered with 200; raises ChildError."""
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:

        async def answers() -> bool:
            try:
                return (await client.get(f"http://127.0.0.1:{port}{path}")).status_code == 200
            except httpx.HTTPError:
                return False

        await children.until_ready(child, answers, patience_s=patience_s)


@contextlib.asynccontextmanager
async def kept(child: Child) -> AsyncIterator[Child]:
    """Stop a child on the way out."""
    try:
        yield child
    finally:
        await child.stop(patience_s=10.0)


@contextlib.asynccontextmanager
async def simulated_engine(
    folder: Path,
    name: str,
    model: str,
    *,
    port: int = 0,
    tokens_per_s: float = 0.0,
    first_token_ms: float = 0.0,
) -> AsyncIterator[Child]:
    """A simulated engine, on a port or (without one) on `folder/name.sock`."""
    socket = folder / f"{name}.sock"
    place = ["--port", str(port)] if port else ["--uds", str(socket)]
    pace = ["--tokens-per-second", str(tokens_per_s), "--answer-tokens", "256"]
    pace += ["--first-token-ms", str(first_token_ms)]
    arguments = ["penstock_engines.simulated", *place, "--model", model, *pace]
    async with kept(await python(name, arguments, folder)) as child:
        if port:
            await until_answering(child, port, "/health")
        else:
            await children.until_ready(child, lambda: _there(socket), patience_s=ANSWERS_WITHIN_S)
        yield child


class Database:
    """PostgreSQL in a folder, to be stopped and started again."""

    def __init__(self, server: Postgres, folder: Path, log: Path) -> None:
        self.url = server.url
        self.server = server
        self._folder = folder
        self._log = log
        self._running = True

    async def stop(self) -> None:
        """Cut every session and stop."""
        if self._running:
            self._running = False
            await self.server.stop()

    async def start(self) -> None:
        """Answer again, at the same address."""
        self.server = await postgres.start(self._folder, log=self._log)
        self._running = True


class Gateway:
    """A running gateway process with PostgreSQL and Valkey behind it; engines are registered by hand."""

    def __init__(
        self,
        child: Child,
        port: int,
        key: str,
        pool: asyncpg.Pool,
        database: Database,
        environ: dict[str, str],
        offered: Shelf,
        versions: list[PriceVersion],
    ) -> None:
        self.child = child
        self.database = database
        self.port = port
        self.key = key
        self.pool = pool
        self.environ = environ
        """Its settings, which a controller beside it shares."""
        self.shelf = offered
        self.versions = versions
        """The prices of all models."""

    def door(self, model: str) -> Door:
        """Where a client asks for a model."""
        return Door(model, port=self.port, key=self.key)

    async def register(self, model: str, socket: Path, batch_max: int = BATCH_MAX) -> None:
        """Let the gateway send a model's requests to this engine, and wait until it does."""
        replica = f"bench-{model.replace('/', '--')}"
        await registry.put(self.pool, Registered(replica, model, "ready", socket, batch_max, None), "bench")
        await until_answering(self.child, self.port, f"/readyz?model={model}")

    async def new_key(self, organisation: str) -> str:
        """Make a key of another organisation; the gateway asks for it when it is used first."""
        async with self.pool.acquire() as pooled:
            connection = cast("asyncpg.Connection", pooled)
            return await keys.create(
                connection, settings.read(self.environ).pepper, name=organisation, organisation=organisation
            )

    async def make_pool(self, model: str, settings: PoolSettings) -> None:
        """Give a model a pool, for its settings: no controller is here that would start engines."""
        card = self.shelf.get(model)
        assert card is not None
        async with self.pool.acquire() as pooled:
            await pools.create(cast("asyncpg.Connection", pooled), card, settings)

    @contextlib.asynccontextmanager
    async def controller(self) -> AsyncIterator[Child]:
        """Run a controller on the gateway's database and Valkey, as `penstock up` does."""
        logs = Path(self.environ["PENSTOCK_HOME"]) / "logs"
        child = await python("controller", ["penstock.cli", "controller"], logs, **self.environ)
        async with kept(child):
            yield child

    async def recorded(self, requests: int) -> None:
        """Make sure that Postgres has exactly one usage row for each request; raises Unmeasurable."""
        rows = -1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                while rows < requests:
                    await asyncio.sleep(0.1)
                    rows = await self.pool.fetchval("select count(*) from billing.usage_event")
        if rows != requests:
            raise Unmeasurable(
                f"{requests} requests went through Penstock and Postgres has {rows} usage rows"
            )


@contextlib.asynccontextmanager
async def gateway(folder: Path, models: str = DEMO, cards: Path | None = None) -> AsyncIterator[Gateway]:
    """One gateway worker as `penstock up` runs it, on a state folder of its own under `folder`.

    `cards` is a folder of models that it offers besides those that every Penstock does.
    """
    async with contextlib.AsyncExitStack() as stack:
        held = state.take(folder / "home")
        stack.callback(held.close)
        place, log = held.home / "postgres", held.logs / "postgres.log"
        database = Database(await postgres.start(place, log=log), place, log)
        stack.push_async_callback(database.stop)
        redis = await valkey.start(held.home / "valkey", log=held.logs / "valkey.log")
        stack.push_async_callback(redis.stop)
        environ = {
            "PENSTOCK_HOME": str(held.home),
            "PENSTOCK_DATABASE_URL": database.url,
            "PENSTOCK_REDIS_URL": redis.url,
            "PENSTOCK_MODELS": models,
        }
        if cards is not None:
            environ["PENSTOCK_CARDS"] = str(cards)
        told = settings.read(environ)
        await first_run.migrate(told.database_url)
        pool = await stack.enter_async_context(asyncpg.create_pool(told.database_url, min_size=0, max_size=2))
        async with pool.acquire() as pooled:
            connection = cast("asyncpg.Connection", pooled)
            offered = shelf(cards)
            versions = await prices.sync_list(connection, [_offer(card) for card in offered.cards])
            await partitions.ensure(connection)
            key = await keys.create(connection, told.pepper, name="bench", organisation="bench")
        listener = await listening.bind("127.0.0.1", 0)
        stack.callback(listener.close)
        command = ["penstock.cli", "gateway", "--fd", str(listener.fileno())]
        child = await python("gateway", command, held.logs, listener.fileno(), **environ)
        await stack.enter_async_context(kept(child))
        port = int(listener.getsockname()[1])
        await until_answering(child, port, "/healthz")
        yield Gateway(child, port, key, pool, database, environ, offered, versions)


@contextlib.asynccontextmanager
async def real_engine(folder: Path) -> AsyncIterator[Replica]:
    """Real vLLM with the demo model, ready; raises Unmeasurable when it does not come up."""
    card = shelf().get(DEMO)
    assert card is not None
    weights = await artifacts.locate(card, folder, lambda _: None)
    ready = asyncio.Event()

    async def changed(replica: Replica) -> None:
        if replica.state is ReplicaState.READY:
            ready.set()

    launcher = choose_launcher(folder)
    spec = EngineSpec(card.id, weights, card.task, card.context_length, card.engine)
    replica = Replica(spec, launcher, folder / "engine", changed, log=folder / "engine.log")
    keeper = asyncio.create_task(replica.run())
    try:
        try:
            async with asyncio.timeout(ENGINE_READY_WITHIN_S):
                await ready.wait()
        except TimeoutError:
            raise Unmeasurable(
                f"vLLM was not ready in {ENGINE_READY_WITHIN_S:.0f} s: {replica.reason}"
            ) from None
        yield replica
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await launcher.close()


def shelf(cards: Path | None = None) -> Shelf:
    """The models that every Penstock offers, and those of a folder."""
    return Shelf.open([BUILTIN] if cards is None else [BUILTIN, cards])


def stand_ins(count: int) -> list[str]:
    """Models that the simulated engines pretend to be: any with a price and a chat endpoint."""
    return [card.id for card in shelf().cards if card.task is Task.CHAT and not card.demonstration][:count]


def _offer(card: ModelCard) -> Offer:
    asked = card.prices
    return Offer(card.id, asked.input_pico_usd, asked.cached_input_pico_usd, asked.output_pico_usd)


def _without_penstock() -> dict[str, str]:
    """Our environment without settings of a Penstock that somebody runs here."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


async def _there(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True
