"""Keeping purses filled: the conversations with the database that admission does not wait for.

A purse is renewed when half of what was lent is used, given back when it holds more than it needs or another
gateway asks for it, and its lease ended when nobody used it for a while. Only a request that finds too little
room waits, at most WAIT_S, for one grant that all who wait share. When that brings too little, other gateways
are asked for what they hold and do not need, as long as that could help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Coroutine
from typing import Any, cast

import asyncpg

from penstock.admission.credit.errors import CreditError, CreditHeld, CreditUnavailable, InsufficientCredit
from penstock.admission.credit.purse import Purse, Waiter
from penstock.admission.credit.wallets import Wallets
from penstock_billing import leases
from penstock_billing.errors import LeaseRefused
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

WAIT_S = 5.0
"""The longest that a request waits for credit: as long as for a key that was never seen."""
RECALL_WAIT_S = 2.0
"""The longest that other gateways are waited for."""
DRY_S = 0.5
"""So long a wallet that has nothing is not asked about again: a top-up takes effect after that."""
AWAY_S = 1.0
"""So long a database that did not answer is not asked again."""
RECALL_EVERY_S = 0.25
TEND_EVERY_S = 0.5
REAP_EVERY_S = 2.0
"""How often leases of dead and settled processes are looked for."""
IDLE_S = 60.0
"""A lease that nobody used for so long is ended."""
EXCESS = 2
"""What is more than so many times the comfortable room goes back."""
EAGER_MAX = 100
"""Wallets for which a new gateway leases credit before anybody asks."""


class Lender:
    """The purses of one gateway process. `run` for as long as it lives, then `drain`."""

    def __init__(self, pool: asyncpg.Pool, boot_id: bytes, wallets: Wallets) -> None:
        self._pool = pool
        self._boot = boot_id.hex()
        self._host = socket.gethostname()
        self._wallets = wallets
        self._purses: dict[Wallet, Purse] = {}
        self._eager = False
        self._closing = False

    def purse(self, wallet: Wallet) -> Purse:
        """The purse of a wallet, made when there is none."""
        purse = self._purses.get(wallet)
        if purse is None:
            purse = self._purses[wallet] = Purse(wallet, self._ask)
        return purse

    async def reserve(self, purse: Purse, want: int, least: int) -> int:
        """Hold between `least` and `want` nano-dollars, and return how much; waits where there is less room.

        Raises InsufficientCredit, CreditHeld, or CreditUnavailable when the database does not answer in time.
        """
        if purse.hold(want):
            return want
        if time.monotonic() < purse.quiet_until_s or not purse.ask():
            held = purse.hold_some(want, least)
            if held < 0:
                raise self._refusal(purse, least)
            return held
        waiter = Waiter(want, least)
        purse.waiting.append(waiter)
        try:
            await asyncio.wait({waiter.answered}, timeout=WAIT_S)
        except asyncio.CancelledError:
            if waiter.answered.done():
                purse.held -= max(0, waiter.answered.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                purse.waiting.remove(waiter)
        if waiter.answered.done():
            held = waiter.answered.result()
        else:
            # The database says nothing at all: nobody else need find that out by waiting.
            self._be_quiet(purse, AWAY_S, dry=False)
            held = purse.hold_some(want, least)
        if held < 0:
            raise self._refusal(purse, least)
        return held

    async def run(self) -> None:
        """Tend the purses until cancelled."""
        aged_at_s = reaped_at_s = time.monotonic()
        while True:
            now_s = time.monotonic()
            with contextlib.suppress(*DATABASE_AWAY):
                await self._be_eager()
                await self._answer_recalls()
                if now_s - reaped_at_s > REAP_EVERY_S:
                    reaped_at_s = now_s
                    async with self._pool.acquire() as connection:
                        await leases.release_orphaned(cast("asyncpg.Connection", connection))
            now_s = time.monotonic()
            for purse in list(self._purses.values()):
                purse.age(now_s - aged_at_s)
                self._tend(purse, now_s)
            aged_at_s = now_s
            await asyncio.sleep(TEND_EVERY_S)

    async def drain(self, timeout_s: float) -> None:
        """End the leases, as far as what was spent of them is shipped; the rest is for whoever settles us."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for purse in list(self._purses.values()):
                    if purse.errand is not None:
                        await asyncio.wait({purse.errand})
                    await self._end(purse)
        for purse in self._purses.values():
            if purse.errand is not None:
                purse.errand.cancel()

    def _ask(self, purse: Purse) -> bool:
        """Begin to ask for more, unless the last answer still holds."""
        if self._closing or time.monotonic() < purse.quiet_until_s:
            return False
        self._send(purse, self._fill(purse))
        return True

    def _send(self, purse: Purse, errand: Coroutine[Any, Any, None]) -> None:
        """Begin the one conversation about a purse; there is none now."""

        def over(task: asyncio.Task[None]) -> None:
            purse.errand = None
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("credit was not tended", exc_info=error)
                self._be_quiet(purse, AWAY_S, dry=False)
            if purse.waiting and not self._ask(purse):
                purse.serve_least()

        purse.errand = asyncio.create_task(errand)
        purse.errand.add_done_callback(over)

    async def _fill(self, purse: Purse) -> None:
        """Lease until everybody who waits has what they want, or there is no more."""
        until_s = time.monotonic() + RECALL_WAIT_S
        try:
            while True:
                asked_at_s = time.monotonic()
                async with self._pool.acquire() as connection:
                    lent = await leases.grant(
                        cast("asyncpg.Connection", connection),
                        *(self._boot, self._host, purse.wallet, purse.need()),
                    )
                purse.take_over(lent, asked_at_s)
                purse.serve()
                if not purse.waiting and purse.room >= purse.wanting:
                    purse.wanting = 0
                    return
                if lent.free_nano_usd > 0:
                    continue  # somebody came while we asked
                if time.monotonic() >= until_s or not _could_help(purse):
                    break
                async with self._pool.acquire() as connection:
                    await leases.recall(cast("asyncpg.Connection", connection), self._boot, purse.wallet)
                await asyncio.sleep(RECALL_EVERY_S)
            self._be_quiet(purse, DRY_S, dry=True)
        except (*DATABASE_AWAY, LeaseRefused) as error:
            logger.warning("no credit could be leased", extra={"reason": str(error) or type(error).__name__})
            self._be_quiet(purse, AWAY_S, dry=False)
        purse.serve_least()

    async def _give_back(self, purse: Purse, amount: int) -> None:
        # Gone from here on, whatever becomes of the answer.
        purse.granted -= amount
        purse.low = min(purse.low, max(0, purse.room) // 2)
        with contextlib.suppress(*DATABASE_AWAY):
            async with self._pool.acquire() as connection:
                lease = await leases.give_back(
                    cast("asyncpg.Connection", connection), self._boot, purse.wallet, amount
                )
            if lease is not None:
                purse.note_lease(*lease)

    async def _end(self, purse: Purse) -> None:
        """End a lease once all that was spent of it is shipped; until then it stays as it is."""
        granted, spent = purse.granted, purse.spent
        purse.granted = min(granted, spent + purse.held)
        purse.low = 0
        with contextlib.suppress(*DATABASE_AWAY):
            async with self._pool.acquire() as connection:
                ended = await leases.release(
                    cast("asyncpg.Connection", connection),
                    self._boot,
                    purse.wallet,
                    lease_id=purse.lease_id,
                    spent_nano_usd=spent,
                )
            if ended is leases.Release.TOO_EARLY:
                purse.granted = granted
            else:
                purse.forget_lease(spent)

    async def _be_eager(self) -> None:
        """Lease for the wallets that are in use elsewhere, once: requests will come here too."""
        if self._eager or not self._wallets.loaded:
            return
        async with self._pool.acquire() as connection:
            used = await leases.recently_used(cast("asyncpg.Connection", connection), EAGER_MAX)
        self._eager = True
        for wallet in used:
            payer = self._wallets.payer(wallet)
            if payer is not None and payer.funding is Funding.PREPAID:
                self.purse(wallet).ask()

    async def _answer_recalls(self) -> None:
        if not any(purse.lease_id is not None for purse in self._purses.values()):
            return
        async with self._pool.acquire() as connection:
            wanted = await leases.recalled(cast("asyncpg.Connection", connection), self._boot)
        for wallet in wanted:
            purse = self._purses.get(wallet)
            if purse is not None and purse.errand is None:
                self._send(purse, self._give_back(purse, max(0, purse.room)))

    def _tend(self, purse: Purse, now_s: float) -> None:
        """See to one purse, unless it is being seen to."""
        if purse.errand is not None:
            return
        if now_s >= purse.expires_s:
            purse.granted = min(purse.granted, purse.spent + purse.held)
        unused = not (purse.users or purse.held or purse.waiting)
        idle = unused and now_s - purse.used_at_s > IDLE_S
        comfortable = purse.comfortable()
        if idle and purse.lease_id is None:
            del self._purses[purse.wallet]
        elif idle:
            self._send(purse, self._end(purse))
        elif purse.room < purse.low or now_s > purse.expires_s - leases.LIFE.total_seconds() / 2:
            purse.ask()
        elif purse.room > EXCESS * comfortable:
            self._send(purse, self._give_back(purse, purse.room - comfortable))

    def _be_quiet(self, purse: Purse, seconds: float, *, dry: bool) -> None:
        purse.quiet_until_s = time.monotonic() + seconds
        purse.dry = dry

    def _refusal(self, purse: Purse, least: int) -> CreditError:
        if not purse.dry:
            return CreditUnavailable()
        available, held = purse.room + purse.free, purse.held + max(0, purse.elsewhere)
        if available + held < least:
            return InsufficientCredit(least, available + held)
        return CreditHeld(least, available, held)


def _could_help(purse: Purse) -> bool:
    """Whether what other gateways hold would be enough for at least one that waits here."""
    short = [waiter.least for waiter in purse.waiting]
    if purse.wanting:
        short.append(purse.wanting)
    return purse.elsewhere > 0 and purse.room + purse.elsewhere >= min(short)
