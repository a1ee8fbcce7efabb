"""Pools as they should be, in Postgres: written by operators, read by controllers and gateways.

A pool is the shared engines of one model. What its engines run is a version, which never changes: replacing
it makes a new one, rolling back names an older one.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from penstock_base import queries
from penstock_catalog.cards import EngineSettings, FolderSource, HubSource, ModelCard, Task
from penstock_engines import placing
from penstock_engines.autoscale import Sample, ScaleRules
from penstock_engines.inventory import Inventory
from penstock_engines.placing import DoesNotFit
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.replica import StartTimings

SQL = queries.load("penstock_engines", "pools.sql")

Connection = asyncpg.Connection | asyncpg.Pool | asyncpg.pool.PoolConnectionProxy


class PoolError(Exception):
    """A pool that cannot be changed so; the message says what could be."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's engines run."""

    source: FolderSource | HubSource
    task: Task
    context_length: int
    engine: EngineSettings

    def of(self, card: ModelCard) -> ModelCard:
        """Turn the card into what it was when this version was made, as far as engines are concerned."""
        return msgspec.structs.replace(
            card,
            source=self.source,
            task=self.task,
            context_length=self.context_length,
            engine=self.engine,
        )


def content_of(card: ModelCard) -> Content:
    """Take from a card what its engines depend on."""
    return Content(source=card.source, task=card.task, context_length=card.context_length, engine=card.engine)


class Pool(msgspec.Struct, frozen=True):
    """One pool as it should be."""

    model: str
    version: int
    settings: PoolSettings
    origin: str
    """`settings` (PENSTOCK_MODELS) or `operator`."""
    content: Content


class Version(msgspec.Struct, frozen=True):
    """One version of what a pool's engines run."""

    version: int
    content: Content
    note: str
    created_at: datetime.datetime


class Scaling(msgspec.Struct, frozen=True):
    """One decision about a pool's size."""

    at: datetime.datetime
    before: int
    after: int
    reason: str
    sample: Sample


class Start(msgspec.Struct, frozen=True):
    """How long one start of an engine took."""

    at: datetime.datetime
    version: int
    timings: StartTimings


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways have to do for one model."""

    running: int = 0
    waiting_requests: int = 0
    waiting_tokens: float = 0.0
    first_token_ms: int = 0
    idle_s: float = float("inf")
    """Since some gateway was last asked for the model."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway tells of one model."""

    model: str
    running: int
    waiting_requests: int
    waiting_tokens: float
    first_token_ms: int
    asked_at: datetime.datetime


async def listed(connection: Connection) -> list[Pool]:
    """Every pool."""
    return [_pool(row) for row in await connection.fetch(SQL["all"])]


async def find(connection: Connection, model: str) -> Pool | None:
    """The pool of a model, where it has one."""
    row = await connection.fetchrow(SQL["one"], model)
    return _pool(row) if row is not None else None


async def name(
    connection: asyncpg.Connection, cards: Sequence[ModelCard], asleep: Sequence[ModelCard] = ()
) -> None:
    """Make pools for the models that the platform's settings name; drop those they name no more.

    One engine is always ready of `cards`; those `asleep` have one when somebody asks. A pool that an operator
    made or changed stays as it is.
    """
    least = {card.id: 0 for card in asleep} | {card.id: 1 for card in cards}
    async with connection.transaction():
        await connection.fetch(SQL["remove_unnamed"], list(least))
        for card in {card.id: card for card in (*asleep, *cards)}.values():
            await connection.execute(SQL["lock"], card.id)
            pool = await find(connection, card.id)
            settings = PoolSettings(scale=ScaleRules(replicas_min=least[card.id]))
            if pool is None:
                await _put(connection, card.id, await _version_of(connection, card, ""), settings, "settings")
            elif pool.origin == "settings":
                version = await _version_of(connection, card, "the card changed")
                await _put(connection, card.id, version, settings, "settings")


