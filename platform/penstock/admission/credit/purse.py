"""One prepaid wallet's credit at this gateway, in memory: what was leased, what is spent, what is held.

    granted = spent + held + room

`granted` never exceeds what the database says was lent, `spent` counts a cost as soon as its record is in the
journal, and a hold is taken out of `room` before anything that may cost it begins. Amounts in nano-dollars.
Nothing here waits; whoever finds too little room asks the lender (see `lending`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from penstock_billing import leases
from penstock_billing.leases import Lent, Need, Wallet

HOLDS_AHEAD = 4
"""Room is kept for so many of the largest hold there was lately, and for half as much as is held now."""
CLOCKS_APART_S = 60.0
"""A lease is taken for expired so much before the database would."""


class Waiter:
    """A request that waits for credit: how much it wants, and with how little it would go on."""

    __slots__ = ("answered", "least", "want")

    def __init__(self, want: int, least: int) -> None:
        self.want = want
        self.least = least
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Purse:
    """The credit of one wallet that this process may spend."""

    __slots__ = (
        "_burn",
        "_burn_at_s",
        "_largest",
        "_lend",
        "dry",
        "elsewhere",
        "errand",
        "expires_s",
        "free",
        "granted",
        "held",
        "lease_id",
        "low",
        "quiet_until_s",
        "spent",
        "used_at_s",
        "users",
        "waiting",
        "wallet",
        "wanting",
    )

    def __init__(self, wallet: Wallet, lend: Callable[[Purse], bool]) -> None:
        """`lend` begins to ask the database for more, and says whether an answer is under way."""
        self.wallet = wallet
        self._lend = lend
        self.lease_id: int | None = None
        self.granted = 0
        self.spent = 0
        self.held = 0
        self.users = 0
        """Charges that are open."""
        self.low = 0
        """With less room than this, more is asked for before anybody has to wait."""
        self.waiting: list[Waiter] = []
        self.wanting = 0
        """How much more a running stream could not hold."""
        self.errand: asyncio.Task[None] | None = None
        """The one conversation with the database about this wallet."""
        self.quiet_until_s = 0.0
        """Until then the last answer holds: nothing to be had (`dry`), or nobody there."""
        self.dry = False
        self.free = 0
        """What the wallet could still lend when it was last asked."""
        self.elsewhere = 0
        """What other gateways' leases had left then."""
        self.expires_s = math.inf
        self.used_at_s = time.monotonic()
        self._burn = 0.0
        self._burn_at_s = self.used_at_s
        self._largest = 0

    @property
    def room(self) -> int:
        """What may still be held; below 0 when more was spent than lent."""
        return self.granted - self.spent - self.held

    def hold(self, amount: int) -> bool:
        """Set an amount aside for a request, or do nothing and return False."""
        room = self.granted - self.spent - self.held - amount
        if room < 0 < amount:
            return False
        self.held += amount
        self._largest = max(self._largest, amount)
        if room < self.low:
            self.ask()
        return True

    def settle(self, held: int, cost: int) -> None:
        """Turn a hold into what the request cost, which is in the journal by now."""
        self.held -= held
        self.spent += cost
        now_s = time.monotonic()
        self._burn = self._burn * math.exp((self._burn_at_s - now_s) / leases.BURN_S) + cost
        self._burn_at_s = self.used_at_s = now_s

    def ask(self) -> bool:
        """Have the lender asked for more; whether an answer is under way."""
        return self.errand is not None or self._lend(self)

    # What the lender needs to know, and what it tells.

    def need(self) -> Need:
        """What to say to the database."""
        return Need(
            room_nano_usd=self.room,
            burn_nano_usd=self._burned(),
            at_once_nano_usd=sum(waiter.want for waiter in self.waiting) + self.wanting,
            ahead_nano_usd=self._ahead(),
        )

    def comfortable(self) -> int:
        """How much room this wallet needs here, going by what it did lately."""
        wanted = max(self._burned(), self._ahead())
        return max(leases.SIZE_MIN_NANO_USD, min(leases.SIZE_MAX_NANO_USD, wanted))

    def take_over(self, lent: Lent, asked_at_s: float) -> None:
        """Take over the database's word on the lease."""
        self.note_lease(lent.lease_id, lent.granted_nano_usd)
        self.free = lent.free_nano_usd
        self.elsewhere = lent.elsewhere_nano_usd
        self.expires_s = asked_at_s + leases.LIFE.total_seconds() - CLOCKS_APART_S
        self.low = max(0, min(self.comfortable(), self.room)) // 2
        self.used_at_s = asked_at_s
        self.dry = False

    def note_lease(self, lease_id: int, granted: int) -> None:
        """There is a lease of so much: perhaps one that this process has not heard of yet."""
        if lease_id != self.lease_id:
            # The one before is over, and was only ended once all that was spent of it had been shipped.
            self.spent = 0
            self.lease_id = lease_id
        self.granted = granted

    def forget_lease(self, spent: int) -> None:
        """The lease is over; `spent` of it was shipped."""
        self.lease_id = None
        self.spent -= spent
        self.granted = 0
        self.low = 0

    def serve(self) -> None:
        """Give waiting requests what they want, as far as there is room for the whole of it."""
        for waiter in list(self.waiting):
            if not waiter.answered.done() and self.hold(waiter.want):
                waiter.answered.set_result(waiter.want)
                self.waiting.remove(waiter)

    def serve_least(self) -> None:
        """Give waiting requests what there is, if they can do with it; -1 to the others."""
        for waiter in self.waiting:
            if not waiter.answered.done():
                waiter.answered.set_result(self.hold_some(waiter.want, waiter.least))
        self.waiting.clear()
        self.wanting = 0

    def hold_some(self, want: int, least: int) -> int:
        """Hold as much as there is between `least` and `want`; returns it, or -1 when there is too little."""
        amount = min(want, self.room)
        return amount if amount >= least and self.hold(amount) else -1

    def age(self, seconds: float) -> None:
        """Time passes: what was large lately is forgotten within minutes."""
        self._largest = int(self._largest * math.exp(-seconds / leases.BURN_S))

    def _ahead(self) -> int:
        """What requests that come, and streams that run on, will want next."""
        return max(HOLDS_AHEAD * self._largest, self.held // 2)

    def _burned(self) -> int:
        """What was spent in the last minute, about: older spending counts less and less."""
        return int(self._burn * math.exp((self._burn_at_s - time.monotonic()) / leases.BURN_S))
