"""Promotional credit: given, used before paid credit, what expires first, first; what is left expires.

What is left of each promotion is counted whenever their number changes, by one who holds the lock of the
wallet's promotional account. Between two counts promotions are used in the order in which they expire, so
the sum of what was used since then says how much of each. What gateways hold counts as left: requests that
run use it, or it comes back.
"""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing import ledger, wishes
from penstock_billing.errors import LedgerRefused, UnknownPromotion
from penstock_billing.leases import Wallet
from penstock_billing.ledger import Account, AccountKind, Booked, Booking, TransactionKind
from penstock_billing.wishes import Wish

SQL = queries.load("penstock_billing", "credit.sql")

DUE_MAX = 1000
Database = asyncpg.Connection | asyncpg.Pool


class Promotion(msgspec.Struct, kw_only=True):
    """Credit that was given; amounts in nano-dollars."""

    id: int
    amount_nano_usd: int
    left_nano_usd: int
    expired_nano_usd: int
    expires_at: datetime | None
    note: str
    created_at: datetime
    transaction_id: int | None

    def over(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


class Counted(msgspec.Struct):
    """A wallet's promotions in the order of their use, as they are now, and its promotional credit."""

    promotions: list[Promotion]
    free_nano_usd: int
    """What no gateway holds."""


def use(lefts: list[int], used: int) -> list[int]:
    """Take what was used out of what was left of each promotion, the first ones first."""
    rest = []
    for left in lefts:
        taken = min(left, max(0, used))
        used -= taken
        rest.append(left - taken)
    return rest


async def count(connection: Database, wallet: Wallet) -> Counted:
    """How much of each promotion is left now."""
    key = wallet.organisation_id, wallet.project_id
    promotions = [Promotion(**dict(row)) for row in await connection.fetch(SQL["promotions"], *key)]
    credit = await connection.fetchrow(SQL["promotional"], *key)
    assert credit is not None
    unused = credit["free_nano_usd"] + credit["leased_nano_usd"]
    lefts = [promotion.left_nano_usd for promotion in promotions]
    for promotion, left in zip(promotions, use(lefts, sum(lefts) - unused), strict=True):
        promotion.left_nano_usd = left
    return Counted(promotions, credit["free_nano_usd"])


async def promote(
    connection: asyncpg.Connection, wish: Wish, wallet: Wallet, expires_at: datetime | None
) -> Booked:
    """Give a wallet credit that it has not paid for; without `expires_at` it stays.

    Raises LedgerRefused for a time that is over, and ReferenceReused.
    """

    async def make() -> Booked:
        if expires_at is not None and expires_at <= datetime.now(UTC):
            raise LedgerRefused(f"the credit would expire at {expires_at:%Y-%m-%d %H:%M} UTC, which is over")
        await _lock_and_note(connection, wallet)
        entries = {
            _account(wallet, AccountKind.PROMOTION_COST): wish.amount_nano_usd,
            _account(wallet, AccountKind.PROMOTIONAL): -wish.amount_nano_usd,
        }
        booked = await ledger.book(connection, wish.booking(TransactionKind.PROMOTION, entries))
        await connection.fetchval(
            SQL["add_promotion"],
            wallet.organisation_id,
            wallet.project_id,
            wish.amount_nano_usd,
            expires_at,
            wish.note,
            booked.id,
        )
        return booked

    about = {"project_id": wallet.project_id, "expires_at": expires_at}
    return await wishes.once(
        connection, wish, TransactionKind.PROMOTION, wallet.organisation_id, make, about=about
    )


async def end(connection: asyncpg.Connection, organisation_id: int, promotion_id: int) -> int:
    """Let a promotion expire now; returns how many nano-dollars of it expired at once.

    What gateways hold of it follows as it comes back. Safe to repeat. Raises UnknownPromotion.
    """
    async with connection.transaction():
        project_id = None
        if 0 < promotion_id < 2**63:
            project_id = await connection.fetchval(SQL["promotion_wallet"], organisation_id, promotion_id)
        if project_id is None:
            raise UnknownPromotion(f"there is no promotion {promotion_id} here: see `penstock credit show`")
        wallet = Wallet(organisation_id, project_id)
        # Counted in the old order first: what was used until now was used in that order.
        await _lock_and_note(connection, wallet)
        now: datetime = await connection.fetchval("select clock_timestamp()")
        await connection.execute(SQL["end_promotion"], organisation_id, promotion_id, now)
        return await expire(connection, wallet, now)


async def expire(connection: asyncpg.Connection, wallet: Wallet, now: datetime) -> int:
    """Book what is left of promotions whose time is over; returns how many nano-dollars that was.

    Safe for any number of processes at once: each part expires once. What gateways hold when a promotion ends
    may still be used by the requests that run on it; what comes back expires the next time.
    """
    async with connection.transaction():
        counted = await _lock_and_note(connection, wallet)
        free = counted.free_nano_usd - sum(
            promotion.left_nano_usd for promotion in counted.promotions if not promotion.over(now)
        )
        expired = 0
        for promotion in counted.promotions:
            amount = min(promotion.left_nano_usd, free - expired)
            if promotion.over(now) and amount > 0:
                expired += amount
                booked = await ledger.book(connection, _expiry(wallet, promotion, amount))
                # The account is locked and what expired only grows: a used reference would be a defect.
                assert not booked.repeated
                await connection.execute(SQL["note_expired"], promotion.id, amount, now)
        return expired


async def expire_due(connection: asyncpg.Connection, now: datetime | None = None) -> int:
    """Book what is left of every promotion whose time is over; returns how many nano-dollars that was."""
    now = now or datetime.now(UTC)
    expired = 0
    for row in await connection.fetch(SQL["due"], now, DUE_MAX):
        expired += await expire(connection, Wallet(row["organisation_id"], row["project_id"]), now)
    return expired


async def _lock_and_note(connection: asyncpg.Connection, wallet: Wallet) -> Counted:
    """Lock a wallet's promotional credit, count its promotions, and write down what is left of each."""
    await connection.execute(SQL["lock_promotional"], wallet.organisation_id, wallet.project_id)
    counted = await count(connection, wallet)
    for promotion in counted.promotions:
        await connection.execute(SQL["count_promotion"], promotion.id, promotion.left_nano_usd)
    return counted


def _expiry(wallet: Wallet, promotion: Promotion, amount: int) -> Booking:
    return Booking(
        ref=f"promotion-expiry:{promotion.id}:{promotion.expired_nano_usd}",
        kind=TransactionKind.PROMOTION_EXPIRY,
        entries={
            _account(wallet, AccountKind.PROMOTIONAL): amount,
            _account(wallet, AccountKind.BREAKAGE): -amount,
        },
        note=promotion.note,
    )


def _account(wallet: Wallet, kind: AccountKind) -> Account:
    return Account(wallet.organisation_id, wallet.project_id, kind)
