"""May it be paid for, now: the one place where a request meets its budgets and its wallet.

    admit_now   from memory: what nearly every request goes by
    admit       the same, and where a prepaid wallet has too little room here, after waiting for credit

What is held of a prepaid wallet:

| | elastic, streamed | elastic, whole | strict |
|---|---|---|---|
| at admission | the prompt's bound and 256 tokens of each choice | the worst case | the worst case |
| while it runs | 256 tokens ahead of what it has used, or it is ended | nothing more | nothing more |
| with too little credit | refused | fewer tokens, or refused | fewer tokens, or refused |
"""

from __future__ import annotations

import msgspec

from penstock.access.keyring import Principal
from penstock.admission.budgets import Budgets, Reservation
from penstock.admission.credit.charge import PICO_PER_NANO, STEP_TOKENS, Charge, nano_up
from penstock.admission.credit.errors import CreditUnavailable, DebtLimit
from penstock.admission.credit.lending import Lender
from penstock.admission.credit.purse import Purse
from penstock.admission.credit.wallets import Payer, Wallets
from penstock_billing.prices import PriceVersion
from penstock_billing.record import Funding

LEAST_TOKENS = 16
"""An answer is not shortened to less than this, or to less than was asked for: then it is refused."""


class Ask(msgspec.Struct, gc=False):
    """What a request may use at most; token counts are upper bounds."""

    principal: Principal
    price: PriceVersion
    input_tokens_max: int
    output_tokens_max: int
    """Of each choice; 0 where nothing is written."""
    choices: int
    streamed: bool

    def worst_nano_usd(self) -> int:
        """What it may cost at most."""
        return nano_up(
            self._input_pico_usd() + self.choices * self.output_tokens_max * self.price.output_pico_usd
        )

    def _input_pico_usd(self) -> int:
        price = self.price
        return self.input_tokens_max * max(price.input_pico_usd, price.cached_input_pico_usd)

    def cost_nano_usd(self, output_tokens: int) -> int:
        """What it may cost with so many tokens in each choice."""
        return nano_up(self._input_pico_usd() + self.choices * output_tokens * self.price.output_pico_usd)

    def output_tokens_for(self, nano_usd: int) -> int:
        """How many tokens each choice may have for so much."""
        per_token = self.choices * self.price.output_pico_usd
        if not per_token:
            return self.output_tokens_max
        return min(self.output_tokens_max, (nano_usd * PICO_PER_NANO - self._input_pico_usd()) // per_token)


class Funds:
    """Finds who pays for a request and holds what it may cost."""

    def __init__(self, wallets: Wallets, lender: Lender, budgets: Budgets | None = None) -> None:
        self._wallets = wallets
        self._lender = lender
        self._budgets = budgets

    def admit_now(self, ask: Ask) -> Charge | None:
        """Let a request in by what is in memory; None when that is not enough to tell.

        Raises DebtLimit, CreditUnavailable while wallets and budgets were never read, or what budgets raise.
        """
        reservation = self._reserve(ask)
        charge = None
        try:
            charge = self._at_hand(ask)
        finally:
            if charge is not None:
                charge.reservation = reservation
            elif reservation is not None:
                reservation.close()
        return charge

    async def admit(self, ask: Ask) -> Charge:
        """Let a request in, waiting for credit where there is too little at hand.

        Raises CreditError, or what the budgets raise.
        """
        reservation = self._reserve(ask)
        charge = None
        try:
            charge = self._at_hand(ask) or await self._lent(ask)
        finally:
            if charge is not None:
                charge.reservation = reservation
            elif reservation is not None:
                reservation.close()
        return charge

    def _reserve(self, ask: Ask) -> Reservation | None:
        """Set the worst case aside in the budgets, where there are any."""
        if not self._wallets.loaded or not (self._budgets is None or self._budgets.loaded):
            raise CreditUnavailable
        if self._budgets is None:
            return None
        return self._budgets.reserve(ask.principal, ask.worst_nano_usd)

    def _at_hand(self, ask: Ask) -> Charge | None:
        payer = self._wallets.of(ask.principal)
        if payer.funding is Funding.POSTPAID:
            tab = payer.tab
            if tab is not None and tab.owed_nano_usd >= tab.max_nano_usd:
                raise DebtLimit(tab.owed_nano_usd, tab.max_nano_usd)
            return Charge(
                payer, None, ask.price, choices=ask.choices, output_tokens_max=ask.output_tokens_max
            )
        purse = self._lender.purse(payer.wallet)
        elastic = ask.streamed and not payer.strict
        want, _ = _amounts(ask, elastic=elastic)
        return _charge(ask, payer, purse, want, elastic=elastic) if purse.hold(want) else None

    async def _lent(self, ask: Ask) -> Charge:
        payer = self._wallets.of(ask.principal)
        purse = self._lender.purse(payer.wallet)
        elastic = ask.streamed and not payer.strict
        want, least = _amounts(ask, elastic=elastic)
        held = await self._lender.reserve(purse, want, least)
        return _charge(ask, payer, purse, held, elastic=elastic)


def _amounts(ask: Ask, *, elastic: bool) -> tuple[int, int]:
    """What to hold at admission in nano-dollars, and with how little a request is still let in."""
    if elastic:
        first = ask.cost_nano_usd(min(STEP_TOKENS, ask.output_tokens_max))
        return first, first
    return ask.worst_nano_usd(), ask.cost_nano_usd(min(LEAST_TOKENS, ask.output_tokens_max))


def _charge(ask: Ask, payer: Payer, purse: Purse, held: int, *, elastic: bool) -> Charge:
    return Charge(
        payer,
        purse,
        ask.price,
        choices=ask.choices,
        output_tokens_max=ask.output_tokens_max if elastic else ask.output_tokens_for(held),
        shortened=not elastic and held < ask.worst_nano_usd(),
        held_nano_usd=held,
        elastic=elastic,
    )