async def create(connection: asyncpg.Connection, card: ModelCard, settings: PoolSettings) -> Pool:
    """Make a pool; raises PoolError where the model has one, or no engine of it will ever fit."""
    await _check_fit(connection, card, settings.instance_type)
    async with connection.transaction():
        await connection.execute(SQL["lock"], card.id)
        if await find(connection, card.id) is not None:
            raise PoolError(f"{card.id} has a pool already: change it with `penstock pools set`")
        await _put(connection, card.id, await _version_of(connection, card, ""), settings, "operator")
    return await _known(connection, card.id)


async def change(connection: asyncpg.Connection, card: ModelCard, settings: PoolSettings) -> Pool:
    """Change a pool's settings; raises PoolError where there is none, or no engine will ever fit so."""
    async with connection.transaction():
        await connection.execute(SQL["lock"], card.id)
        pool = await _known(connection, card.id)
        await _check_fit(connection, pool.content.of(card), settings.instance_type)
        await _put(connection, card.id, pool.version, settings, "operator")
    return await _known(connection, card.id)


async def roll(connection: asyncpg.Connection, card: ModelCard, note: str) -> Pool:
    """Make what the card says now the pool's version.

    Raises PoolError where it is that already, or no engine of it will ever fit.
    """
    async with connection.transaction():
        await connection.execute(SQL["lock"], card.id)
        pool = await _known(connection, card.id)
        await _check_fit(connection, card, pool.settings.instance_type)
        if pool.content == content_of(card):
            raise PoolError(
                f"{card.id} runs version {pool.version}, which is what its card says: change the card first"
            )
        version = await _version_of(connection, card, note)
        await _put(connection, card.id, version, pool.settings, "operator")
    return await _known(connection, card.id)


async def roll_back(connection: asyncpg.Connection, model: str, version: int | None) -> Pool:
    """Make an older version the pool's own, by default the one before; raises PoolError without one."""
    async with connection.transaction():
        await connection.execute(SQL["lock"], model)
        pool = await _known(connection, model)
        known = [each.version for each in await versions(connection, model)]
        wanted = version if version is not None else max((v for v in known if v < pool.version), default=0)
        if wanted not in known or wanted == pool.version:
            others = ", ".join(str(v) for v in known if v != pool.version) or "none"
            raise PoolError(f"{model} runs version {pool.version}; others that it could run: {others}")
        await _put(connection, model, wanted, pool.settings, "operator")
    return await _known(connection, model)


async def remove(connection: Connection, model: str) -> None:
    """Drop a pool: its engines finish what they have and stop. Raises PoolError where there is none."""
    if await connection.fetchval(SQL["remove"], model) is None:
        raise PoolError(_no_pool(model))


async def versions(connection: Connection, model: str) -> list[Version]:
    """Every version a model's pool ever had, the newest first."""
    return [
        Version(
            row["version"],
            msgspec.json.decode(row["content"], type=Content),
            row["note"],
            row["created_at"],
        )
        for row in await connection.fetch(SQL["versions"], model)
    ]


async def note_scaling(
    connection: Connection, model: str, before: int, after: int, reason: str, sample: Sample
) -> None:
    """Keep a decision."""
    text = msgspec.json.encode(sample).decode()
    await connection.execute(SQL["note_scaling"], model, before, after, reason, text)


async def scalings(connection: Connection, model: str, most: int) -> list[Scaling]:
    """The latest decisions about a pool, the newest first."""
    return [
        Scaling(
            row["at"],
            row["before"],
            row["after"],
            row["reason"],
            msgspec.json.decode(row["sample"], type=Sample),
        )
        for row in await connection.fetch(SQL["scalings"], model, most)
    ]


async def tell_load(connection: Connection, gateway: str, told: Sequence[Told]) -> None:
    """Write what one gateway has to do."""
    await connection.execute(
        SQL["tell_load"],
        gateway,
        [each.model for each in told],
        [each.running for each in told],
        [each.waiting_requests for each in told],
        [each.waiting_tokens for each in told],
        [each.first_token_ms for each in told],
        [each.asked_at for each in told],
    )


