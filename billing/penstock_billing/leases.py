"""Credit leases: prepaid credit that one gateway process holds of one wallet, so that admission asks nobody.

    prepaid, promotional --grant, renew--> lease --usage is shipped--> revenue
              ^------------give back, release----'

Each change is one short transaction that locks the lease and then the wallet's accounts, in the order in
which shipping does. What was lent is counted up in the lease's row: a holder whose commit got no answer
learns from the next change what became of it, and nothing is lost or lent twice. Promotional credit is lent
first, used first, and given back last.

A lease is released by its holder once all that the holder wrote is shipped, or, when the holder is dead, by
anybody once its boot is settled (`billing.gateway_boot.settled_at`): never before, since what it admitted may
still come. `billing/README.md` says what this promises.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

import asyncpg
import msgspec

from penstock_base import queries
from penstock_base.money import NANO_PER_USD
from penstock_billing import ledger
from penstock_billing.errors import LeaseRefused
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind
from penstock_billing.record import Funding

SQL = queries.load("penstock_billing", "leases.sql")

SIZE_MAX_NANO_USD = NANO_PER_USD
"""The most that is lent ahead of need, 1 dollar."""
SIZE_MIN_NANO_USD = NANO_PER_USD // 100
"""What is lent at least, while the wallet has it: 1 cent."""
SHARE = 20
"""At most one part in so many of the wallet's free credit is lent ahead of need: others want some too."""
BURN_S = 60
"""Seconds of spending at the recent rate that a lease should last."""
LIFE = timedelta(hours=1)
"""How long a holder that hears nothing from the database goes on admitting."""
ORPHANS_MAX = 100


class Wallet(msgspec.Struct, frozen=True, order=True):
    """Where a request's money comes from: an organisation's own credit (project 0), or a project's."""

    organisation_id: int
    project_id: int = 0


class Terms(msgspec.Struct, frozen=True):
    """How a wallet pays."""

    wallet: Wallet
    funding: Funding
    strict: bool
    """Prepaid only: credit never goes below 0."""
    owed_max_nano_usd: int | None
    """Postpaid only: nothing is admitted beyond this much owed."""
    owed_nano_usd: int


class Need(msgspec.Struct, frozen=True):
    """What a holder says of itself when it asks for credit, in nano-dollars."""

    room_nano_usd: int = 0
    """What it was lent and neither spent nor holds for a request."""
    burn_nano_usd: int = 0
    """What it spent of this wallet in the last BURN_S seconds."""
    at_once_nano_usd: int = 0
    """How much room the requests that wait for this answer need."""
    ahead_nano_usd: int = 0
    """How much room its next requests will surely need."""


class Release(enum.Enum):
    """What came of releasing a lease."""

    DONE = "it is over, and what it had left is the wallet's again"
    NONE = "there was none"
    TOO_EARLY = "it stays: what was spent of it is not all shipped"


class Lent(msgspec.Struct, frozen=True):
    """A lease as it stands after a change, and what else the wallet has."""

    lease_id: int
    granted_nano_usd: int
    """All that was lent, less what was given back: an absolute number, so that a repeat changes nothing."""
    settled_nano_usd: int
    free_nano_usd: int
    """What the wallet can still lend; below 0 when it is overdrawn."""
    elsewhere_nano_usd: int
    """What other processes' leases have left."""


