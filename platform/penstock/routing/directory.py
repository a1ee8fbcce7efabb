"""The pools and engines a gateway knows, in memory, with what it has at each; refreshed from Postgres."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import asyncpg

from penstock.routing.breaker import Breaker
from penstock.routing.window import Window
from penstock_engines import pools, registry
from penstock_engines.client import EngineAddress
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import Pool
from penstock_engines.registry import Registered

DEFAULTS = PoolSettings()
USUAL_SHARE = 0.1
"""How much the latest first token counts in what is usual."""


@dataclass(slots=True, eq=False)
class Target:
    """One engine as this gateway uses it: a routing.policy.Candidate."""

    registered: Registered
    address: EngineAddress
    first_token_target_s: float = DEFAULTS.scale.first_token_target_s
    """The time to first token, from an engine's taking a request, that its window aims at."""
    in_flight: int = 0
    """Requests that this gateway has there now."""
    load: float = 0.0
    """Weighted tokens that they are expected to take."""
    unread_tokens: float = 0.0
    """Of prompts on their way there that it has not read yet, as far as first tokens tell."""
    usual_first_s: float = 0.0
    """What a first token takes there lately, from its being sent; 0: none was seen."""
    breaker: Breaker = field(default_factory=Breaker)
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        """Begin with a window as wide as the engine's batch."""
        self.window = Window(self.registered.batch_max, self.first_token_target_s)

    @property
    def id(self) -> str:
        """The engine's name."""
        return self.registered.id

    @property
    def capacity(self) -> float:
        """What engines of one pool are compared by."""
        return self.registered.batch_max

    @property
    def ready(self) -> bool:
        """Takes new requests."""
        return self.registered.state == "ready"

    def open(self, now_s: float) -> bool:
        """May one more request go there now?"""
        return self.ready and self.window.has_room(self.in_flight) and self.breaker.allows(now_s)

    def enter(self, tokens: float) -> None:
        """A request is on its way there."""
        self.in_flight += 1
        self.load += tokens
        self.breaker.sent()

    def first_token(self, took_s: float, now_s: float) -> None:
        """Learn from a first token that came `took_s` after its request was sent."""
        self.window.first_token(took_s, self.in_flight, now_s)
        self.usual_first_s += (took_s - self.usual_first_s) * (USUAL_SHARE if self.usual_first_s else 1.0)

    def leave(self, tokens: float) -> None:
        """It is over."""
        self.in_flight -= 1
        self.load -= tokens


@dataclass(frozen=True)
class Standing:
    """How a model stands: the best state among its engines, and what is known of when that changes."""

    state: str
    """ready, starting, draining, gone, asleep (wakes when asked), off (will not), or unknown."""
    reason: str = ""
    """For operators: why it is no better."""
    since_s: float | None = None
    """How long it is in this state."""
    usually_s: float | None = None
    """How long a start of it usually takes."""

    @property
    def retry_after_s(self) -> int:
        """When to try again, in whole seconds."""
        if self.usually_s is None:
            return 5
        return max(1, round(self.usually_s - (self.since_s or 0.0)))

    def __str__(self) -> str:
        """Put it in words for a client."""
        if self.state != "starting" or self.since_s is None:
            return self.state
        usually = f", usually {self.usually_s:.0f} s" if self.usually_s is not None else ""
        return f"waking for {self.since_s:.0f} s{usually}"


class Directory:
    """Every pool and every engine, by model."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._by_model: dict[str, list[Target]] = {}
        self._pools: dict[str, Pool] = {}
        self._usual_starts_s: dict[str, float] = {}
        self.loaded = False

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Read pools and registry; engines that are gone are forgotten, running requests there go on."""
        async with pool.acquire() as connection:
            self.know(await pools.listed(connection), await pools.usual_starts_s(connection))
            self.update(await registry.listed(connection))

    def know(self, listed: list[Pool], usual_starts_s: dict[str, float]) -> None:
        """Take over which pools there are, and how long their engines usually take to start."""
        self._pools = {each.model: each for each in listed}
        self._usual_starts_s = usual_starts_s

    def update(self, listed: list[Registered]) -> None:
        """Take over what is registered, keeping the connections and counts of engines already known."""
        targets: dict[str, Target] = {}
        for registered in listed:
            known = self._targets.get(registered.id)
            if known is not None and known.registered.socket == registered.socket:
                if not known.ready and registered.state == "ready":
                    # Its keeper had a real answer of it: it need not be tried first.
                    known.breaker.worked()
                known.registered = registered
                targets[registered.id] = known
            else:
                target_s = self.settings(registered.model).scale.first_token_target_s
                targets[registered.id] = Target(registered, EngineAddress(registered.socket), target_s)
        for gone in self._targets.keys() - targets.keys():
            self._targets[gone].address.close()
        self._targets = targets
        self._by_model = {}
        for target in targets.values():
            self._by_model.setdefault(target.registered.model, []).append(target)
        self.loaded = True

    def settings(self, model: str) -> PoolSettings:
        """How a model's pool is to be used."""
        pool = self._pools.get(model)
        return pool.settings if pool is not None else DEFAULTS

    def targets(self, model: str) -> list[Target]:
        """The engines of a model, in whatever state."""
        return self._by_model.get(model, [])

    def all_targets(self) -> list[Target]:
        """Every engine."""
        return list(self._targets.values())

    def has_ready(self, model: str) -> bool:
        """Whether some engine of a model takes requests."""
        return any(target.ready for target in self.targets(model))

    def models(self) -> list[str]:
        """Models that have a pool, or an engine in whatever state."""
        return list(self._pools | self._by_model)

    def offers(self, model: str) -> bool:
        """Whether a model has a pool, or an engine in whatever state."""
        return model in self._pools or model in self._by_model

    def standing(self, model: str) -> Standing:
        """How a model stands now."""
        registered = [target.registered for target in self._by_model.get(model, [])]
        usually_s = self._usual_starts_s.get(model)
        now = datetime.datetime.now(datetime.UTC)
        for state in ("ready", "starting", "draining", "gone"):
            for one in registered:
                if one.state == state:
                    since_s = (now - one.since).total_seconds() if one.since is not None else None
                    return Standing(state, one.reason or "", since_s, usually_s)
        pool = self._pools.get(model)
        if pool is None:
            return Standing("unknown", "it has no pool")
        if pool.settings.scale.replicas_max == 0:
            return Standing("off", "its pool may have no engine")
        if pool.settings.scale.replicas_min:
            return Standing("starting", "the controller has not come to it yet", None, usually_s)
        return Standing("asleep", "it wakes when asked for", None, usually_s)

    def close(self) -> None:
        """Close every kept connection."""
        for target in self._targets.values():
            target.address.close()
