"""The adapters a gateway knows, in memory; refreshed from Postgres."""

from __future__ import annotations

import asyncpg

from penstock.adapters import register
from penstock.adapters.register import Live


class AdapterBook:
    """Every version that can be called, by its organisation and by what requests call it."""

    def __init__(self) -> None:
        self._by_model: dict[tuple[int, str], Live] = {}
        self._active: dict[int, list[Live]] = {}

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Read them all; there are few compared with requests."""
        self.update(await register.live(pool))

    def update(self, live: list[Live]) -> None:
        """Take over what there is."""
        by_model: dict[tuple[int, str], Live] = {}
        active: dict[int, list[Live]] = {}
        for each in live:
            by_model[each.organisation_id, each.model] = each
            if each.active:
                by_model[each.organisation_id, f"{each.base_model}:{each.name}"] = each
                active.setdefault(each.organisation_id, []).append(each)
        self._by_model, self._active = by_model, active

    def find(self, organisation_id: int, model: str) -> Live | None:
        """What an organisation means by `base:adapter` or `base:adapter@version`; None: it has no such."""
        return self._by_model.get((organisation_id, model))

    def of(self, organisation_id: int) -> list[Live]:
        """The active versions of an organisation, by name."""
        return sorted(self._active.get(organisation_id, ()), key=lambda each: (each.base_model, each.name))