def size(free_nano_usd: int, need: Need) -> int:
    """How much to lend now, in nano-dollars: enough to be comfortable, and a small part of what there is.

    Comfortable is a minute of spending, at most 1 dollar and a twentieth of what is free, at least 1 cent;
    what requests wait for comes on top of every limit but one: what is not free is not lent.
    """
    comfortable = min(SIZE_MAX_NANO_USD, free_nano_usd // SHARE, max(need.burn_nano_usd, need.ahead_nano_usd))
    wanted = max(comfortable, SIZE_MIN_NANO_USD, need.at_once_nano_usd)
    return max(0, min(free_nano_usd, wanted - need.room_nano_usd))


async def grant(connection: asyncpg.Connection, boot_id: str, host: str, wallet: Wallet, need: Need) -> Lent:
    """Lend a process what it needs of a wallet, or what there is, which may be nothing.

    Raises LeaseRefused when the process counts as gone, and what asyncpg raises: then nothing was lent, or
    (the commit's answer was lost) the next grant says how much.
    """
    async with connection.transaction():
        if not await connection.fetchval(SQL["note_boot"], boot_id, host):
            raise LeaseRefused(f"gateway boot {boot_id} is settled: it can hold no more credit")
        lease = await connection.fetchrow(SQL["open_lease"], boot_id, *_key(wallet), LIFE)
        assert lease is not None
        if not lease["grants"]:
            await connection.execute(SQL["open_account"], *_key(wallet))
        credit = await _credit(connection, wallet)
        free = credit[AccountKind.PREPAID] + credit[AccountKind.PROMOTIONAL]
        amount = size(free, need)
        promotional = max(0, min(amount, credit[AccountKind.PROMOTIONAL]))
        if amount:
            await _move(connection, lease, wallet, TransactionKind.LEASE_GRANT, amount, promotional)
    left = lease["granted_nano_usd"] - lease["settled_nano_usd"]
    return Lent(
        lease_id=lease["id"],
        granted_nano_usd=lease["granted_nano_usd"] + amount,
        settled_nano_usd=lease["settled_nano_usd"],
        free_nano_usd=free - amount,
        elsewhere_nano_usd=credit[AccountKind.LEASE] - left,
    )


async def give_back(
    connection: asyncpg.Connection, boot_id: str, wallet: Wallet, nano_usd: int
) -> tuple[int, int] | None:
    """Give a part of an open lease back; returns its id and what is granted then, None without an open lease.

    The holder must count the part as gone before it calls, since a lost answer may have given it back.
    """
    async with connection.transaction():
        lease = await connection.fetchrow(SQL["lock_lease"], boot_id, *_key(wallet))
        if lease is None:
            return None
        left, promotional_left = _left(lease)
        amount = max(0, min(nano_usd, left))
        # What is used last is given back first.
        promotional = max(0, amount - (left - promotional_left))
        if amount:
            await _credit(connection, wallet)
            await _move(connection, lease, wallet, TransactionKind.LEASE_RELEASE, -amount, -promotional)
        else:
            await connection.execute(SQL["answer_recall"], lease["id"])
        return lease["id"], lease["granted_nano_usd"] - amount


async def release(
    connection: asyncpg.Connection,
    boot_id: str,
    wallet: Wallet,
    *,
    lease_id: int | None = None,
    spent_nano_usd: int = 0,
) -> Release:
    """End an open lease and give back what it has left.

    A holder that lives says how much it spent of which lease, and keeps that until all of it is shipped; of
    one that it has not heard of it spent nothing. Safe to repeat, and for several processes at once. Who used
    more than it was lent leaves the wallet with less.
    """
    async with connection.transaction():
        lease = await connection.fetchrow(SQL["lock_lease"], boot_id, *_key(wallet))
        if lease is None:
            return Release.NONE
        if lease["id"] == lease_id and lease["settled_nano_usd"] < spent_nano_usd:
            return Release.TOO_EARLY
        left, promotional_left = _left(lease)
        if left:
            await _credit(connection, wallet)
            await _book(
                connection,
                Booking(
                    ref=f"lease:{lease['id']}:release",
                    kind=TransactionKind.LEASE_RELEASE,
                    entries=_entries(wallet, -left, -promotional_left),
                ),
            )
        await connection.execute(SQL["end_lease"], lease["id"])
        return Release.DONE


async def release_orphaned(connection: asyncpg.Connection) -> int:
    """Release the leases of processes that are gone and settled; returns how many. Anybody may, any time."""
    released = 0
    for row in await connection.fetch(SQL["orphaned"], ORPHANS_MAX):
        wallet = Wallet(row["organisation_id"], row["project_id"])
        released += await release(connection, row["boot_id"], wallet) is Release.DONE
    return released


async def recall(connection: asyncpg.Connection, boot_id: str, wallet: Wallet) -> None:
    """Ask the other processes for what they hold of a wallet and do not need; they answer within a second."""
    await connection.execute(SQL["recall"], *_key(wallet), boot_id)


async def recalled(connection: asyncpg.Connection, boot_id: str) -> list[Wallet]:
    """Which of its leases this process was asked for."""
    rows = await connection.fetch(SQL["recalled"], boot_id)
    return [Wallet(row["organisation_id"], row["project_id"]) for row in rows]


async def recently_used(connection: asyncpg.Connection, limit: int) -> list[Wallet]:
    """Wallets that some gateway holds credit of."""
    rows = await connection.fetch(SQL["recently_used"], limit)
    return [Wallet(row["organisation_id"], row["project_id"]) for row in rows]


async def terms(connection: asyncpg.Connection, since: datetime) -> list[Terms]:
    """How wallets pay: those that changed since a time, and all whose debt has a limit."""
    return [
        Terms(
            Wallet(row["organisation_id"], row["project_id"]),
            Funding(row["funding"]),
            row["strict"],
            row["owed_max_nano_usd"],
            row["owed_nano_usd"],
        )
        for row in await connection.fetch(SQL["wallets"], since)
    ]


def _key(wallet: Wallet) -> tuple[int, int]:
    return wallet.organisation_id, wallet.project_id


def _left(lease: asyncpg.Record) -> tuple[int, int]:
    """What a lease has left, below 0 when it is overdrawn, and how much of that is promotional."""
    settled = lease["settled_nano_usd"]
    return (
        lease["granted_nano_usd"] - settled,
        max(0, lease["promotional_granted_nano_usd"] - settled),
    )


async def _credit(connection: asyncpg.Connection, wallet: Wallet) -> dict[AccountKind, int]:
    """Lock a wallet's accounts and read what each holds for it: the balances with their signs turned."""
    held = dict.fromkeys((AccountKind.LEASE, AccountKind.PREPAID, AccountKind.PROMOTIONAL), 0)
    for row in await connection.fetch(SQL["lock_credit"], *_key(wallet)):
        held[AccountKind(row["kind"])] = -row["posted_nano_usd"]
    return held


async def _move(
    connection: asyncpg.Connection,
    lease: asyncpg.Record,
    wallet: Wallet,
    kind: TransactionKind,
    amount: int,
    promotional: int,
) -> None:
    """Book that `amount` moves into the lease, the promotional part of it apart, and note it there."""
    ref = f"lease:{lease['id']}:{lease['grants'] + 1}"
    await _book(connection, Booking(ref=ref, kind=kind, entries=_entries(wallet, amount, promotional)))
    await connection.execute(SQL["change_lease"], lease["id"], amount, promotional)


async def _book(connection: asyncpg.Connection, booking: Booking) -> None:
    booked = await ledger.book(connection, booking)
    # The lease is locked and its numbers only go up: a used reference would be a defect, not a repeat.
    assert not booked.repeated, booking.ref


def _entries(wallet: Wallet, amount: int, promotional: int) -> dict[Account, int]:
    """The entries that move credit into a lease; below 0, out of it."""
    sides = {
        AccountKind.LEASE: -amount,
        AccountKind.PREPAID: amount - promotional,
        AccountKind.PROMOTIONAL: promotional,
    }
    return {Account(*_key(wallet), kind): moved for kind, moved in sides.items() if moved}
