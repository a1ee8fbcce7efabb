"""The engines a gateway knows, in memory, with what it has at each of them; refreshed from the registry."""

from __future__ import annotations

from dataclasses import dataclass, field

import asyncpg

from penstock_engines import registry
from penstock_engines.client import EngineAddress
from penstock_engines.registry import Registered


class NoEngine(Exception):
    """No engine of the model can take a request now; `state` is the best that there is of it."""

    def __init__(self, model: str, state: str) -> None:
        super().__init__(f"no engine of {model} is ready ({state}); nothing was billed, try again")
        self.retry_after_s = 5


@dataclass(slots=True)
class Target:
    """One engine as this gateway uses it."""

    registered: Registered
    address: EngineAddress
    in_flight: int = field(default=0)
    """Requests that this gateway has there now."""

    @property
    def ready(self) -> bool:
        """Takes new requests."""
        return self.registered.state == "ready"


class Directory:
    """Every engine, by model."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._by_model: dict[str, list[Target]] = {}
        self.loaded = False

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Read the registry; engines that are gone are forgotten, running requests there go on."""
        self.update(await registry.listed(pool))

    def update(self, listed: list[Registered]) -> None:
        """Take over what is registered, keeping the connections and counts of engines already known."""
        targets: dict[str, Target] = {}
        for registered in listed:
            known = self._targets.get(registered.id)
            if known is not None and known.registered.socket == registered.socket:
                known.registered = registered
                targets[registered.id] = known
            else:
                targets[registered.id] = Target(registered, EngineAddress(registered.socket))
        for gone in self._targets.keys() - targets.keys():
            self._targets[gone].address.close()
        self._targets = targets
        self._by_model = {}
        for target in targets.values():
            self._by_model.setdefault(target.registered.model, []).append(target)
        self.loaded = True

    def ready(self, model: str) -> list[Target]:
        """The engines of a model that take requests; raises NoEngine when there is none."""
        targets = self._by_model.get(model, [])
        ready = [target for target in targets if target.ready]
        if not ready:
            raise NoEngine(model, self.state(model)[0])
        return ready

    def models(self) -> list[str]:
        """Models that have an engine, in whatever state."""
        return list(self._by_model)

    def state(self, model: str) -> tuple[str, str]:
        """The best state among a model's engines, and for operators why it is no better."""
        registered = [target.registered for target in self._by_model.get(model, [])]
        for state in ("ready", "starting", "draining", "gone"):
            for one in registered:
                if one.state == state:
                    return state, one.reason or ""
        return "not started", "the controller has not come to it yet"

    def close(self) -> None:
        """Close every kept connection."""
        for target in self._targets.values():
            target.address.close()