async def loads(connection: Connection) -> dict[str, Load]:
    """What all gateways have to do, by model; those that have not told for 5 s count for nothing."""
    return {
        row["model"]: Load(
            running=row["running"],
            waiting_requests=row["waiting_requests"],
            waiting_tokens=row["waiting_tokens"],
            first_token_ms=row["first_token_ms"],
            idle_s=row["idle_s"],
        )
        for row in await connection.fetch(SQL["loads"])
    }


async def note_start(connection: Connection, model: str, version: int, timings: StartTimings) -> None:
    """Keep how long a start took."""
    await connection.execute(
        SQL["note_start"], model, version, timings.process_s, timings.listening_s, timings.answer_s
    )


async def starts(connection: Connection, model: str, most: int) -> list[Start]:
    """The latest starts of a model's engines, the newest first."""
    return [
        Start(row["at"], row["version"], StartTimings(row["process_s"], row["listening_s"], row["answer_s"]))
        for row in await connection.fetch(SQL["starts"], model, most)
    ]


async def usual_starts_s(connection: Connection) -> dict[str, float]:
    """Seconds that a start takes, by model: the median of the last twenty; absent where there was none."""
    rows = await connection.fetch(SQL["usual_starts"])
    return {row["model"]: row["usually_s"] for row in rows if row["usually_s"] is not None}


async def put_hardware(connection: Connection, controller: str, hardware: Inventory) -> None:
    """Write what the leading controller's machine has for engines."""
    await connection.execute(SQL["put_hardware"], controller, msgspec.json.encode(hardware).decode())


async def hardware(connection: Connection) -> Inventory | None:
    """What engines can be placed on; None before any controller led."""
    text = await connection.fetchval(SQL["hardware"])
    return msgspec.json.decode(text, type=Inventory) if text is not None else None


class Running(msgspec.Struct, frozen=True):
    """One engine as a person looks at it."""

    id: str
    model: str
    state: str
    version: int
    reason: str | None
    since_s: float
    """How long it is in this state."""


async def running(connection: Connection) -> list[Running]:
    """Every engine, by model and age."""
    rows = await connection.fetch(SQL["engines_of"])
    return [Running(*row.values()) for row in rows]


async def forget(connection: Connection, before: datetime.datetime) -> None:
    """Drop old decisions and starts, and the load of gateways that are no more."""
    await connection.execute(SQL["forget_scalings"], before)
    await connection.execute(SQL["forget_starts"], before)
    await connection.execute(SQL["forget_loads"])


async def _check_fit(connection: Connection, card: ModelCard, instance_type: str | None) -> None:
    """Refuse what could not run if nothing else did; what is full now may be free later."""
    there = await hardware(connection)
    if there is None:
        return
    try:
        placing.place(there, [], card, instance_type)
    except DoesNotFit as reason:
        if not reason.ever:
            raise PoolError(str(reason)) from None


async def _known(connection: Connection, model: str) -> Pool:
    pool = await find(connection, model)
    if pool is None:
        raise PoolError(_no_pool(model))
    return pool


async def _version_of(connection: asyncpg.Connection, card: ModelCard, note: str) -> int:
    """Number of the version that runs what the card says: the newest one, or a new one."""
    content = content_of(card)
    newest = await connection.fetchrow(SQL["newest_version"], card.id)
    if newest is not None and msgspec.json.decode(newest["content"], type=Content) == content:
        return int(newest["version"])
    text = msgspec.json.encode(content).decode()
    return int(await connection.fetchval(SQL["add_version"], card.id, text, note))


async def _put(
    connection: asyncpg.Connection, model: str, version: int, settings: PoolSettings, origin: str
) -> None:
    await connection.execute(SQL["put"], model, version, msgspec.json.encode(settings).decode(), origin)


def _pool(row: Any) -> Pool:
    return Pool(
        row["model"],
        row["version"],
        msgspec.json.decode(row["settings"], type=PoolSettings),
        row["origin"],
        msgspec.json.decode(row["content"], type=Content),
    )


def _no_pool(model: str) -> str:
    return f"{model} has no pool: `penstock pools list` shows those there are"
