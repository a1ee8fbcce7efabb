"""What one request may cost, and whom: held before it begins, settled when it has ended."""

from __future__ import annotations

import time

from penstock.admission.budgets import Reservation
from penstock.admission.credit.purse import Purse
from penstock.admission.credit.wallets import Payer
from penstock.observe import metrics
from penstock_billing.prices import PriceVersion

STEP_TOKENS = 256
"""An elastic stream holds so many tokens of each choice ahead of what it has used."""
MARGIN_TOKENS = 32
"""It is stopped when it holds less than so many ahead: what the engine makes until it hears of it."""
SILENT_TOKENS_PER_S = 100
"""How fast an engine may be making tokens that it does not show, or that a client does not read."""
PICO_PER_NANO = 1000


class Charge:
    """One request's hold on its wallet. `close` it on every way out; `settle` before that, if it cost."""

    __slots__ = (
        "_choices",
        "_elastic",
        "_output_pico_usd",
        "_price",
        "_purse",
        "_seen",
        "_seen_at_s",
        "funding",
        "held_nano_usd",
        "output_tokens_max",
        "payer",
        "reservation",
        "shortened",
        "wallet_project_id",
    )

    def __init__(
        self,
        payer: Payer,
        purse: Purse | None,
        price: PriceVersion,
        *,
        choices: int,
        output_tokens_max: int,
        held_nano_usd: int = 0,
        elastic: bool = False,
        shortened: bool = False,
    ) -> None:
        """`held_nano_usd` is held already. Elastic: it grows with `go_on`, and may run out."""
        self.payer = payer
        self.funding = payer.funding
        self.wallet_project_id = payer.wallet.project_id
        self.held_nano_usd = held_nano_usd
        self.reservation: Reservation | None = None
        """What is set aside for it in budgets."""
        self.output_tokens_max = output_tokens_max
        """Tokens that each choice may have: what was asked for, or what the credit pays for."""
        self.shortened = shortened
        self._purse = purse
        self._price = price
        self._choices = choices
        self._elastic = elastic
        self._output_pico_usd = choices * price.output_pico_usd
        self._seen = -1
        self._seen_at_s = 0.0
        if purse is not None:
            purse.users += 1

    @property
    def elastic(self) -> bool:
        """Whether `go_on` must be asked while it runs."""
        return self._elastic

    def go_on(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> bool:
        """Whether a stream that has used so much may go on; holds more for it as it needs it.

        While the lender is being asked, it goes on for up to a step that is not held.
        """
        if not self._elastic or self._purse is None:
            return True
        now_s = time.monotonic()
        if output_tokens != self._seen:
            self._seen, self._seen_at_s = output_tokens, now_s
        unseen = int((now_s - self._seen_at_s) * SILENT_TOKENS_PER_S) * self._choices
        price = self._price
        used_pico = (
            (input_tokens - cached_tokens) * price.input_pico_usd
            + cached_tokens * price.cached_input_pico_usd
            + (output_tokens + unseen) * price.output_pico_usd
        )
        ahead = self.held_nano_usd - nano_up(used_pico)
        step = nano_up(STEP_TOKENS * self._output_pico_usd)
        if ahead >= step // 2:
            return True
        rest_tokens = max(0, self.output_tokens_max * self._choices - output_tokens - unseen)
        rest = nano_up(rest_tokens * price.output_pico_usd)
        if ahead >= rest:
            return True
        purse = self._purse
        more = max(0, purse.hold_some(min(step, rest) - ahead, 1))
        self.held_nano_usd += more
        ahead += more
        if ahead >= min(rest, nano_up(MARGIN_TOKENS * self._output_pico_usd)):
            return True
        purse.wanting = max(purse.wanting, step)
        return purse.ask() and ahead > -step

    def settle(self, cost_nano_usd: int) -> None:
        """The request's record is in the journal: it cost so much, whatever was held for it."""
        if self.reservation is not None:
            self.reservation.settle(cost_nano_usd, time.time_ns() // 1_000_000)
            self.reservation = None
        if self._purse is not None:
            if cost_nano_usd > self.held_nano_usd:
                metrics.CREDIT_OVERRUN.inc(cost_nano_usd - self.held_nano_usd)
            self._purse.settle(self.held_nano_usd, cost_nano_usd)
            self._leave()
        elif (tab := self.payer.tab) is not None:
            tab.owed_nano_usd += cost_nano_usd

    def close(self) -> None:
        """Let go of what is held, where nothing was settled; safe to repeat."""
        if self.reservation is not None:
            self.reservation.close()
            self.reservation = None
        if self._purse is not None:
            self._purse.held -= self.held_nano_usd
            self._leave()

    def _leave(self) -> None:
        assert self._purse is not None
        self.held_nano_usd = 0
        self._purse.users -= 1
        self._purse = None


def nano_up(pico_usd: int) -> int:
    """Nano-dollars that surely cover so many pico-dollars."""
    return -(-pico_usd // PICO_PER_NANO)
