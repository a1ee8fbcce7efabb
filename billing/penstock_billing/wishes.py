"""What people ask to be booked: each wish bears a reference, and is booked once, however often asked for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import LedgerRefused, ReferenceReused
from penstock_billing.ledger import Account, Booked, Booking, TransactionKind

SQL = queries.load("penstock_billing", "wishes.sql")

OURS = ("ship:", "minutes:", "lease:", "promotion-expiry:")
"""How the platform's own references begin; a person's must not, or that booking could not be made."""
REF_LENGTH_MAX = 200


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants to be booked, and what is noted beside it."""

    ref: str
    """Why, once: asking again under it changes nothing."""
    amount_nano_usd: int
    note: str = ""
    actor: str = ""

    def booking(
        self, kind: TransactionKind, entries: dict[Account, int], corrects: int | None = None
    ) -> Booking:
        """The transaction that fulfils it."""
        return Booking(
            ref=self.ref, kind=kind, entries=entries, note=self.note, actor=self.actor, corrects=corrects
        )


async def once(
    connection: asyncpg.Connection,
    wish: Wish,
    kind: TransactionKind,
    organisation_id: int,
    make: Callable[[], Coroutine[Any, Any, Booked]],
    *,
    corrects: int | None = None,
    about: Mapping[str, object] | None = None,
) -> Booked:
    """Book a wish unless its reference was used; that is looked at first, so a repeat is always known.

    `about` is what besides must be the same in a repeat: `project_id`, `request_id`, `expires_at`. Wishes
    about one organisation wait for each other, so a limit that `make` reads still holds when it books. Raises
    LedgerRefused for a reference that nobody may use, and ReferenceReused when it was used for another wish.
    """
    if wish.ref.startswith(OURS):
        raise LedgerRefused(f"{wish.ref!r} begins as the platform's own references do; choose another")
    if not 0 < len(wish.ref) <= REF_LENGTH_MAX:
        raise LedgerRefused(f"a reference has 1 to {REF_LENGTH_MAX} characters")
    async with connection.transaction():
        await connection.execute(SQL["lock_organisation"], organisation_id)
        before = await connection.fetchrow(SQL["booked_before"], wish.ref)
        if before is None:
            return await make()
        same = (
            before["kind"] == kind
            and before["organisations"] == [organisation_id]
            and before["corrects"] == corrects
            and wish.amount_nano_usd in {0, before["moved_nano_usd"]}
            and all(before[name] == value for name, value in (about or {}).items())
        )
        if not same:
            raise ReferenceReused(
                f"{wish.ref!r} was used for transaction {before['id']}, which says something else; nothing "
                f"was booked: choose another reference, or see `penstock ledger show {before['id']}`"
            )
        return Booked(before["id"], repeated=True)
