"""Gateway processes of which no more word can come, because their files are lost: settled by a person.

Everybody else is settled by whoever ships the last of its files (`boots`). What a lost process had admitted
and not shipped stays uncharged, and what it held of credit goes back to its wallets.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from penstock_billing.boots import SQL
from penstock_billing.errors import BillingError

ALIVE_S = 60.0
"""A process that lives says so every few seconds."""


class LostError(BillingError):
    """A process that cannot be settled so; the message says what could be done."""


class Unsettled(msgspec.Struct, frozen=True):
    """A process that may still hold credit."""

    boot_id: str
    host: str
    seen_at: datetime
    silent_s: float
    lent_nano_usd: int
    """Credit that it holds and that nothing it shipped has used."""

    @property
    def lives(self) -> bool:
        """Whether it said so lately."""
        return self.silent_s < ALIVE_S


async def unsettled(connection: asyncpg.Connection) -> list[Unsettled]:
    """List the processes that are not settled, those that are silent for longest first."""
    return [Unsettled(**row) for row in await connection.fetch(SQL["unsettled"])]


async def settle(connection: asyncpg.Connection, name: str) -> Sequence[Unsettled]:
    """Give up a process by its boot id, or all of a host; gateways then release what they held.

    Raises LostError where there is none of that name, or one of them lives.
    """
    async with connection.transaction():
        found = [each for each in await unsettled(connection) if name in {each.boot_id, each.host}]
        if not found:
            raise LostError(
                f"no unsettled gateway process has the boot id or the host {name!r}: "
                "`penstock billing gateways` lists them"
            )
        for each in found:
            if each.lives:
                raise LostError(
                    f"{each.boot_id} on {each.host} was seen {each.silent_s:.0f} s ago: stop it first; "
                    f"a process that ends by itself is settled by itself"
                )
        await connection.execute(SQL["give_up"], [each.boot_id for each in found])
    return found
