"""A room: real gateways, engines, a database and a Redis with bad roads between them, for one test."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from rig import check, shim
from rig.client import MODEL, Seen, ask
from rig.load import Load, Make, mixed
from rig.processes import Controller, Engine, Gateway
from rig.proxy import Proxy
from rig.redis_server import RedisServer
from rig.server import AWAY, Server, until

from penstock.access import keys
from penstock_billing import prices
from penstock_billing.leases import Wallet
from penstock_billing.prices import Offer
from penstock_billing.testing import credit_nano_usd, fund
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pools, registry
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.registry import Registered

PEPPER = bytes(range(32))
LOADER = "acme"
"""The organisation that the load belongs to."""
OFFER = Offer(MODEL, 150_000, 75_000, 600_000)


@dataclass
class Room:
    """Everything a test breaks."""

    folder: Path
    server: Server
    redis: RedisServer
    name: str
    """Of the database."""
    key: str
    to_postgres: Proxy
    """The gateways' way to Postgres; the room's own goes past it."""
    to_redis: Proxy
    environment: dict[str, str]
    library: Path
    gateways: list[Gateway] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    controllers: list[Controller] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    asked: list[Seen] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The state folder that all gateways share."""
        return self.folder / "home"

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def url(self) -> str:
        """The database, past the proxy."""
        return self.server.url(self.name)

    @property
    def seen(self) -> list[Seen]:
        """Everything that clients saw."""
        return [*self.asked, *(seen for load in self.loads for seen in load.seen)]

    async def start_gateway(
        self, *, shimmed: bool = False, home: Path | None = None, wait: bool = True, **settings: object
    ) -> Gateway:
        """Start a gateway; `shimmed` puts the library between it and its disk and clock."""
        number = len(self.gateways)
        control = shim.Control(self.folder / f"control-{number}", self.library) if shimmed else None
        told = {f"PENSTOCK_{name.upper()}": str(value) for name, value in settings.items()}
        where = {"PENSTOCK_HOME": str(home or self.home)}
        gateway = Gateway(number, home or self.home, self.environment | where | told, control)
        self.gateways.append(gateway)
        if wait:
            await gateway.start()
        return gateway

    async def start_engine(self, batch_max: int = 64, **options: float) -> Engine:
        """Start an engine, by default one of 100 tokens a second, and tell the gateways of it."""
        name = f"e{len(self.engines)}"
        folder = self.home / "engines" / name
        folder.mkdir(parents=True)
        engine = Engine(name, folder / "engine.sock")
        self.engines.append(engine)
        await engine.start(MODEL, **({"tokens_per_second": 100, "answer_tokens": 1000} | options))
        await self.register(name, engine.socket, batch_max=batch_max)
        return engine

    async def start_controller(self, **engine: float) -> Controller:
        """Start a controller, which runs the pools that there are; `engine` says how its engines behave.

        It shares the gateways' state folder, and goes the same ways to Postgres and Redis.
        """
        number = len(self.controllers)
        environment = self.environment | {
            "PENSTOCK_HOME": str(self.home),
            "PENSTOCK_MODELS": "",
            "PENSTOCK_CPU_SLOTS": "16",
        }
        controller = Controller(number, environment, self.folder / f"controller-{number}.log")
        self.controllers.append(controller)
        await controller.start(**({"tokens_per_second": 100, "answer_tokens": 1000} | engine))
        return controller

    async def set_pool(self, **settings: object) -> None:
        """Have a pool of the model, or change it; the fields are those of PoolSettings."""
        wanted = msgspec.convert(settings, PoolSettings)
        async with self.connect() as connection:
            if await pools.find(connection, MODEL) is None:
                await pools.create(connection, self.card(), wanted)
            else:
                await pools.change(connection, MODEL, wanted)

    def card(self, **engine: object) -> ModelCard:
        """The model's card, with other settings of its engines where some are named."""
        card = Shelf.open([BUILTIN]).get(MODEL)
        assert card is not None
        return msgspec.structs.replace(card, engine=msgspec.structs.replace(card.engine, **engine))

    async def registered(self, **wanted: object) -> list[Registered]:
        """The engines that gateways are told of, those with these fields."""
        async with self.connect() as connection:
            found = await registry.listed(connection)
        return [one for one in found if all(getattr(one, name) == what for name, what in wanted.items())]

    async def until_ready(self, count: int, **wanted: object) -> list[Registered]:
        """Wait until so many engines are ready, with these fields, and none is in another state."""

        async def as_wanted() -> list[Registered] | None:
            ready = await self.registered(state="ready", **wanted)
            return ready if len(ready) == count == len(await self.registered()) else None

        found: list[Registered] = await until(as_wanted, f"{count} engines are ready and none else is there")
        return found

    async def waiting(self) -> int:
        """How many requests wait in all gateways, as they told last."""
        query = "select coalesce(sum(waiting_requests), 0) from engines.load"
        return int(await self.fetchval(query))

    async def register(self, name: str, socket: Path, state: str = "ready", batch_max: int = 64) -> None:
        """Say what a controller would of an engine."""
        async with self.connect() as connection:
            await registry.put(connection, Registered(name, MODEL, state, socket, batch_max, None), "room")

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url, timeout=10)
        try:
            yield connection
        finally:
            with contextlib.suppress(*AWAY):
                await connection.close(timeout=5)

    async def fetchval(self, query: str, *arguments: object) -> Any:
        async with self.connect() as connection:
            return await connection.fetchval(query, *arguments)

    def load(
        self, *, clients: int = 6, make: Make = mixed, name_length: int = 0, key: str | None = None
    ) -> Load:
        """Load on all gateways there are now."""
        load = Load(
            tuple(self.gateways),
            key or self.key,
            clients=clients,
            seed=len(self.loads) + 1,
            make=make,
            name_length=name_length,
        )
        self.loads.append(load)
        return load

    async def ask(self, gateway: Gateway | None = None, **body: Any) -> Seen:
        """Ask one thing and keep what was seen; arguments of `rig.client.ask` may be among the fields."""
        options = {
            name: body.pop(name)
            for name in ("leave_at", "politely", "path", "headers", "patience_s", "key")
            if name in body
        }
        name = f"asked-{len(self.asked)}-{os.urandom(4).hex()}"
        if "path" not in options:
            body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8} | body
        key = options.pop("key", self.key)
        seen = await ask(gateway or self.gateways[0], key, body, name=name, **options)
        self.asked.append(seen)
        return seen

    async def new_key(self, organisation: str) -> str:
        """Make a key of an organisation, and that where there is none."""
        async with self.connect() as connection:
            return await keys.create(connection, PEPPER, name="more", organisation=organisation)

    async def fund(self, nano_usd: int, *, strict: bool = False, organisation: str = LOADER) -> Wallet:
        """Make an organisation prepaid, and add credit; gateways know it within a second."""
        async with self.connect() as connection:
            query = "select id from access.organisation where name = $1"
            organisation_id = await connection.fetchval(query, organisation)
            wallet = Wallet(organisation_id)
            await fund(connection, wallet, nano_usd, strict=strict)
        return wallet

    async def credit(self, wallet: Wallet) -> int:
        """What a wallet has, in nano-dollars, leased or not."""
        async with self.connect() as connection:
            return await credit_nano_usd(connection, wallet)

    async def event(self, seen: Seen) -> asyncpg.Record:
        """The record of a request, as soon as it is in Postgres."""
        query = "select * from billing.usage_event where client_request_id = $1"

        async def found() -> asyncpg.Record | None:
            async with self.connect() as connection:
                row: asyncpg.Record | None = await connection.fetchrow(query, seen.name)
                return row

        row: asyncpg.Record = await until(found, f"{seen.name} is recorded")
        return row

    async def check(self, given_up: frozenset[str] = frozenset()) -> list[asyncpg.Record]:
        """Everything that must hold after a fault, once the journals are drained; returns the events."""
        async with self.connect() as connection:
            return await check.check(connection, self.journal, self.seen, self.engines, given_up)

    async def behind(self) -> dict[str, tuple[int, int]]:
        """Journals that are not shipped to their end."""
        async with self.connect() as connection:
            return await check.behind(connection, self.journal)

    async def sessions(self, condition: str = "true") -> int:
        """How many sessions the gateways have at the server."""
        query = "select count(*) from pg_stat_activity where application_name like 'penstock %' and "
        return int(await self.fetchval(query + condition))

    async def close(self) -> None:
        for gateway in self.gateways:
            await gateway.close()
            print(gateway.last_words())  # noqa: T201 - pytest shows it where a test failed
        for controller in self.controllers:
            await controller.close()
            print(controller.last_words())  # noqa: T201 - as above
        for engine in self.engines:
            await engine.kill()
        await self.to_postgres.close()
        await self.to_redis.close()
        await self.server.mend()
        await self.server.execute(f"drop database if exists {self.name} with (force)")


