"""Pools: what runs, what waits, what was decided and why; their settings, versions and engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.sessions import Visitor
from penstock.changes import Change
from penstock.edge.refusals import NotFound
from penstock.portal import forms
from penstock.portal.frame import Frame, go
from penstock.portal.rendering import require_operator
from penstock_catalog.cards import EndpointKind, ModelCard
from penstock_engines import pool_changes, pools
from penstock_engines.pool_settings import PolicyName, PoolSettings
from penstock_engines.pools import Load, Pool, PoolError
from penstock_engines.replica import StartTimings

PATH = "/portal/operator/pools"
DECISIONS, STARTS = 50, 30
NOTHING = Load()
SETTINGS = {
    "replicas_min": ("Engines at least", "0 lets the model sleep."),
    "replicas_max": ("Engines at most", "0 turns the model off."),
    "running_target": ("Requests running per engine", "More than this asks for another engine."),
    "waiting_tokens_target": ("Tokens waiting per engine", "Likewise."),
    "kv_usage_target": ("KV cache in use", "From 0 to 1, likewise."),
    "first_token_target_s": ("First token within, seconds", "Windows and sizes aim at it."),
    "tolerance": ("Tolerance", "How far from its target a signal may be: 0.1 is 10 %."),
    "up_after_s": ("More after, seconds", "All of them must have asked for more."),
    "down_after_s": ("Fewer after, seconds", "None of them may have asked for as many."),
    "idle_after_s": ("Asleep after, seconds", "Without a request, where engines may be none."),
    "policy": ("Routing", ""),
    "shared_prefix_cache": ("Shared prefix cache", "Organisations could tell what others asked before."),
    "wait_max_s": ("Longest wait, seconds", "For a turn, or for the model to wake; then 503."),
    "waiting_max": ("Waiting at most", "Requests in one gateway; then 429."),
    "sleep": ("Sleeps on a GPU", "Otherwise its last engine is stopped."),
    "instance_type": ("Instance type", "The slice that each engine takes whole; else what it needs."),
    "hedge_after_ms": ("Hedge after, milliseconds", "When a second engine is asked too."),
}
"""What each setting is called on the page, and what to know of it."""
Work = Callable[[asyncpg.Connection, str, dict[str, str]], Awaitable[None]]
"""Something that is done to a pool: its model, and what was typed."""


class Rolled(msgspec.Struct):
    """Why a version is replaced."""

    note: str = ""


class Back(msgspec.Struct):
    """Which version is to run again."""

    version: int


class Pages:
    """The two pages, and what their forms do."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._world = frame.world

    async def found(self, model: str) -> Pool:
        """The pool of a model; raises NotFound."""
        one = await pools.find(self._world.pool, model)
        if one is None:
            raise NotFound(f"{model[:100]} has no pool")
        return one

    async def all(self, request: Request[Any, Any, Any], visitor: Visitor, error: str = "") -> Response[str]:
        """The list; only its living part for htmx."""
        pool = self._world.pool
        there = await pools.listed(pool)
        served = {each.model for each in there}
        offered = self._world.shelf.search(endpoint=EndpointKind.SERVERLESS)
        return self._frame.page(
            request,
            "operator/pools.html",
            visitor,
            block="live" if "hx-request" in request.headers else None,
            status=422 if error else 200,
            pools=there,
            engines=await pools.running(pool),
            loads=await pools.loads(pool),
            nothing=NOTHING,
            unserved=sorted((card.id, card.id) for card in offered if card.id not in served),
            error=error,
        )

    async def one(
        self,
        request: Request[Any, Any, Any],
        visitor: Visitor,
        model: str,
        error: str = "",
        values: dict[str, str] | None = None,
    ) -> Response[str]:
        """One pool; only its living part for htmx. Raises NotFound."""
        pool = self._world.pool
        one = await self.found(model)
        settings = msgspec.to_builtins(one.settings)
        said = {**settings.pop("scale"), **settings}
        starts = await pools.starts(pool, model, STARTS)
        return self._frame.page(
            request,
            "operator/pool.html",
            visitor,
            block="live" if "hx-request" in request.headers else None,
            status=422 if error else 200,
            pool=one,
            settings={name: "" if value is None else value for name, value in said.items()},
            words=SETTINGS,
            policies=[(each.value, each.value.replace("_", " ")) for each in PolicyName],
            engines=[each for each in await pools.running(pool) if each.model == model],
            load=(await pools.loads(pool)).get(model, NOTHING),
            versions=await pools.versions(pool, model),
            decisions=await pools.scalings(pool, model, DECISIONS),
            starts=starts,
            start_times=[f"{each.at:%d %b %H:%M}" for each in reversed(starts)],
            start_parts=_parts([each.timings for each in reversed(starts)]),
            error=error,
            values=values or {},
        )

    async def changing(
        self, request: Request[Any, Any, Any], visitor: Visitor, model: str, what: Work, notice: str
    ) -> Response[Any]:
        """Do something to a pool, or show it again with what is wrong. Raises NotFound."""
        await self.found(model)
        values = await forms.typed(request)
        try:
            async with self._world.pool.acquire() as taken:
                await what(cast("asyncpg.Connection", taken), model, values)
        except (PoolError, forms.FormError) as error:
            return await self.one(request, visitor, model, str(error), values)
        await self._world.changes.tell(Change.POOLS)
        return go(f"{PATH}/{model}", notice)

    async def make(self, connection: asyncpg.Connection, model: str) -> None:
        """Give a model a pool; raises PoolError."""
        card = self._world.shelf.get(model)
        if card is None or EndpointKind.SERVERLESS not in card.endpoints:
            raise PoolError(f"{model[:100] or 'nothing'} is no model that is offered serverless")
        await pools.create(connection, card, PoolSettings())
        await self._world.changes.tell(Change.POOLS)

    async def set(self, connection: asyncpg.Connection, model: str, values: dict[str, str]) -> None:
        """Change settings; raises PoolError."""
        said = {name: value.strip() for name, value in values.items() if name in pool_changes.NAMES}
        wanted = pool_changes.changed((await self.found(model)).settings, said)
        await pools.change(connection, self._card(model), wanted)

    async def roll(self, connection: asyncpg.Connection, model: str, values: dict[str, str]) -> None:
        """Replace its engines by what the card says now; raises PoolError."""
        await pools.roll(connection, self._card(model), forms.read(values, Rolled).note[:500])

    async def roll_back(self, connection: asyncpg.Connection, model: str, values: dict[str, str]) -> None:
        """Run a version again; raises PoolError."""
        await pools.roll_back(connection, model, forms.read(values, Back).version)

    def _card(self, model: str) -> ModelCard:
        card = self._world.shelf.get(model)
        if card is None:
            raise PoolError(f"{model} has no card any more, so its pool can only be rolled back or removed")
        return card


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pages = Pages(frame)

    @get("/operator/pools")
    async def show_all(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        return await pages.all(request, visitor)

    @post("/operator/pools", status_code=303)
    async def create(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        model = (await forms.typed(request)).get("model", "")
        try:
            async with frame.world.pool.acquire() as taken:
                await pages.make(cast("asyncpg.Connection", taken), model)
        except PoolError as error:
            return await pages.all(request, visitor, str(error))
        return go(f"{PATH}/{model}", "pool-made")

    @get("/operator/pools/{model:path}")
    async def show(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], model: FromPath[str]
    ) -> Response[str]:
        require_operator(visitor)
        return await pages.one(request, visitor, str(model).lstrip("/"))

    @post("/operator/pool/{what:str}/{model:path}", status_code=303)
    async def change(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        what: FromPath[str],
        model: FromPath[str],
    ) -> Response[Any]:
        require_operator(visitor)
        works = {
            "set": (pages.set, "pool-changed"),
            "roll": (pages.roll, "pool-rolled"),
            "rollback": (pages.roll_back, "pool-rolled-back"),
        }
        if what not in works:
            raise NotFound("a pool can be set, rolled and rolled back")
        work, notice = works[what]
        return await pages.changing(request, visitor, str(model).lstrip("/"), work, notice)

    return [show_all, create, show, change]


def _parts(timings: list[StartTimings]) -> list[dict[str, Any]]:
    """What starts were made of, for a stacked chart in seconds."""
    return [
        {"name": "process", "values": [each.process_s for each in timings]},
        {"name": "weights loaded", "values": [each.listening_s - each.process_s for each in timings]},
        {"name": "first answer", "values": [each.answer_s - each.listening_s for each in timings]},
    ]
