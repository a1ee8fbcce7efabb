"""A gateway's queue in front of model engines, in virtual time: the real dispatcher, windows and policies.

Nothing is awaited but virtual time, so that minutes of traffic take milliseconds, and a seed is a run.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rig.model_engine import Machine, ModelEngine, Part, Work

from penstock.admission import fair_queue
from penstock.admission.fair_queue import Urgency
from penstock.admission.shared_counters import SharedCounters
from penstock.routing.directory import Directory
from penstock.routing.policy import Hint
from penstock.serving.dispatch import Dispatcher
from penstock.serving.tickets import NotServed, QueueFull, Slot, Ticket
from penstock.serving.usage import EngineUsage, PromptDetails
from penstock_catalog.cards import EngineSettings, FolderSource, Task
from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PolicyName, PoolSettings
from penstock_engines.pools import Content, Pool
from penstock_engines.registry import Registered

MODEL = "model"
COUNT_EVERY_TOKENS = 16
"""A stream's tokens are charged about so often, as a gateway does (relay.CHECK_EVERY_BYTES)."""
FOLLOW_EVERY_S = 1.0


@dataclass(eq=False)
class Asked:
    """One request, and what came of it."""

    at_s: float
    tenant: int
    prompt: list[Part]
    output_tokens: int
    weight: float = 1.0
    urgency: Urgency = Urgency.INTERACTIVE
    session: str | None = None
    first_s: float | None = None
    """From its arrival to its first token."""
    done_s: float | None = None
    """When it was over."""
    refused: bool = False
    engine: str = ""
    cached_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Of the whole prompt."""
        return sum(tokens for _, tokens in self.prompt)


@dataclass
class Moment:
    """What the queue had given, and to whom, when something changed."""

    at_s: float
    service: dict[int, float]
    """Weighted tokens that each tenant has had, divided by its weight."""
    backlogged: frozenset[int]
    """Tenants of whom something waited ever since the moment before."""


@dataclass(frozen=True)
class Setting:
    """How a pool is set up."""

    engines: int = 1
    machine: Machine = field(default_factory=Machine)
    policy: PolicyName = PolicyName.LEAST_LOAD
    fair: bool = True
    """Otherwise first come, first served: all are one tenant."""
    first_token_target_s: float = 2.0
    waiting_max: int = 1_000
    wait_max_s: float = 60.0


@dataclass
class World:
    """One run; `check` is called whenever something has changed, where given."""

    setting: Setting
    seed: int = 0
    check: Callable[[World], None] | None = None
    moments: list[Moment] = field(default_factory=list)
    keep_moments: bool = False

    async def play(self, trace: Iterable[Asked]) -> list[Asked]:
        """Send what is asked when it is asked, and wait until all of it is over."""
        loop = asyncio.get_running_loop()
        names = [f"engine-{number}" for number in range(self.setting.engines)]
        self.engines = {name: ModelEngine(self.setting.machine) for name in names}
        self.directory = self._directory(names)
        self.dispatcher = Dispatcher(
            self.directory,
            SharedCounters("redis://127.0.0.1:1"),
            wanted=lambda _: None,
            clock=loop.time,
            dice=random.Random(self.seed),
        )
        self.waiting: dict[int, int] = {}
        self.service: dict[int, float] = {}
        asked = sorted(trace, key=lambda each: each.at_s)
        following = loop.create_task(self._follow())
        tasks = []
        for each in asked:
            if (pause_s := each.at_s - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            tasks.append(loop.create_task(self._ask(each)))
        await asyncio.gather(*tasks)
        following.cancel()
        return asked

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            self.dispatcher.fill_all()

    async def _ask(self, asked: Asked) -> None:
        tenant = asked.tenant
        self._wait(tenant, 1)
        try:
            slot = await self.dispatcher.acquire(self._ticket(asked), _never)
        except (QueueFull, NotServed):
            asked.refused = True
            return
        finally:
            self._wait(tenant, -1)
        try:
            await self._serve(asked, slot)
        finally:
            self.dispatcher.release(slot)
            if self.check is not None:
                self.check(self)

    async def _serve(self, asked: Asked, slot: Slot) -> None:
        """Let an engine make it, and count as a gateway does."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        target = slot.target
        asked.engine = target.id

        def count(work: Work) -> None:
            if work.made_tokens == 1:
                now_s = loop.time()
                asked.first_s = now_s - asked.at_s
                target.first_token(now_s - began_s, now_s)
                self.dispatcher.read(slot)
                prompt = fair_queue.service(work.prompt_tokens, work.cached_tokens, 0)
                self._give(asked, prompt)
            self._give(asked, fair_queue.OUTPUT_WEIGHT)
            if work.made_tokens % COUNT_EVERY_TOKENS == 1:
                self.dispatcher.charge(slot, _usage(work))
                self._remember()

        work = Work(asked.prompt, asked.output_tokens, count)
        self.engines[target.id].begin(work)
        await work.over.wait()
        self.dispatcher.charge(slot, _usage(work))
        asked.done_s, asked.cached_tokens = loop.time(), work.cached_tokens

    def _give(self, asked: Asked, amount: float) -> None:
        self.service[asked.tenant] = self.service.get(asked.tenant, 0.0) + amount / asked.weight

    def _wait(self, tenant: int, change: int) -> None:
        """One more waits, or one fewer."""
        self.waiting[tenant] = self.waiting.get(tenant, 0) + change
        self._remember()

    def _remember(self) -> None:
        if not self.keep_moments:
            return
        backlogged = frozenset(tenant for tenant, count in self.waiting.items() if count)
        self.moments.append(Moment(asyncio.get_running_loop().time(), dict(self.service), backlogged))

    def _ticket(self, asked: Asked) -> Ticket:
        names = "/".join(name for name, _ in asked.prompt[:1])
        hint = Hint(
            hashlib.blake2b(names.encode(), digest_size=16).digest(),
            asked.session.encode() if asked.session is not None else None,
        )
        tenant = asked.tenant if self.setting.fair else 0
        return Ticket(MODEL, tenant, asked.weight, asked.urgency, hint, float(asked.prompt_tokens))

    def _directory(self, names: list[str]) -> Directory:
        setting = self.setting
        directory = Directory()
        content = Content(
            source=FolderSource(path="/"), task=Task.CHAT, context_length=100_000, engine=EngineSettings()
        )
        settings = PoolSettings(
            scale=ScaleRules(replicas_max=setting.engines, first_token_target_s=setting.first_token_target_s),
            policy=setting.policy,
            waiting_max=setting.waiting_max,
            wait_max_s=setting.wait_max_s,
        )
        directory.know([Pool(MODEL, 1, settings, "operator", content)], {})
        batch = setting.machine.batch_max
        directory.update([Registered(name, MODEL, "ready", Path(f"/{name}"), batch, None) for name in names])
        return directory


def _usage(work: Work) -> EngineUsage:
    return EngineUsage(work.prompt_tokens, work.made_tokens, PromptDetails(work.cached_tokens))


async def _never() -> Any:
    await asyncio.get_running_loop().create_future()


def widest_gap(moments: list[Moment], one: int, other: int) -> float:
    """The largest difference in service between two tenants over any time that both waited throughout."""
    widest, low, high = 0.0, None, None
    for moment in moments:
        if not {one, other} <= moment.backlogged:
            low = high = None
            continue
        ahead = moment.service.get(one, 0.0) - moment.service.get(other, 0.0)
        low, high = (
            min(ahead, low if low is not None else ahead),
            max(ahead, high if high is not None else ahead),
        )
        widest = max(widest, high - low)
    return widest