@contextlib.asynccontextmanager
async def open_room(server: Server, redis: RedisServer, library: Path) -> AsyncIterator[Room]:
    """A room with a database of its own and no gateway yet."""
    with tempfile.TemporaryDirectory(prefix="pf-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        (folder / "home").mkdir()
        await server.mend()
        await redis.mend()
        name = await server.new_database()
        to_postgres, to_redis = Proxy(lambda: server.socket), Proxy(lambda: redis.socket)
        await to_postgres.listen_at(folder / ".s.PGSQL.5432")
        redis_port = await to_redis.listen()
        async with _connected(server.url(name)) as connection:
            key = await keys.create(connection, PEPPER, name="load", organisation=LOADER)
            await prices.sync_list(connection, [OFFER])
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")},
            "PENSTOCK_DATABASE_URL": server.url(name, at=folder),
            "PENSTOCK_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "PENSTOCK_KEY_PEPPER": PEPPER.hex(),
            "PENSTOCK_MODELS": MODEL,
            "PENSTOCK_DRAIN_S": "5",
            "PENSTOCK_STALL_TIMEOUT_S": "20",
            "PENSTOCK_FIRST_BYTE_TIMEOUT_S": "20",
        }
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        room = Room(folder, server, redis, name, key, to_postgres, to_redis, environment, library)
        try:
            yield room
        finally:
            await room.close()


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
