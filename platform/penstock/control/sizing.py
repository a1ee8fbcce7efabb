"""How large each pool should be: samples of its load, through its autoscaler, to a decision that is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import asyncpg

from penstock_billing.shipper import DATABASE_AWAY
from penstock_engines import pools
from penstock_engines.autoscale import Autoscaler, Sample
from penstock_engines.plan import Present
from penstock_engines.pools import Load, Pool
from penstock_engines.replica import ReplicaState

logger = logging.getLogger(__name__)


class Sizing:
    """The autoscalers of all pools."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._scalers: dict[str, Autoscaler] = {}
        self._since_s: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        """What was decided last: while a version is replaced there are more engines than that."""

    async def wanted(self, pool: Pool, present: Sequence[Present], kv_usage: float, load: Load | None) -> int:
        """Decide how many engines a pool should have now; a change is written down with its reason."""
        now_s = time.monotonic()
        scaler = self._scalers.get(pool.model)
        if scaler is None:
            scaler = self._scalers[pool.model] = Autoscaler(pool.settings.scale)
            self._since_s[pool.model] = now_s
        scaler.rules = pool.settings.scale
        before = self._sizes.get(pool.model, 0)
        sample = sample_of(before, present, kv_usage, load, now_s, self._since_s[pool.model])
        decision = scaler.decide(sample)
        if decision.replicas != before:
            self._sizes[pool.model] = decision.replicas
            logger.info(
                "%s: %d to %d engines", pool.model, before, decision.replicas,
                extra={"model": pool.model, "reason": decision.reason},
            )  # fmt: skip
            try:
                await pools.note_scaling(
                    self._pool, pool.model, before, decision.replicas, decision.reason, sample
                )
            except DATABASE_AWAY as error:
                logger.warning("decision not recorded", extra={"reason": str(error)})
        return decision.replicas

    def forget(self, models: set[str]) -> None:
        """Drop what is remembered of pools that are no more; `models` are those there are."""
        for model in self._scalers.keys() - models:
            del self._scalers[model], self._since_s[model]
            self._sizes.pop(model, None)


def sample_of(
    size: int, present: Sequence[Present], kv_usage: float, load: Load | None, now_s: float, since_s: float
) -> Sample:
    """Put together what was decided last and what engines and gateways say of a pool."""
    load = load or Load()
    busy = load.running or load.waiting_requests
    return Sample(
        at_s=now_s,
        replicas=size,
        ready=sum(one.state is ReplicaState.READY for one in present),
        running=load.running,
        waiting_requests=load.waiting_requests,
        waiting_tokens=load.waiting_tokens,
        kv_usage=kv_usage,
        first_token_p90_s=load.first_token_ms / 1000,
        idle_s=0.0 if busy else max(0.0, min(load.idle_s, now_s - since_s)),
    )
